"""Which principal a route lets in, as types that a route writes into its signature: `who: Reader`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, HTTPBearer

from futago.access.model import Permission, Principal
from futago.web.identity import COOKIE
from futago.web.rooms import rooms_of

# For OpenAPI only; identity.py reads the request itself.
_BEARER = HTTPBearer(auto_error=False, description="An API token.")
_COOKIE = APIKeyCookie(name=COOKIE, auto_error=False, description="A login; changing requests add X-CSRF-Token.")
SCHEMES = [Security(_BEARER), Security(_COOKIE)]


def _allow(permission: Permission) -> Callable[[Request], Awaitable[Principal]]:
    async def let_in(request: Request) -> Principal:
        return await rooms_of(request).identity.require(request, permission)

    return let_in


Reader = Annotated[Principal, Depends(_allow(Permission.READ))]
Poster = Annotated[Principal, Depends(_allow(Permission.POST_EVENT))]
JobStarter = Annotated[Principal, Depends(_allow(Permission.RUN_JOB))]
PairOperator = Annotated[Principal, Depends(_allow(Permission.OPERATE_PAIR))]
AccessManager = Annotated[Principal, Depends(_allow(Permission.MANAGE_ACCESS))]
Definer = Annotated[Principal, Depends(_allow(Permission.DEFINE))]
