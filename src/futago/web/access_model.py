"""What goes over the wire about accounts and their API tokens.

Pure shapes, as model.py.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from futago.access.model import AccessRole
from futago.inventory.model import Name
from futago.web.model import Shape

OwnerRole = Annotated[str, Field(pattern=r"^(\*|\w[\w.@:-]{0,62})$")]


class AccountShown(Shape):
    """An account. `owners`: its owner roles; `*`: all of them. Of an administrator they say nothing."""

    account: str
    role: AccessRole
    owners: list[str]
    is_enabled: bool
    created_utc: datetime
    tokens: list[str]


class Accounts(Shape):
    """All accounts, by name."""

    accounts: list[AccountShown]


class AccountWanted(Shape):
    """What an account is to be; null: as it is. A new one needs `role` and `password`."""

    role: AccessRole | None = None
    owners: Annotated[list[OwnerRole] | None, Field(max_length=100)] = None
    is_enabled: bool | None = None
    password: Annotated[str | None, Field(max_length=200)] = None


class TokenWanted(Shape):
    """The token's name: one of an account's own replaces the one before."""

    name: Name


class TokenDrawn(Shape):
    """An API token, shown this once."""

    account: str
    name: str
    secret: str
