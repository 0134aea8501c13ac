"""The nouns of access and the table of who may do what.

Pure data: no database, no clock. A *principal* is whoever stands behind a request, a person with a login session or a
program with a token. What a role may do is the table GRANTS; nothing else in the product asks for a role by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NewType

AccountName = NewType("AccountName", str)


EVERY_OWNER = "*"


class AccessRole(Enum):
    """What kind of work an account is for."""

    ADMIN = "admin"
    OPERATOR = "operator"
    READER = "reader"


class Permission(Enum):
    """One thing that can be allowed."""

    READ = "read"
    POST_EVENT = "post-event"
    RUN_JOB = "run-job"
    OPERATE_PAIR = "operate-pair"
    DEFINE = "define"
    MANAGE_ACCESS = "manage-access"


GRANTS: dict[AccessRole, frozenset[Permission]] = {
    AccessRole.ADMIN: frozenset(Permission),
    AccessRole.OPERATOR: frozenset(
        {Permission.READ, Permission.POST_EVENT, Permission.RUN_JOB, Permission.OPERATE_PAIR}
    ),
    AccessRole.READER: frozenset({Permission.READ}),
}


class Via(Enum):
    """How a principal showed who it is."""

    SESSION = "session"
    TOKEN = "token"  # noqa: S105  a word, not a secret
    LOGIN = "login"


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever stands behind a request."""

    account: AccountName
    role: AccessRole
    via: Via
    address: str | None = None
    owners: frozenset[str] = frozenset()

    def has_part_in(self, owner: str) -> bool:
        """Return whether what this owner role owns (empty: nobody does) is for this principal."""
        return self.role is AccessRole.ADMIN or not owner or not self.owners.isdisjoint({owner, EVERY_OWNER})

    @property
    def only_owners(self) -> list[str] | None:
        """The owner roles that this principal is restricted to; None: it is not."""
        is_free = self.role is AccessRole.ADMIN or EVERY_OWNER in self.owners
        return None if is_free else sorted(self.owners)

    def may(self, permission: Permission) -> bool:
        """Return whether the role of this principal grants `permission`."""
        return permission in GRANTS[self.role]


@dataclass(frozen=True, slots=True)
class Account:
    """A row of table account."""

    name: AccountName
    password_hash: str
    role: AccessRole
    is_enabled: bool
