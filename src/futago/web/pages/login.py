"""The way in and out for people."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from futago.web.faults import HttpFault
from futago.web.identity import clear_cookie, set_cookie
from futago.web.render import render
from futago.web.rooms import InRooms

router = APIRouter()


@router.get("/login")
async def login_form(request: Request, rooms: InRooms) -> Response:
    """Show the form; whoever has a session already goes to the overview."""
    if await rooms.identity.find(request) is not None:
        return RedirectResponse("/", status_code=HTTPStatus.SEE_OTHER)
    return _form(request, rooms)


@router.post("/login")
async def log_in(
    request: Request,
    rooms: InRooms,
    account: Annotated[str, Form(max_length=63)],
    password: Annotated[str, Form(max_length=200)],
) -> Response:
    """Open a session and go to the overview, or show the form again with what was wrong."""
    try:
        opened = await rooms.identity.log_in(request, account, password)
    except HttpFault as fault:
        if fault.status not in {HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS}:
            raise
        return _form(request, rooms, fault=fault, account=account)
    answer = RedirectResponse("/", status_code=HTTPStatus.SEE_OTHER)
    set_cookie(answer, opened)
    return answer


@router.post("/logout")
async def log_out(request: Request, rooms: InRooms) -> Response:
    """End the session. Called by the page's script, which sends the CSRF token."""
    await rooms.identity.log_out(request)
    answer = Response(status_code=HTTPStatus.NO_CONTENT, headers={"HX-Redirect": "/login"})
    clear_cookie(answer)
    return answer


def _form(request: Request, rooms: InRooms, *, fault: HttpFault | None = None, account: str = "") -> Response:
    answer = render(
        request,
        "login.html",
        status=fault.status if fault else HTTPStatus.OK,
        pair_name=rooms.settings.pair.name,
        health=rooms.serving.health(),
        fault=fault,
        wait_s=fault.headers.get("Retry-After", "") if fault else "",
        account=account,
    )
    for name, value in (fault.headers if fault else {}).items():
        answer.headers[name] = value
    return answer
