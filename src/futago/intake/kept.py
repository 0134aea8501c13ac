"""Received messages that are kept for search: how they are written, indexed and dropped.

Lives here: the SQL and the decisions over segments. A segment is a partition of `message`, of one day and some
SEGMENT_ROWS rows. Messages go into the newest one, in the transaction of their effects; it has no search index, as that
would cost more than all the rest. Closed segments get theirs afterwards, one after another, and are dropped as a whole
when they are too old or too many: no step holds anything up for long.

Only the partitions are written and read, never `message` itself: whoever reads everything (a dump) then stands in
nobody's way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import msgspec
from psycopg import sql

from futago.intake.model import segment_table
from futago.store.commit import Connection

SEGMENT_ROWS = 50_000
Step = Callable[[Connection], Awaitable[None]]
_ESCAPED = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_LOCK_WAIT = "2s"  # for whoever reads a segment that is to be dropped: another round comes
_COLUMNS = "segment, message_id, received_utc, host_name, address, kind, severity, text"


class Kept(msgspec.Struct, frozen=True, gc=False):
    """One message. `received_ns` is wall time; `severity` of syslog."""

    received_ns: int
    host: str
    address: str
    kind: str
    severity: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Segment:
    """One row of message_segment."""

    segment: int
    day: date
    first_id: int
    next_id: int
    to_utc: datetime
    is_closed: bool
    is_indexed: bool

    @property
    def rows(self) -> int:
        return self.next_id - self.first_id


def surplus(segments: Sequence[Segment], *, rows_max: int, oldest_utc: datetime) -> Segment | None:
    """Return the segment to drop next, if one is: closed, and too old, or not needed for the newest `rows_max`.

    Args:
        segments: oldest first.
        oldest_utc: what was received before is not wanted.
    """
    total = sum(segment.rows for segment in segments)
    for segment in segments:
        if segment.is_closed and (segment.to_utc < oldest_utc or total - segment.rows >= rows_max):
            return segment
    return None


def table(segment: int) -> sql.Identifier:
    """Return the name of a segment's table."""
    return sql.Identifier(segment_table(segment))


async def write(conn: Connection, kept: Sequence[Kept], *, today: date) -> None:
    """Add messages to the newest segment, or to a new one; to be run in the transaction of their effects."""
    newest = await (
        await conn.execute(
            "SELECT segment, day, next_id, next_id - first_id, is_closed FROM message_segment"
            " ORDER BY segment DESC LIMIT 1"
        )
    ).fetchone()
    segment, next_id = (newest[0], newest[2]) if newest else (0, 1)
    if newest is None or newest[4] or newest[1] != today or newest[3] >= SEGMENT_ROWS:
        segment += 1
        await _open(conn, segment, next_id, today)
    lines = "".join(_line(one, segment, next_id + n) for n, one in enumerate(kept))
    target = sql.SQL("COPY {} ({}) FROM STDIN").format(table(segment), sql.SQL(_COLUMNS))
    async with conn.cursor().copy(target) as copy:
        await copy.write(lines)
    times = [one.received_ns for one in kept]
    await conn.execute(
        "UPDATE message_segment SET next_id = %s, from_utc = least(from_utc, %s), to_utc = greatest(to_utc, %s)"
        " WHERE segment = %s",
        (next_id + len(kept), _utc(min(times)), _utc(max(times)), segment),
    )


async def _open(conn: Connection, segment: int, first_id: int, today: date) -> None:
    # Attached, not created as a partition: that would wait for everyone who reads `message`.
    name = table(segment)
    for statement in (
        sql.SQL("CREATE TABLE {} (LIKE message, CHECK (segment = {}))").format(name, sql.Literal(segment)),
        sql.SQL("CREATE UNIQUE INDEX ON {} (message_id)").format(name),
        sql.SQL("ALTER TABLE message ATTACH PARTITION {} FOR VALUES IN ({})").format(name, sql.Literal(segment)),
    ):
        await conn.execute(statement)
    await conn.execute("UPDATE message_segment SET is_closed = true WHERE NOT is_closed")
    await conn.execute(
        "INSERT INTO message_segment (segment, day, first_id, next_id, from_utc, to_utc)"
        " VALUES (%s, %s, %s, %s, 'infinity', '-infinity')",
        (segment, today, first_id, first_id),
    )


def _line(one: Kept, segment: int, message_id: int) -> str:
    """Return one line of COPY's text format."""
    text = one.text
    if not text.isprintable() or "\\" in text:
        text = text.translate(_ESCAPED)
    severity = "\\N" if one.severity is None else str(one.severity)
    received = _utc(one.received_ns).isoformat()
    return (
        f"{segment}\t{message_id}\t{received}\t{one.host.translate(_ESCAPED)}\t{one.address}\t{one.kind}"
        f"\t{severity}\t{text}\n"
    )


def _utc(ns: int) -> datetime:
    return datetime.fromtimestamp(ns / 1e9, UTC)


async def load_segments(conn: Connection) -> list[Segment]:
    """Return all segments, oldest first."""
    found = await conn.execute(
        "SELECT segment, day, first_id, next_id, to_utc, is_closed, is_indexed FROM message_segment"
        " WHERE next_id > first_id ORDER BY segment"
    )
    return [Segment(*row) for row in await found.fetchall()]


async def index(conn: Connection, segment: int) -> None:
    """Make a closed segment quick to search."""
    name = table(segment)
    has_trigrams = await (await conn.execute("SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm'")).fetchone()
    if has_trigrams:
        await conn.execute(sql.SQL("CREATE INDEX ON {} USING gin (text gin_trgm_ops)").format(name))
    await conn.execute(sql.SQL("CREATE INDEX ON {} (host_name, message_id)").format(name))
    await conn.execute(sql.SQL("ANALYZE {}").format(name))
    await conn.execute("UPDATE message_segment SET is_indexed = true WHERE segment = %s", (segment,))


async def drop(conn: Connection, segment: int) -> None:
    """Forget a segment."""
    await conn.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_LOCK_WAIT)))
    await conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table(segment)))
    await conn.execute("DELETE FROM message_segment WHERE segment = %s", (segment,))


async def close_old(conn: Connection, today: date) -> None:
    """Close the newest segment when its day is over, so that it is indexed and dropped although nothing follows."""
    await conn.execute("UPDATE message_segment SET is_closed = true WHERE NOT is_closed AND day < %s", (today,))
