"""Rows of accounts, login sessions, API tokens and the audit trail. Every function works inside a transaction that
the caller has begun.

No rule lives here (model.py has them) and nothing commits here (futago.store.commit does).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from futago.access.model import AccessRole, Account, AccountName, Principal, Via
from futago.store.commit import Connection

SESSION_LIFE = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class AccountRow:
    """An account with everything that is told of it."""

    account: str
    role: AccessRole
    is_enabled: bool
    created_utc: datetime
    owners: list[str]
    tokens: list[str]


@dataclass(frozen=True, slots=True)
class Change:
    """What an account is to be; None: as it is."""

    role: AccessRole | None = None
    password_hash: str | None = None
    is_enabled: bool | None = None
    owners: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Deed:
    """One line of the audit trail: what was done to what. `detail` is JSON text or empty."""

    action: str
    subject: str = ""
    detail: dict[str, str | int | bool | None] | None = None


async def account(conn: Connection, name: str) -> Account | None:
    """Return the account of that name; None if there is none."""
    cursor = await conn.execute(
        "SELECT password_hash, access_role, is_enabled FROM account WHERE account_name = %s", (name,)
    )
    row = await cursor.fetchone()
    return Account(AccountName(name), row[0], AccessRole(row[1]), row[2]) if row else None


async def add_account(conn: Connection, new: Account) -> bool:
    """Insert the account; return False, with nothing changed, if one of that name is there."""
    cursor = await conn.execute(
        "INSERT INTO account (account_name, password_hash, access_role, is_enabled) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (new.name, new.password_hash, new.role.value, new.is_enabled),
    )
    return cursor.rowcount == 1


async def accounts(conn: Connection) -> list[AccountRow]:
    """Return all accounts by name."""
    cursor = await conn.execute(
        "SELECT account_name, access_role, is_enabled, created_utc,"
        " ARRAY(SELECT owner_role FROM account_owner o WHERE o.account_name = a.account_name ORDER BY 1),"
        " ARRAY(SELECT token_name FROM api_token t WHERE t.account_name = a.account_name ORDER BY 1)"
        " FROM account a ORDER BY account_name"
    )
    return [AccountRow(name, AccessRole(role), *rest) for name, role, *rest in await cursor.fetchall()]


async def put_account(conn: Connection, name: AccountName, change: Change) -> None:
    """Insert the account (`change` has a role and a password then), or change it; who loses the right to be logged in
    is logged out.
    """
    role = change.role.value if change.role else None
    updated = await conn.execute(
        "UPDATE account SET access_role = coalesce(%s, access_role), password_hash = coalesce(%s, password_hash),"
        " is_enabled = coalesce(%s, is_enabled) WHERE account_name = %s",
        (role, change.password_hash, change.is_enabled, name),
    )
    if not updated.rowcount:
        await conn.execute(
            "INSERT INTO account (account_name, password_hash, access_role, is_enabled) VALUES (%s, %s, %s, %s)",
            (name, change.password_hash, role, change.is_enabled is not False),
        )
    if change.owners is not None:
        await conn.execute("DELETE FROM account_owner WHERE account_name = %s", (name,))
        await conn.execute(
            "INSERT INTO account_owner SELECT DISTINCT %s, unnest(%s::text[])", (name, list(change.owners))
        )
    if change.password_hash is not None or change.is_enabled is False:
        await conn.execute("DELETE FROM login_session WHERE account_name = %s", (name,))


async def has_administrator(conn: Connection) -> bool:
    """Return whether somebody may manage accounts."""
    cursor = await conn.execute("SELECT 1 FROM account WHERE access_role = 'admin' AND is_enabled LIMIT 1 FOR SHARE")
    return await cursor.fetchone() is not None


async def account_of_token(conn: Connection, token_name: str) -> str | None:
    """Return whose token of that name there is; None: nobody's."""
    cursor = await conn.execute("SELECT account_name FROM api_token WHERE token_name = %s", (token_name,))
    row = await cursor.fetchone()
    return str(row[0]) if row else None


async def add_session(
    conn: Connection, *, secret_hash: bytes, account_name: AccountName, address: str | None, now_utc: datetime
) -> None:
    """Insert a login session that ends after SESSION_LIFE."""
    await conn.execute(
        "INSERT INTO login_session (secret_hash, account_name, address, created_utc, expires_utc)"
        " VALUES (%s, %s, %s, %s, %s)",
        (secret_hash, account_name, address, now_utc, now_utc + SESSION_LIFE),
    )


async def end_session(conn: Connection, secret_hash: bytes) -> None:
    """Delete a login session; nothing happens if there is none."""
    await conn.execute("DELETE FROM login_session WHERE secret_hash = %s", (secret_hash,))


async def principal_of_session(conn: Connection, secret_hash: bytes, now_utc: datetime) -> Principal | None:
    """Return whose unexpired session this is; None if nobody's."""
    cursor = await conn.execute(
        "SELECT account_name, access_role,"
        " ARRAY(SELECT owner_role FROM account_owner o WHERE o.account_name = account.account_name)"
        " FROM login_session JOIN account USING (account_name)"
        " WHERE secret_hash = %s AND expires_utc > %s AND is_enabled",
        (secret_hash, now_utc),
    )
    row = await cursor.fetchone()
    return Principal(AccountName(row[0]), AccessRole(row[1]), Via.SESSION, owners=frozenset(row[2])) if row else None


async def principal_of_token(conn: Connection, secret_hash: bytes, now_utc: datetime) -> Principal | None:
    """Return whose valid API token this is; None if nobody's."""
    cursor = await conn.execute(
        "SELECT account_name, access_role,"
        " ARRAY(SELECT owner_role FROM account_owner o WHERE o.account_name = account.account_name)"
        " FROM api_token JOIN account USING (account_name)"
        " WHERE secret_hash = %s AND (expires_utc IS NULL OR expires_utc > %s) AND is_enabled",
        (secret_hash, now_utc),
    )
    row = await cursor.fetchone()
    return Principal(AccountName(row[0]), AccessRole(row[1]), Via.TOKEN, owners=frozenset(row[2])) if row else None


async def put_token(conn: Connection, *, token_name: str, secret_hash: bytes, account_name: AccountName) -> None:
    """Insert the token, or give the token of that name this secret."""
    await conn.execute(
        "INSERT INTO api_token (token_name, secret_hash, account_name) VALUES (%s, %s, %s)"
        " ON CONFLICT (token_name) DO UPDATE"
        " SET secret_hash = excluded.secret_hash, account_name = excluded.account_name",
        (token_name, secret_hash, account_name),
    )


async def record(conn: Connection, who: Principal, deed: Deed) -> None:
    """Insert one line of the audit trail."""
    await conn.execute(
        "INSERT INTO audit (account_name, via, address, action, subject, detail) VALUES (%s, %s, %s, %s, %s, %s)",
        (
            who.account,
            who.via.value,
            who.address,
            deed.action,
            deed.subject,
            json.dumps(deed.detail) if deed.detail else None,
        ),
    )


async def prune(conn: Connection, *, now_utc: datetime, limit: int) -> int:
    """Delete up to `limit` expired sessions; return how many went."""
    cursor = await conn.execute(
        "DELETE FROM login_session WHERE secret_hash IN"
        " (SELECT secret_hash FROM login_session WHERE expires_utc <= %s LIMIT %s)",
        (now_utc, limit),
    )
    return cursor.rowcount
