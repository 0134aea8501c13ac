"""What becomes of received messages: whether the definitions are at work, the messages that are kept, the live view."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import psycopg
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from futago.runtime.clock import S, now_at
from futago.runtime.faults import Refused
from futago.store.commit import Connection
from futago.web import message_search, queries
from futago.web.allow import SCHEMES, Reader
from futago.web.api.pair import STREAM_S_MAX
from futago.web.live import Onlooker
from futago.web.message_model import KeptMessages, MessageFilter, MessagePage, Messages
from futago.web.model import Hello, RulesAtWork
from futago.web.pulse import News
from futago.web.rooms import InRooms, Rooms

router = APIRouter(tags=["messages"], dependencies=SCHEMES)


@router.get("/rules")
async def rules(rooms: InRooms, who: Reader) -> RulesAtWork:
    """Say whether the message monitors, hosts and scopes of this moment are what messages are held against."""
    return await rooms.serving.require().store.read(queries.rules_at_work, name="web.rules")


@router.get("/messages")
async def messages(rooms: InRooms, who: Reader, wanted: Annotated[MessagePage, Query()]) -> Messages:
    """Search the received messages that are kept, the newest first."""
    return await found(rooms, wanted)


@router.get("/messages/kept")
async def kept(rooms: InRooms, who: Reader) -> KeptMessages:
    """Say how many messages are kept, from when on, and how much disk they take."""
    return await rooms.serving.require().store.read(message_search.kept, name="web.messages_kept")


async def found(rooms: Rooms, wanted: MessagePage) -> Messages:
    """Return one page of kept messages."""

    async def work(conn: Connection) -> Messages:
        return await message_search.search(conn, wanted)

    store = rooms.serving.require().store
    try:
        return await store.read(work, name="web.messages")
    except Refused as e:
        if not isinstance(e.__cause__, psycopg.errors.UndefinedTable):
            raise
        return await store.read(work, name="web.messages")  # a segment was dropped just now: it is not listed any more


@router.get(
    "/messages/stream",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
            "description": "Server-sent events: `hello` (who serves), then four times a second `messages`: those that "
            "came, `skipped`: how many were left out, about. Silence of a second or two means that the member is gone; "
            "the stream ends when it stops to serve, and now and then to have the login shown again. Come again.",
        }
    },
)
async def stream(rooms: InRooms, who: Reader, wanted: Annotated[MessageFilter, Query()]) -> StreamingResponse:
    """Follow the messages that devices send, as they come, whether they are kept or not."""
    rooms.serving.require()
    return StreamingResponse(_stream(rooms, wanted), media_type="text/event-stream")


async def _stream(rooms: Rooms, wanted: MessageFilter) -> AsyncIterator[bytes]:
    end_at = now_at() + STREAM_S_MAX * S
    with rooms.live.listen(wanted) as onlooker:
        hello = Hello(member=rooms.settings.me, epoch=rooms.serving.role.epoch)
        yield b"retry: 500\nevent: hello\ndata: %s\n\n" % hello.model_dump_json().encode()
        while (news := await _next(onlooker, end_at)) is not None:
            yield b"event: %s\ndata: %s\n\n" % (news.event.encode(), news.data)


async def _next(onlooker: Onlooker, end_at: int) -> News | None:
    try:
        async with asyncio.timeout(max(0.0, (end_at - now_at()) / S)):
            return await onlooker.queue.get()
    except TimeoutError:
        return None
