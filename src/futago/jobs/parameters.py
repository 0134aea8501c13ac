"""Typed parameters of a net, and the variables that jobs set. Pure.

A value is a text that its type has checked. Jobs find it in their environment, so that a shell never reads it as
anything but a value: ``"$DATE"``. In fields that no shell reads (an URL, a path), ``{{DATE}}`` stands for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import Field, StringConstraints, model_validator

from futago.jobs.condition_definitions import Part, Scalar, VariableName

VALUE_CHARS_MAX = 4096
VARIABLES_MAX = 100
_PLACE = re.compile(r"\{\{\s*([A-Z][A-Z0-9_]{0,62})\s*\}\}")

Prefix = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\n]+$")]


class Parameter(Part):
    """What may be given when the net is started. Without `default` it must be."""

    type: Literal["text", "integer", "number", "date", "choice", "flag"] = "text"
    default: Scalar | None = None
    of: list[Scalar] = Field(default=[], max_length=1000)
    min: float | None = None
    max: float | None = None
    about: str = Field(default="", max_length=1000)

    @model_validator(mode="after")
    def _is_sound(self) -> Parameter:
        if (self.type == "choice") != bool(self.of):
            raise ValueError("`of` lists what a choice may be, and belongs to it only")
        if (self.min is not None or self.max is not None) and self.type not in ("integer", "number"):
            raise ValueError(f"`min` and `max` belong to numbers, not to a {self.type}")
        if self.default is not None:
            check_value(self, self.default)
        return self


def check_value(parameter: Parameter, text: str) -> str:
    """Return the value, checked.

    Raises:
        ValueError: with a sentence.
    """
    if len(text) > VALUE_CHARS_MAX or "\0" in text:
        raise ValueError(f"a value has {VALUE_CHARS_MAX} characters at most, and no NUL character")
    _CHECKS[parameter.type](parameter, text)
    return text


def _integer(parameter: Parameter, text: str) -> None:
    if not re.fullmatch(r"[-+]?\d{1,18}", text):
        raise ValueError(f"`{text}` is not a whole number")
    _in_bounds(parameter, float(text), text)


def _number(parameter: Parameter, text: str) -> None:
    if not re.fullmatch(r"[-+]?(\d{1,18}(\.\d{0,18})?|\.\d{1,18})", text):
        raise ValueError(f"`{text}` is not a number")
    _in_bounds(parameter, float(text), text)


def _in_bounds(parameter: Parameter, number: float, text: str) -> None:
    if parameter.min is not None and number < parameter.min:
        raise ValueError(f"`{text}` is less than {parameter.min:g}")
    if parameter.max is not None and number > parameter.max:
        raise ValueError(f"`{text}` is more than {parameter.max:g}")


def _date(_parameter: Parameter, text: str) -> None:
    try:
        date.fromisoformat(text)
    except ValueError as e:
        raise ValueError(f"`{text}` is not a date; write such as 2026-12-31") from e


def _choice(parameter: Parameter, text: str) -> None:
    if text not in parameter.of:
        raise ValueError(f"`{text}` is none of {', '.join(parameter.of)}")


def _flag(_parameter: Parameter, text: str) -> None:
    if text not in ("true", "false"):
        raise ValueError(f"`{text}` is neither true nor false")


def _text(_parameter: Parameter, _said: str) -> None:
    pass


_CHECKS: dict[str, Callable[[Parameter, str], None]] = {
    "text": _text,
    "integer": _integer,
    "number": _number,
    "date": _date,
    "choice": _choice,
    "flag": _flag,
}


def values_of(parameters: Mapping[str, Parameter], given: Mapping[str, str]) -> dict[str, str]:
    """Return the value of every parameter: given, or its default.

    Raises:
        ValueError: with a sentence: one is not known, is missing, or is not of its type.
    """
    for name in given:
        if name not in parameters:
            known = ", ".join(parameters) or "none"
            raise ValueError(f"there is no parameter `{name}`; there is {known}")
    values: dict[str, str] = {}
    for name, parameter in parameters.items():
        text = given.get(name, parameter.default)
        if text is None:
            raise ValueError(f"parameter `{name}` has no value; give one")
        try:
            values[name] = check_value(parameter, text)
        except ValueError as e:
            raise ValueError(f"parameter `{name}`: {e}") from e
    return values


def found_in(output: str, sets: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that an output sets: the rest of the last line that begins with each one's prefix."""
    found: dict[str, str] = {}
    if sets:
        for line in output.splitlines():
            for name, prefix in sets.items():
                if line.startswith(prefix):
                    found[name] = line[len(prefix) :].strip()[:VALUE_CHARS_MAX]
    return found


def filled(text: str, variables: Mapping[str, str], *, in_url: bool = False) -> str:
    """Return the text with the variables' values in their places; a variable that has none leaves nothing there."""

    def value(match: re.Match[str]) -> str:
        found = variables.get(match[1], "")
        return quote(found, safe="") if in_url else found

    return _PLACE.sub(value, text)


def named_in(text: str) -> set[str]:
    """Return the variables that a text has places for."""
    return {match[1] for match in _PLACE.finditer(text)}


__all__ = ["Parameter", "VariableName", "check_value", "filled", "found_in", "named_in", "values_of"]
