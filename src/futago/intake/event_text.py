"""The texts of events, indexed for search beside the making of events.

Lives here: the SQL of the segments, and the decision when a range of ids may be closed. An index of trigrams on `event`
itself would cost more than all the rest of the intake, so there is none; a closed range of SEGMENT_ROWS events gets a table
with their texts and that index, in one transaction. What is above the last segment is read as it is.

An id is drawn before its transaction commits. So a range is closed only after everyone who was writing events when an event
above it was first seen has ended: whoever begins later draws greater ids.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from futago.intake.model import event_text_table
from futago.store.commit import Connection

SEGMENT_ROWS = 20_000  # what is not indexed yet is read: some 2 us a text
_LOCK_WAIT = "2s"  # for whoever reads a segment that is to be dropped: another round comes


@dataclass(frozen=True, slots=True)
class Range:
    """Events to close: ids from `first_id` to below `next_id`; `writers` may still be adding to them."""

    first_id: int
    next_id: int
    writers: frozenset[str]


async def full_range(conn: Connection) -> Range | None:
    """Return the next range if there are enough events for one, and the transactions that write events now."""
    has_trigrams = await (await conn.execute("SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm'")).fetchone()
    if not has_trigrams:
        return None
    found = await conn.execute(
        "SELECT l.next_id, e.event_id FROM (SELECT coalesce(max(next_id), 0) AS next_id FROM event_text_segment) l,"
        " LATERAL (SELECT event_id FROM event WHERE event_id >= l.next_id ORDER BY event_id OFFSET %s LIMIT 1) e",
        (SEGMENT_ROWS,),
    )
    row = await found.fetchone()
    if row is None:
        return None
    return Range(row[0], row[1], await writers(conn))


async def writers(conn: Connection) -> frozenset[str]:
    """Return the transactions that are writing events. Locks are read as they stand, whatever the snapshot is."""
    found = await conn.execute(
        "SELECT virtualtransaction FROM pg_locks WHERE relation = 'event'::regclass AND mode = 'RowExclusiveLock'"
        " AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    return frozenset(row[0] for row in await found.fetchall())


async def close(conn: Connection, closed: Range) -> None:
    """Make a range that nobody writes into any more quick to search."""
    found = await conn.execute("SELECT coalesce(max(segment), 0) + 1 FROM event_text_segment")
    row = await found.fetchone()
    assert row is not None
    (segment,) = row
    name, bounds = (
        sql.Identifier(event_text_table(segment)),
        (sql.Literal(closed.first_id), sql.Literal(closed.next_id)),
    )
    for statement in (
        sql.SQL(
            "CREATE TABLE {} AS SELECT event_id, message AS text FROM event"
            " WHERE event_id >= {} AND event_id < {} ORDER BY event_id"
        ).format(name, *bounds),
        sql.SQL("CREATE UNIQUE INDEX ON {} (event_id)").format(name),
        sql.SQL("CREATE INDEX ON {} USING gin (text gin_trgm_ops)").format(name),
        sql.SQL("ANALYZE {}").format(name),
    ):
        await conn.execute(statement)
    await conn.execute(
        "INSERT INTO event_text_segment (segment, first_id, next_id) VALUES (%s, %s, %s)",
        (segment, closed.first_id, closed.next_id),
    )


async def emptied(conn: Connection) -> int | None:
    """Return the oldest segment if none of its events is there any more."""
    found = await conn.execute(
        "SELECT segment FROM event_text_segment WHERE next_id <= (SELECT min(event_id) FROM event)"
        " ORDER BY segment LIMIT 1"
    )
    row = await found.fetchone()
    return None if row is None else int(row[0])


async def drop(conn: Connection, segment: int) -> None:
    """Forget a segment."""
    await conn.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_LOCK_WAIT)))
    await conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(event_text_table(segment))))
    await conn.execute("DELETE FROM event_text_segment WHERE segment = %s", (segment,))
