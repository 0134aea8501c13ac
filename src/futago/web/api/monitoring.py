"""Monitors, what they say now, and what they measured."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Response

from futago.store.commit import Connection
from futago.web import queries
from futago.web.allow import SCHEMES, Reader
from futago.web.model import Monitors, SamplePage, Samples
from futago.web.rooms import InRooms

router = APIRouter(tags=["monitoring"], dependencies=SCHEMES)


@router.get("/monitors")
async def monitors(rooms: InRooms, who: Reader) -> Monitors:
    """Return all monitors with the state of each of their hosts."""
    return Monitors(monitors=await rooms.serving.require().store.read(queries.monitors, name="web.monitors"))


@router.get("/samples", response_model=Samples)
async def samples(rooms: InRooms, who: Reader, wanted: Annotated[SamplePage, Query()]) -> Response:
    """Return the samples of a monitor by time. Go on with `since_utc` = `next_since_utc`: that instant's come again."""

    async def work(conn: Connection) -> list[queries.SampleRow]:
        return await queries.samples(conn, wanted)

    found = await rooms.serving.require().store.read(work, name="web.samples")
    following = found[-1].at_utc if len(found) == wanted.limit else None
    body = msgspec.json.encode({"samples": found, "next_since_utc": following})
    return Response(body, media_type="application/json")
