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
        "SELECT account_name, access_role FROM login_session JOIN account USING (account_name)"
        " WHERE secret_hash = %s AND expires_utc > %s AND is_enabled",
        (secret_hash, now_utc),
    )
    row = await cursor.fetchone()
    return Principal(AccountName(row[0]), AccessRole(row[1]), Via.SESSION) if row else None


async def principal_of_token(conn: Connection, secret_hash: bytes, now_utc: datetime) -> Principal | None:
    """Return whose valid API token this is; None if nobody's."""
    cursor = await conn.execute(
        "SELECT account_name, access_role FROM api_token JOIN account USING (account_name)"
        " WHERE secret_hash = %s AND (expires_utc IS NULL OR expires_utc > %s) AND is_enabled",
        (secret_hash, now_utc),
    )
    row = await cursor.fetchone()
    return Principal(AccountName(row[0]), AccessRole(row[1]), Via.TOKEN) if row else None


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
