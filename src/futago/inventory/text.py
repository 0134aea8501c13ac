"""Checked objects back to the YAML that people write: only what differs from the defaults, in the order of the fields. Pure.

What is written here is read back to the same object; where the short form would not be, the long one is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from futago.inventory.definitions import Definable, validate
from futago.inventory.model import Kind

WIDTH = 120


class _Dumper(yaml.SafeDumper):
    """Texts of several lines stand as they are, and lists lie below their key, indented."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists, too."""
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text and not any(line.endswith((" ", "\t")) for line in text.split("\n")) else None
    if _is_number(text):
        style = "'"  # another reader might take it for one
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _is_number(text: str) -> bool:
    for read in (float, lambda t: int(t, 0)):
        try:
            read(text)
        except ValueError:
            continue
        return True
    return False


_Dumper.add_representer(str, _text)


def plain_of(kind: Kind, definable: Definable) -> dict[str, Any]:
    """Return the fields of an object as people write them, `kind` first."""
    assert isinstance(definable, BaseModel)
    short = definable.model_dump(mode="json", exclude_defaults=True, by_alias=True)
    try:
        is_same = validate(kind, short) == definable
    except ValidationError:
        is_same = False
    return {"kind": str(kind), **(short if is_same else definable.model_dump(mode="json", by_alias=True))}


def as_yaml(objects: Iterable[tuple[Kind, Definable]]) -> str:
    """Return one text of many documents; empty of no objects."""
    texts = [
        yaml.dump(plain_of(kind, one), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH)
        for kind, one in objects
    ]
    return "---\n".join(texts)
