"""The page of received messages: search over those that are kept, and the live view (static/messages.js)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from futago.access.tokens import csrf_token
from futago.web import message_search
from futago.web.allow import Reader
from futago.web.api.messages import found
from futago.web.identity import COOKIE
from futago.web.message_model import MessageKind, MessagePage
from futago.web.render import render
from futago.web.rooms import InRooms

router = APIRouter()
SHOWN = 200


@router.get("/messages")
async def page(request: Request, rooms: InRooms, who: Reader) -> Response:
    """The frame with the newest messages in it."""
    serve = rooms.serving.require()
    wanted = MessagePage(limit=SHOWN)
    return render(
        request,
        "messages.html",
        who=who,
        csrf=csrf_token(request.cookies.get(COOKIE, "")),
        pair_name=rooms.settings.pair.name,
        health=rooms.serving.health(),
        kept=await serve.store.read(message_search.kept, name="web.messages_kept", deadline_s=5),
        wanted=wanted,
        result=await found(rooms, wanted),
    )


@router.get("/parts/messages")
async def part(
    request: Request,
    rooms: InRooms,
    who: Reader,
    *,
    text: Annotated[str, Query(max_length=500)] = "",
    host: Annotated[str, Query(max_length=255)] = "",
    kind: MessageKind = "",
    before: Annotated[int, Query(ge=0)] | None = None,
) -> Response:
    """What is found, the newest first."""
    wanted = MessagePage(text=text, host=host or None, kind=kind or None, before=before, limit=SHOWN)
    return render(request, "parts/messages.html", wanted=wanted, result=await found(rooms, wanted))
