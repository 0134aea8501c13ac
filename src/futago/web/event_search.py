"""Events as pages and the API read them: by id, of a kind, and with a text.

A text is searched for range by range, in the order that is wanted, until the page is full: in a closed range of ids with its
index of trigrams (intake/event_text.py makes them), in what is above them by reading. Works inside a reading transaction
that the caller has begun.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, LiteralString

import msgspec
from psycopg import sql

from futago.intake.model import event_text_table
from futago.store.commit import Connection
from futago.web import model
from futago.web.model import EventFilter, EventPage, Order

_WILD = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_"})
_COLUMNS: LiteralString = (
    "event_id, occurred_utc, recorded_utc, priority, source, monitor_name, host_name, message, detail::text, epoch"
)
_SEGMENTS = """
SELECT segment, first_id, next_id FROM event_text_segment
WHERE (%(after)s::bigint IS NULL OR next_id > %(after)s) AND (%(before)s::bigint IS NULL OR first_id < %(before)s)
ORDER BY segment
"""


class EventRow(msgspec.Struct, frozen=True):
    """As model.Event; `detail` is JSON text that is passed on unread."""

    event_id: int
    occurred_utc: datetime
    recorded_utc: datetime
    priority: str
    source: str
    monitor_name: str | None
    host_name: str | None
    message: str
    detail: msgspec.Raw | None
    epoch: int


class _Part(msgspec.Struct, frozen=True):
    """Where to look: a table, which of its columns holds the text, and the ids there."""

    table: sql.Composable
    text: LiteralString = "message"
    first_id: int | None = None
    next_id: int | None = None


_ALL = _Part(sql.SQL("event"))


async def _parts(conn: Connection, wanted: EventFilter) -> list[_Part]:
    """Return what is to be searched, by ids: all at once if no text is wanted, and the ranges of the index otherwise."""
    if not wanted.text:
        return [_ALL]
    found = await (await conn.execute(_SEGMENTS, wanted.model_dump(mode="json"))).fetchall()
    return list(_ranges(found))


def _ranges(segments: list[tuple[int, int, int]]) -> Iterator[_Part]:
    """Every id is in one part: segments, and what is below, between and above them."""
    next_id: int | None = None
    for segment, first, following in segments:
        if next_id != first:
            yield _Part(_ALL.table, first_id=next_id, next_id=first)
        table = sql.SQL("{} JOIN event USING (event_id)").format(sql.Identifier(event_text_table(segment)))
        yield _Part(table, "text", first, following)
        next_id = following
    yield _Part(_ALL.table, first_id=next_id)


def _where(wanted: EventFilter, part: _Part, owners: list[str] | None) -> tuple[sql.Composable, dict[str, Any]]:
    """Return the conditions, with named parameters; absent ones leave no trace, so that indexes are used."""
    possible: tuple[tuple[object, LiteralString], ...] = (
        (part.first_id, "event_id >= %(first_id)s"),
        (part.next_id, "event_id < %(next_id)s"),
        (wanted.after, "event_id > %(after)s"),
        (wanted.before, "event_id < %(before)s"),
        (wanted.source, "source = %(source)s"),
        (wanted.monitor, "monitor_name = %(monitor)s"),
        (wanted.host, "host_name = %(host)s"),
        (wanted.priority, "priority = %(priority)s"),
        (wanted.text or None, part.text + " ILIKE %(pattern)s"),
        (owners, "owner_role = ANY(%(owners)s::text[])"),
    )
    conditions = [sql.SQL(condition) for value, condition in possible if value is not None]
    pattern = f"%{(wanted.text or '').translate(_WILD)}%"
    bounds = {"first_id": part.first_id, "next_id": part.next_id}
    values = {**wanted.model_dump(mode="json"), **bounds, "pattern": pattern, "owners": ["", *(owners or ())]}
    return sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("true"), values


async def events(conn: Connection, wanted: EventPage, *, owners: list[str] | None) -> list[EventRow]:
    """Return one page of events by id: with `owners` only theirs, and everybody's."""
    is_ascending = wanted.order is Order.ASCENDING
    parts = await _parts(conn, wanted)
    rows: list[EventRow] = []
    for part in parts if is_ascending else reversed(parts):
        where, values = _where(wanted, part, owners)
        query = sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY event_id {} LIMIT %(left)s").format(
            sql.SQL(_COLUMNS), part.table, where, sql.SQL("ASC" if is_ascending else "DESC")
        )
        # Which index is good depends on the words.
        cursor = await conn.execute(
            query, {**values, "left": wanted.limit - len(rows)}, prepare=False if wanted.text else None
        )
        rows += [_row(row) for row in await cursor.fetchall()]
        if len(rows) >= wanted.limit:
            break
    return rows


def _row(row: tuple[Any, ...]) -> EventRow:
    return EventRow(
        event_id=row[0],
        occurred_utc=row[1],
        recorded_utc=row[2],
        priority=row[3],
        source=row[4],
        monitor_name=row[5],
        host_name=row[6],
        message=row[7],
        detail=msgspec.Raw(row[8]) if row[8] else None,
        epoch=row[9],
    )


async def event_count(conn: Connection, wanted: EventFilter, *, owners: list[str] | None) -> model.EventCount:
    """Return how many events there are of that kind: with `owners` only theirs, and everybody's."""
    count, last = 0, None
    for part in await _parts(conn, wanted):
        where, values = _where(wanted, part, owners)
        query = sql.SQL("SELECT count(*), max(event_id) FROM {} WHERE {}").format(part.table, where)
        row = await (await conn.execute(query, values, prepare=False if wanted.text else None)).fetchone()
        assert row is not None
        count, last = count + row[0], row[1] if row[1] is not None else last
    return model.EventCount(count=count, last_event_id=last)
