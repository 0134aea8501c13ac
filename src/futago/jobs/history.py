"""What has been: reading the history of runs. SQL only; what follows from the rows is in trend.py.

Functions take the connection of a transaction and never end it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row

Connection = AsyncConnection[tuple[Any, ...]]
ENDED = ("normal", "warning", "abnormal", "unknown")


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt of a job, with the output that its result brought."""

    run_id: str
    job_name: str
    host_name: str
    state: str
    attempt: int
    output: str | None
    output_bytes: int | None


@dataclass(frozen=True, slots=True)
class BarRow:
    """One attempt of a job of a session, as a bar of a Gantt chart needs it."""

    job_name: str
    host_name: str
    state: str
    attempt: int
    ordered_utc: datetime | None
    started_utc: datetime | None
    ended_utc: datetime | None


@dataclass(frozen=True, slots=True)
class TookRow:
    """How long something took: a session, or (`job_name` not empty) a job of it."""

    session_id: int
    job_name: str
    state: str
    started_utc: datetime
    seconds: float


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A run whose output holds what was searched for; `line`: the first line that does."""

    session_id: int
    net_name: str
    job_name: str
    host_name: str
    attempt: int
    state: str
    ended_utc: datetime | None
    line: str


async def read_attempt(
    conn: Connection, session_id: int, job_name: str, *, attempt: int | None = None
) -> AttemptRow | None:
    """Return an attempt of a job, the newest if none is named; None if there is none."""
    async with conn.cursor(row_factory=class_row(AttemptRow)) as cursor:
        await cursor.execute(
            "SELECT run_id::text, job_name, host_name, state, attempt, output, output_bytes FROM job_run"
            " WHERE session_id = %s AND job_name = %s AND (%s::int IS NULL OR attempt = %s)"
            " ORDER BY attempt DESC LIMIT 1",
            (session_id, job_name, attempt, attempt),
        )
        return await cursor.fetchone()


async def search_output(
    conn: Connection,
    text: str,
    *,
    net: str | None = None,
    host: str | None = None,
    since_utc: datetime,
    before: int | None = None,
    owners: list[str] | None = None,
    limit: int,
) -> list[FoundRow]:
    """Return the newest runs whose kept output holds `text`, upper and lower case alike.

    Args:
        conn: a transaction.
        text: as it is; nothing in it is a pattern.
        net: only of this net.
        host: only on this host.
        since_utc: only of sessions made since then.
        before: only of sessions with a smaller number.
        owners: only of sessions of these owner roles, and of nobody's; None: of all.
        limit: so many at most.
    """
    async with conn.cursor(row_factory=class_row(FoundRow)) as cursor:
        await cursor.execute(
            "SELECT r.session_id, s.net_name, r.job_name, r.host_name, r.attempt, r.state, r.ended_utc, coalesce((SELECT"
            "  left(l, 500) FROM regexp_split_to_table(r.output, '\\n') WITH ORDINALITY AS x (l, n)"
            "  WHERE strpos(lower(l), lower(%(text)s)) > 0 ORDER BY n LIMIT 1), '') AS line"
            " FROM job_session s JOIN job_run r USING (session_id)"
            " WHERE s.created_utc >= %(since)s AND strpos(lower(r.output), lower(%(text)s)) > 0"
            " AND (%(net)s::text IS NULL OR s.net_name = %(net)s)"
            " AND (%(host)s::text IS NULL OR r.host_name = %(host)s)"
            " AND (%(owners)s::text[] IS NULL OR s.owner_role = '' OR s.owner_role = ANY(%(owners)s::text[]))"
            " AND (%(before)s::bigint IS NULL OR s.session_id < %(before)s)"
            " ORDER BY s.session_id DESC, r.job_name, r.attempt LIMIT %(limit)s",
            {
                "text": text,
                "net": net,
                "host": host,
                "since": since_utc,
                "before": before,
                "owners": owners,
                "limit": limit,
            },
        )
        return await cursor.fetchall()


async def read_bars(conn: Connection, session_id: int) -> list[BarRow]:
    """Return every attempt of every job of a session, in the order of their starts."""
    async with conn.cursor(row_factory=class_row(BarRow)) as cursor:
        await cursor.execute(
            "SELECT job_name, host_name, state, attempt, ordered_utc, started_utc, ended_utc FROM job_run"
            " WHERE session_id = %s ORDER BY started_utc NULLS LAST, job_name, attempt",
            (session_id,),
        )
        return await cursor.fetchall()


async def read_sessions_took(conn: Connection, net: str, *, owners: list[str] | None, count: int) -> list[TookRow]:
    """Return how long the newest `count` ended sessions of a net took, oldest first; with `owners` only theirs, and
    nobody's.
    """
    async with conn.cursor(row_factory=class_row(TookRow)) as cursor:
        await cursor.execute(
            "SELECT session_id, '' AS job_name, state, started_utc,"
            " extract(epoch FROM ended_utc - started_utc)::float AS seconds FROM job_session"
            " WHERE net_name = %s AND state = ANY(%s) AND started_utc IS NOT NULL AND ended_utc IS NOT NULL"
            " AND (%s::text[] IS NULL OR owner_role = '' OR owner_role = ANY(%s::text[]))"
            " ORDER BY session_id DESC LIMIT %s",
            (net, list(ENDED), owners, owners, count),
        )
        return (await cursor.fetchall())[::-1]


async def read_jobs_took(conn: Connection, session_ids: list[int]) -> list[TookRow]:
    """Return how long the jobs of these sessions took, those that ran to an end; oldest session first."""
    async with conn.cursor(row_factory=class_row(TookRow)) as cursor:
        await cursor.execute(
            "SELECT session_id, job_name, state, started_utc,"
            " extract(epoch FROM ended_utc - started_utc)::float AS seconds FROM job_run"
            " WHERE session_id = ANY(%s) AND state IN ('normal', 'warning', 'abnormal')"
            " AND started_utc IS NOT NULL AND ended_utc IS NOT NULL ORDER BY session_id, job_name, attempt",
            (session_ids,),
        )
        return await cursor.fetchall()
