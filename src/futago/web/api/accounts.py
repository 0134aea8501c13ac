"""Accounts: who they are, what they may do, on whose objects; and their API tokens. Administrators only."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path

from futago.access import store as rows
from futago.access.model import AccountName
from futago.access.passwords import hash_password
from futago.access.tokens import draw_secret, hash_secret
from futago.runtime.faults import OperatorFault
from futago.store.commit import Connection
from futago.web.access_model import Accounts, AccountShown, AccountWanted, TokenDrawn, TokenWanted
from futago.web.allow import SCHEMES, AccessManager
from futago.web.faults import not_found
from futago.web.rooms import InRooms

router = APIRouter(tags=["people"], dependencies=SCHEMES)
NameInPath = Annotated[str, Path(pattern=r"^[a-z][a-z0-9._-]{0,62}$")]


@router.get("/accounts")
async def accounts(rooms: InRooms, who: AccessManager) -> Accounts:
    """Return all accounts."""
    found = await rooms.serving.require().store.read(rows.accounts, name="web.accounts")
    return Accounts(accounts=[AccountShown.model_validate(row, from_attributes=True) for row in found])


@router.post("/accounts/{name}")
async def put(name: NameInPath, wanted: AccountWanted, rooms: InRooms, who: AccessManager) -> AccountShown:
    """Make an account, or change it. Who is disabled, or gets another password, is logged out everywhere."""
    password_hash = await asyncio.to_thread(hash_password, wanted.password) if wanted.password is not None else None

    async def work(conn: Connection) -> rows.AccountRow:
        if await rows.account(conn, name) is None and (wanted.role is None or password_hash is None):
            raise OperatorFault(
                f"There is no account `{name}`: a new one needs a role and a password.",
                hint="Give --role and --password-file.",
                code="access.new-account",
            )
        change = rows.Change(wanted.role, password_hash, wanted.is_enabled, wanted.owners)
        await rows.put_account(conn, AccountName(name), change)
        if not await rows.has_administrator(conn):
            raise OperatorFault(
                "This would leave no administrator.", hint="Make another one first.", code="access.last-administrator"
            )
        detail: dict[str, str | int | bool | None] = {
            "role": wanted.role.value if wanted.role else None,
            "owners": ", ".join(wanted.owners) if wanted.owners is not None else None,
            "is_enabled": wanted.is_enabled,
            "password": wanted.password is not None,
        }
        await rows.record(conn, who, rows.Deed("account.set", name, detail))
        return next(row for row in await rows.accounts(conn) if row.account == name)

    row = await rooms.serving.require().store.commit(work, name="web.account")
    rooms.identity.forget()
    return AccountShown.model_validate(row, from_attributes=True)


@router.post("/accounts/{name}/tokens")
async def new_token(name: NameInPath, wanted: TokenWanted, rooms: InRooms, who: AccessManager) -> TokenDrawn:
    """Draw an API token of an account, in the place of the one of that name."""
    secret = draw_secret()

    async def work(conn: Connection) -> None:
        if await rows.account(conn, name) is None:
            raise not_found(f"There is no account `{name}`.")
        owner = await rows.account_of_token(conn, wanted.name)
        if owner not in (None, name):
            raise OperatorFault(
                f"Account `{owner}` has a token of this name.", hint="Choose another.", code="access.token-name"
            )
        await rows.put_token(
            conn, token_name=wanted.name, secret_hash=hash_secret(secret), account_name=AccountName(name)
        )
        await rows.record(conn, who, rows.Deed("account.token", name, {"token": wanted.name}))

    await rooms.serving.require().store.commit(work, name="web.token")
    rooms.identity.forget()
    return TokenDrawn(account=name, name=wanted.name, secret=secret)
