"""Events: read them by id, count them, and post one from outside.

A posted event is one committed row: 201 says that it is on the disks of both members while they are paired. A key
makes a repetition safe: the row and its key commit together, and a repetition answers only after a write of its own
has committed, so that it, too, has waited for the standby.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

import msgspec
import psycopg
from fastapi import APIRouter, Header, Query, Response

from futago.access.model import Principal
from futago.runtime.clock import now_utc
from futago.runtime.faults import Refused
from futago.store.commit import Connection
from futago.web import event_search
from futago.web.allow import SCHEMES, Poster, Reader
from futago.web.faults import HttpFault, conflict
from futago.web.model import EventCount, EventFilter, EventPage, Events, NewEvent, PostedEvent
from futago.web.rooms import InRooms
from futago.web.serving import Serve

router = APIRouter(tags=["events"], dependencies=SCHEMES)

KEY_RACES_MAX = 3  # two requests with one new key: the later finds the earlier's row at its second try


@router.get("/events", response_model=Events)
async def events(rooms: InRooms, who: Reader, wanted: Annotated[EventPage, Query()]) -> Response:
    """Return one page of events by id; of job control's those whose net's owner role the reader has a part in.

    An id is drawn before its transaction commits, so an event may appear below one that was already read: a program
    that follows reads a little of what it knows again.
    """

    async def work(conn: Connection) -> list[event_search.EventRow]:
        return await event_search.events(conn, wanted, owners=who.only_owners)

    found = await rooms.serving.require().store.read(work, name="web.events")
    following = found[-1].event_id if len(found) == wanted.limit else None
    return Response(msgspec.json.encode({"events": found, "next": following}), media_type="application/json")


@router.get("/events/count")
async def count(rooms: InRooms, who: Reader, wanted: Annotated[EventFilter, Query()]) -> EventCount:
    """Return how many events there are of that kind."""

    async def work(conn: Connection) -> EventCount:
        return await event_search.event_count(conn, wanted, owners=who.only_owners)

    return await rooms.serving.require().store.read(work, name="web.event_count")


@router.post(
    "/events",
    status_code=201,
    responses={
        200: {"model": PostedEvent, "description": "The key was known: this is the event of then."},
        504: {"description": "The outcome is unknown: repeat with the same Idempotency-Key."},
    },
)
async def post(
    new: NewEvent,
    response: Response,
    rooms: InRooms,
    who: Poster,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> PostedEvent:
    """Take an event from an outside system. The answer comes after the commit."""
    posted = await _post(rooms.serving.require(), new, who, idempotency_key)
    response.status_code = 200 if posted.repeated else 201
    return posted


@dataclass(frozen=True, slots=True)
class _Key:
    """An idempotency key: whose, which, and what was sent with it."""

    account: str
    key: str
    fingerprint: bytes


async def _post(serve: Serve, new: NewEvent, who: Principal, key: str | None) -> PostedEvent:
    keyed = _Key(who.account, key, hashlib.sha256(new.model_dump_json().encode()).digest()) if key else None

    async def work(conn: Connection) -> PostedEvent:
        if keyed is not None and (known := await _repeat(conn, keyed)) is not None:
            return PostedEvent(event_id=known, repeated=True)
        event_id = await _insert(conn, new, who, serve.epoch)
        if keyed is not None:
            await conn.execute(
                "INSERT INTO api_event_key (account_name, event_key, event_id, fingerprint) VALUES (%s, %s, %s, %s)",
                (keyed.account, keyed.key, event_id, keyed.fingerprint),
            )
        return PostedEvent(event_id=event_id, repeated=False)

    for _ in range(KEY_RACES_MAX):
        try:
            return await serve.store.commit(work, name="web.post_event")
        except Refused as e:
            if not isinstance(e.__cause__, psycopg.errors.UniqueViolation):
                raise
    raise Refused("the key is contended")


async def _repeat(conn: Connection, keyed: _Key) -> int | None:
    cursor = await conn.execute(
        "UPDATE api_event_key SET repeated = repeated + 1 WHERE account_name = %s AND event_key = %s"
        " RETURNING event_id, fingerprint",
        (keyed.account, keyed.key),
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    if bytes(row[1]) != keyed.fingerprint:
        raise conflict(
            "This Idempotency-Key was used for another event.", hint="Draw a new key.", code="event.key-used"
        )
    return int(row[0])


async def _insert(conn: Connection, new: NewEvent, who: Principal, epoch: int) -> int:
    detail = {**(new.detail or {}), "posted_by": who.account}
    try:
        cursor = await conn.execute(
            "INSERT INTO event (occurred_utc, priority, source, host_name, message, detail, epoch)"
            " VALUES (%s, %s, 'api', %s, %s, %s, %s) RETURNING event_id",
            (new.occurred_utc or now_utc(), new.priority.value, new.host, new.message, json.dumps(detail), epoch),
        )
    except psycopg.DataError as e:
        raise HttpFault(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "The event holds a character that cannot be stored (NUL, or half of a pair).",
            hint="Send text in UTF-8 without NUL.",
            code="event.character",
        ) from e
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])
