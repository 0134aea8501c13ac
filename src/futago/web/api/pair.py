"""The pair: its status, the operations on it, the stream of changes, and who answers here at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import APIRouter, Response
from starlette.responses import StreamingResponse

from futago.runtime.clock import S, now_at
from futago.web.allow import SCHEMES, PairOperator, Reader
from futago.web.controller_link import Operation
from futago.web.model import Health, Hello, OperationStatus, PairStatus
from futago.web.pulse import Listener, News
from futago.web.rooms import InRooms

STREAM_S_MAX = 300  # then the client comes again, and shows again who it is

open_router = APIRouter(tags=["pair"])
router = APIRouter(tags=["pair"], dependencies=SCHEMES)


@open_router.get("/health", responses={503: {"model": Health, "description": "This member does not serve now."}})
async def health(rooms: InRooms, response: Response) -> Health:
    """Tell who answers and whether it serves: 200 if it does, 503 if not. Needs no login."""
    told = rooms.serving.health()
    response.status_code = 200 if told.serving else 503
    return told


@router.get("/pair")
async def pair(rooms: InRooms, who: Reader) -> PairStatus:
    """Return the pair's status, as `futago status --json` prints it."""
    rooms.serving.require()
    return await rooms.controller.status()


@router.get("/pair/operation")
async def operation(rooms: InRooms, who: Reader) -> OperationStatus | None:
    """Return how far the newest operation is that was asked for here; null if there was none."""
    return rooms.operations.present


@router.post("/pair/recover", status_code=202)
async def recover(rooms: InRooms, who: PairOperator) -> OperationStatus:
    """Bring the pair back to two members. Progress: GET /pair/operation or the stream."""
    return await rooms.operations.start(Operation.RECOVER, who)


@router.post("/pair/switchover", status_code=202)
async def switchover(rooms: InRooms, who: PairOperator) -> OperationStatus:
    """Hand the service over to the other member. The answer may come from this member while it hands over."""
    return await rooms.operations.start(Operation.SWITCHOVER, who)


@router.get(
    "/stream",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
            "description": "Server-sent events: `hello` (who serves), `pair` (a PairStatus, when something in it has changed), `operation` "
            "(an OperationStatus), `counters` (figures that tell what to read again), `tick` each second. A second "
            "or two of silence means that the member is gone; the stream ends when it stops to serve, and now and "
            "then to have the login shown again. Come again at once.",
        }
    },
)
async def stream(rooms: InRooms, who: Reader) -> StreamingResponse:
    """Follow what changes."""
    rooms.serving.require()
    return StreamingResponse(_stream(rooms), media_type="text/event-stream")


async def _stream(rooms: InRooms) -> AsyncIterator[bytes]:
    end_at = now_at() + STREAM_S_MAX * S
    with rooms.pulse.listen() as listener:
        hello = Hello(member=rooms.settings.me, epoch=rooms.serving.role.epoch)
        yield b"retry: 500\nevent: hello\ndata: %s\n\n" % hello.model_dump_json().encode()
        while (news := await _next(listener, end_at)) is not None:
            yield b"event: %s\ndata: %s\n\n" % (news.event.encode(), news.data)


async def _next(listener: Listener, end_at: int) -> News | None:
    try:
        async with asyncio.timeout(max(0.0, (end_at - now_at()) / S)):
            return await listener.queue.get()
    except TimeoutError:
        return None
