"""What becomes of received messages: whether the definitions are at work, the messages that are kept, the live view."""

from __future__ import annotations

from typing import Annotated

import psycopg
from fastapi import APIRouter, Query

from futago.runtime.faults import Refused
from futago.store.commit import Connection
from futago.web import message_search, queries
from futago.web.allow import SCHEMES, Reader
from futago.web.message_model import KeptMessages, MessagePage, Messages
from futago.web.model import RulesAtWork
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
