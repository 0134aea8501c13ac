"""Durations as people write them: 800ms, 1s, 1m30s, 2h, 1d. Pure."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_PART = re.compile(r"([0-9]{1,9})(ms|[smhd])")
_WHOLE = re.compile(r"([0-9]{1,9}(ms|[smhd]))+\Z")
DURATION_MAX = timedelta(days=3660)


def parse_duration(value: object) -> timedelta:
    """Return the length that `value` writes.

    Raises:
        ValueError: it is not a duration, or out of bounds.
    """
    if isinstance(value, timedelta):
        return value
    text = str(value).replace(" ", "")
    if isinstance(value, bool) or not isinstance(value, str | int) or not _WHOLE.match(text):
        raise ValueError(f"`{value}` is not a duration; write a number and a unit, such as 800ms, 5s, 10m, 1h")
    length = timedelta(milliseconds=sum(int(n) * _UNITS_MS[unit] for n, unit in _PART.findall(text)))
    if not timedelta(0) < length <= DURATION_MAX:
        raise ValueError(f"`{value}` is out of bounds: more than 0, at most {DURATION_MAX.days} days")
    return length


def format_duration(length: timedelta) -> str:
    """Return the shortest text that `parse_duration` reads back."""
    rest = round(length / timedelta(milliseconds=1))
    parts = []
    for unit, ms in _UNITS_MS.items():
        count, rest = divmod(rest, ms)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


Duration = Annotated[
    timedelta, BeforeValidator(parse_duration, json_schema_input_type=str), PlainSerializer(format_duration)
]
