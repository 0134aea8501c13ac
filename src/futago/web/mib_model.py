"""The bodies of requests and answers about MIB modules, as OpenAPI shows them. Pure shapes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, field_validator

from futago.web.model import Shape

MibName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")]


class MibFile(Shape):
    """One MIB file."""

    name: Annotated[str, Field(min_length=1, max_length=1000)]
    text: str

    @field_validator("name", "text")
    @classmethod
    def _can_be_stored(cls, value: str) -> str:
        if "\0" in value or any(0xD800 <= ord(character) < 0xE000 for character in value):
            raise ValueError("it holds a character that cannot be stored (NUL, or half of a pair)")
        return value


class MibFiles(Shape):
    """Several MIB files that are loaded together or not at all."""

    files: Annotated[list[MibFile], Field(min_length=1, max_length=1000)]


class Mib(Shape):
    """One loaded MIB module."""

    mib_name: str
    file_name: str
    imports: list[str] = Field(description="Loaded modules that it imports from.")
    names: int = Field(description="How many names it has.")
    notifications: int = Field(description="How many of them are notifications.")
    loaded_by: str
    loaded_utc: datetime


class Mibs(Shape):
    """Loaded MIB modules."""

    mibs: list[Mib]


class MibNode(Shape):
    """One name of a module."""

    oid: str
    name: str
    is_notification: bool
    values: dict[str, str] = Field(description="Names of an enumeration's numbers, or of bits.")
    hint: str = Field(description="DISPLAY-HINT of its syntax.")
    objects: list[str] = Field(description="Of a notification: what it carries.")


class MibShown(Shape):
    """What a module names."""

    mib_name: str
    imports: list[str]
    nodes: list[MibNode]
