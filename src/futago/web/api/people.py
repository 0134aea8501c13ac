"""Log in, log out, who am I."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from futago.access.tokens import csrf_token
from futago.web.allow import SCHEMES, Reader
from futago.web.identity import COOKIE, clear_cookie, set_cookie
from futago.web.model import LoggedIn, Login
from futago.web.rooms import InRooms

open_router = APIRouter(tags=["people"])
router = APIRouter(tags=["people"], dependencies=SCHEMES)


@open_router.post("/login")
async def login(body: Login, request: Request, response: Response, rooms: InRooms) -> LoggedIn:
    """Open a session; its cookie comes with the answer. It lives in the pair's database, so it survives a switch."""
    opened = await rooms.identity.log_in(request, body.account, body.password)
    set_cookie(response, opened)
    return LoggedIn(account=opened.principal.account, role=opened.principal.role.value, csrf_token=opened.csrf)


@router.get("/session")
async def session(request: Request, who: Reader) -> LoggedIn:
    """Return who asks, and the CSRF token of the session (empty with an API token)."""
    secret = request.cookies.get(COOKIE, "")
    token = csrf_token(secret) if secret else ""
    return LoggedIn(account=who.account, role=who.role.value, csrf_token=token)


@router.post("/logout", status_code=204, response_class=Response)
async def logout(request: Request, response: Response, rooms: InRooms, who: Reader) -> None:
    """End the session of the cookie."""
    await rooms.identity.log_out(request)
    clear_cookie(response)
