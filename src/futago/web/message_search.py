"""Search over kept messages: one segment after another, the newest first, until the page is full or time is over.

Segment by segment, because each answers within milliseconds (its index, or some 50,000 rows read), so an answer comes
soon whatever is asked, and a rare word in the far past is found by asking on. Works inside a reading transaction that
the caller has begun.
"""

from __future__ import annotations

import re
from typing import LiteralString

from psycopg import sql
from psycopg.rows import class_row

from futago.intake.model import segment_table
from futago.runtime.clock import S, now_at
from futago.store.commit import Connection
from futago.web.message_model import KeptMessages, Message, MessagePage, Messages

ANSWER_S = 1.5  # then the page goes out as it is
_PART = re.compile(r'"([^"]+)"|(\S+)')
_WILD = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_"})
PARTS_MAX = 16

_SEGMENTS = """
SELECT segment, first_id FROM message_segment
WHERE next_id > first_id AND (%(before)s::bigint IS NULL OR first_id < %(before)s)
  AND (%(since_utc)s::timestamptz IS NULL OR to_utc >= %(since_utc)s)
  AND (%(until_utc)s::timestamptz IS NULL OR from_utc < %(until_utc)s)
ORDER BY segment DESC
"""
_COLUMNS: LiteralString = "message_id, received_utc, host_name, host(address) AS address, kind, severity, text"
_KEPT = """
SELECT coalesce(sum(next_id - first_id), 0)::bigint AS rows, count(*) AS segments,
       count(*) FILTER (WHERE NOT is_indexed) AS not_indexed, min(from_utc) AS from_utc, max(to_utc) AS to_utc,
       coalesce(sum(pg_total_relation_size(to_regclass('message_' || segment))), 0)::bigint AS bytes
FROM message_segment WHERE next_id > first_id
"""


def parts(text: str) -> list[str]:
    """Return what must occur in a message's text."""
    return [phrase or word for phrase, word in _PART.findall(text)][:PARTS_MAX]


def _conditions(wanted: MessagePage) -> tuple[sql.Composable, dict[str, object]]:
    values = wanted.model_dump()
    possible: tuple[tuple[object, LiteralString], ...] = (
        (wanted.before, "message_id < %(before)s"),
        (wanted.host, "host_name = %(host)s"),
        (wanted.kind, "kind = %(kind)s"),
        (wanted.severity, "severity <= %(severity)s"),
        (wanted.since_utc, "received_utc >= %(since_utc)s"),
        (wanted.until_utc, "received_utc < %(until_utc)s"),
    )
    conditions: list[sql.Composable] = [sql.SQL(c) for value, c in possible if value is not None]
    for n, part in enumerate(parts(wanted.text)):
        values[f"part{n}"] = f"%{part.translate(_WILD)}%"
        conditions.append(sql.SQL("text ILIKE {}").format(sql.Placeholder(f"part{n}")))
    return sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("true"), values


async def search(conn: Connection, wanted: MessagePage, *, answer_s: float = ANSWER_S) -> Messages:
    """Return one page."""
    until_at = now_at() + round(answer_s * S)
    where, values = _conditions(wanted)
    segments = await (await conn.execute(_SEGMENTS, values)).fetchall()
    found: list[Message] = []
    cursor = conn.cursor(row_factory=class_row(Message))
    for segment, first_id in segments:
        values["left"] = wanted.limit - len(found)
        query = sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY message_id DESC LIMIT %(left)s").format(
            sql.SQL(_COLUMNS), sql.Identifier(segment_table(segment)), where
        )
        await cursor.execute(query, values, prepare=False)  # which index is good depends on the words
        found += await cursor.fetchall()
        if len(found) >= wanted.limit:
            return Messages(messages=found, next=found[-1].message_id)
        if now_at() > until_at and segment != segments[-1][0]:
            return Messages(messages=found, next=first_id)
    return Messages(messages=found, next=None)


async def kept(conn: Connection) -> KeptMessages:
    """Return how much is kept."""
    cursor = conn.cursor(row_factory=class_row(KeptMessages))
    await cursor.execute(_KEPT)
    found = await cursor.fetchone()
    assert found is not None
    return found
