"""One level of the tree of a run: what lies directly in one net of it, a page at a time, and how what lies deeper stands.

A run may have 10,000 jobs. Whoever looks at it is shown the outermost net with counts by state, and opens what he wants
to see; so what is read and sent is bounded by what is open, not by the run.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from futago.jobs.store import fetch
from futago.store.commit import Connection
from futago.web import queries
from futago.web.job_model import Session

UNITS_SHOWN = 100
PAGE_MAX = 10_000
TAIL_CHARS = 400  # of a job's output, in its row

# The output is fetched for the rows of the page only: the sort must not drag it along.
_UNITS = """
SELECT r.run_id::text, substr(r.job_name, %(rest_at)s) AS name, r.job_name, r.host_name, r.state, r.attempt, r.exit_code,
       r.started_utc, r.ended_utc, r.detail, right(r.output, %(tail)s) AS output,
       coalesce(length(r.output), 0) > %(tail)s AS is_cut
  FROM (SELECT run_id FROM job_run
         WHERE session_id = %(session)s AND starts_with(job_name, %(prefix)s)
           AND strpos(substr(job_name, %(rest_at)s), '/') = 0
         ORDER BY started_utc NULLS LAST, job_name, attempt LIMIT %(limit)s OFFSET %(offset)s) shown
  JOIN job_run r USING (run_id)
 ORDER BY r.started_utc NULLS LAST, r.job_name, r.attempt
"""

_INSIDE = """
SELECT net, state, count(*)
  FROM (SELECT DISTINCT ON (job_name) split_part(substr(job_name, %(rest_at)s), '/', 1) AS net, state
          FROM job_run
         WHERE session_id = %(session)s AND starts_with(job_name, %(prefix)s)
           AND strpos(substr(job_name, %(rest_at)s), '/') > 0
         ORDER BY job_name, attempt DESC) newest
 GROUP BY net, state ORDER BY net, count(*) DESC, state
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """One attempt of a job or net. `name`: within its net; `output`: its end, `is_cut`: there is more of it."""

    run_id: str
    name: str
    job_name: str
    host_name: str | None
    state: str
    attempt: int
    exit_code: int | None
    started_utc: datetime | None
    ended_utc: datetime | None
    detail: str | None
    output: str | None
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Level:
    """What is shown of one net. `inside`: of each net in it, how many units stand how; `page` counts from 0."""

    session: Session
    under: str
    page: int
    units: list[Unit]
    inside: dict[str, list[tuple[str, int]]]
    has_more: bool

    @property
    def digest(self) -> str:
        """Return what differs as soon as anything of it differs, of the run's state too."""
        what = repr((self.session.state, self.page, self.units, self.inside, self.has_more))
        return hashlib.sha256(what.encode()).hexdigest()[:16]


async def read_level(conn: Connection, session_id: int, *, under: str, page: int) -> Level | None:
    """Return a page of what lies directly in the net `under` (empty: the outermost); None: there is no such run."""
    found = await queries.sessions(conn, session=session_id, limit=1)
    if not found:
        return None
    prefix = f"{under}/" if under else ""
    values = {
        "session": session_id, "prefix": prefix, "rest_at": len(prefix) + 1, "tail": TAIL_CHARS,
        "limit": UNITS_SHOWN + 1, "offset": page * UNITS_SHOWN,
    }  # fmt: skip
    cursor = conn.cursor(row_factory=class_row(Unit))
    await cursor.execute(_UNITS, values)
    units = await cursor.fetchall()
    counted = await conn.execute(_INSIDE, values)
    shown = {unit.name for unit in units[:UNITS_SHOWN]}
    inside: dict[str, list[tuple[str, int]]] = {}
    for net, state, count in await counted.fetchall():
        if net in shown:
            inside.setdefault(net, []).append((state, count))
    return Level(found[0], under, page, units[:UNITS_SHOWN], inside, len(units) > UNITS_SHOWN)


async def read_output(conn: Connection, session_id: int, run_id: str) -> str | None:
    """Return what is kept of the output of one attempt; None: there is no such attempt."""
    rows = await fetch(
        conn,
        "SELECT coalesce(output, '') FROM job_run WHERE session_id = %s AND run_id::text = %s",
        session_id,
        run_id,
    )
    return str(rows[0][0]) if rows else None
