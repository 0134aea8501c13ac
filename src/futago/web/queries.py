"""What the pages and the API read: SQL over the rows that the columns share. Nothing here changes anything.

Each function works inside a read-only transaction that the caller has begun. Long lists are encoded row by row
(msgspec), short ones are models.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from psycopg.rows import class_row

from futago.store.commit import Connection
from futago.web import job_history_model, job_model, model
from futago.web.model import SamplePage

SESSIONS_MAX = 500


class Counters(msgspec.Struct, frozen=True):
    """Figures that tell a page whether to look again; the digests say only whether something is different."""

    last_event_id: int | None
    runs_digest: str
    hosts_digest: str


_COUNTERS = """
SELECT (SELECT max(event_id) FROM event) AS last_event_id,
       (SELECT md5(coalesce(string_agg(x::text, ','), '')) FROM
        (SELECT s.session_id, s.state, r.state, count(*) FROM
         (SELECT session_id, state FROM job_session ORDER BY session_id DESC LIMIT 12) s
         LEFT JOIN job_run r USING (session_id) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3) x) AS runs_digest,
       (SELECT count(*)::text || ':' || count(*) FILTER (WHERE has_agent) FROM host)
       || ':' || (SELECT coalesce(max(since_utc)::text, '') FROM monitor_state) AS hosts_digest
"""


async def counters(conn: Connection) -> Counters:
    """Return the counters of this moment."""
    cursor = conn.cursor(row_factory=class_row(Counters))
    await cursor.execute(_COUNTERS)
    found = await cursor.fetchone()
    assert found is not None
    return found


# --- hosts and monitors -----------------------------------------------------------------------------------------------

_HOSTS = """
SELECT h.host_name, host(h.address) AS address, h.is_registered, h.has_agent, h.agent_seen_utc,
       coalesce((SELECT array_agg(scope_name ORDER BY scope_name) FROM scope_host s WHERE s.host_name = h.host_name),
                '{}') AS scopes,
       coalesce(worst.status, 'none') AS status, worst.since_utc, coalesce(worst.monitor_count, 0) AS monitor_count
FROM host h
LEFT JOIN LATERAL (
    SELECT status, since_utc, count(*) OVER () AS monitor_count FROM monitor_state m WHERE m.host_name = h.host_name
    ORDER BY array_position(ARRAY['critical', 'unknown', 'warning', 'ok'], status), since_utc LIMIT 1
) worst ON true
ORDER BY h.host_name
"""


async def hosts(conn: Connection) -> list[model.Host]:
    """Return all hosts by name, each with its worst status."""
    cursor = conn.cursor(row_factory=class_row(model.Host))
    await cursor.execute(_HOSTS)
    return await cursor.fetchall()


_MONITORS = """
SELECT m.monitor_name, m.kind, m.scope_name, m.is_enabled, m.version, m.spec,
       coalesce((SELECT json_agg(json_build_object('host_name', s.host_name, 'status', s.status, 'since_utc',
       s.since_utc,
                                                   'failures', s.failures, 'next_due_utc', s.next_due_utc)
                                 ORDER BY s.host_name)
                 FROM monitor_state s WHERE s.monitor_name = m.monitor_name), '[]') AS states
FROM monitor m ORDER BY m.monitor_name
"""


async def monitors(conn: Connection) -> list[model.Monitor]:
    """Return all monitors by name."""
    cursor = conn.cursor(row_factory=class_row(model.Monitor))
    await cursor.execute(_MONITORS)
    return await cursor.fetchall()


class SampleRow(msgspec.Struct, frozen=True):
    """As model.Sample."""

    monitor_name: str
    host_name: str
    at_utc: datetime
    value: float | None
    ok: bool


async def samples(conn: Connection, wanted: SamplePage) -> list[SampleRow]:
    """Return one page of the samples of a monitor by time."""
    cursor = conn.cursor(row_factory=class_row(SampleRow))
    await cursor.execute(
        "SELECT monitor_name, host_name, at_utc, value, ok FROM sample WHERE monitor_name = %(monitor)s"
        " AND (%(host)s::text IS NULL OR host_name = %(host)s)"
        " AND (%(since_utc)s::timestamptz IS NULL OR at_utc >= %(since_utc)s)"
        " ORDER BY at_utc, host_name LIMIT %(limit)s",
        wanted.model_dump(),
    )
    return await cursor.fetchall()


# --- what the intake works with --------------------------------------------------------------------------------------


async def rules_at_work(conn: Connection) -> model.RulesAtWork:
    """Return whether the intake works with the definitions of this moment."""
    cursor = conn.cursor(row_factory=class_row(model.RulesAtWork))
    await cursor.execute("SELECT version = intake_rules_version() AS at_work, fault, since_utc FROM intake_rules")
    found = await cursor.fetchone()
    assert found is not None, "the migration makes the row"
    return found


# --- jobs -------------------------------------------------------------------------------------------------------------

_JOB_NETS = """
SELECT n.net_name, n.version, n.spec,
       coalesce(nullif(n.spec->>'owner', ''), (SELECT u.spec->>'owner' FROM job_unit u
                                               WHERE u.unit_name = n.spec->>'unit'), '') AS owner, last.session_id AS last_session_id, last.state AS last_state
FROM job_net n
LEFT JOIN LATERAL (
    SELECT session_id, state FROM job_session s WHERE s.net_name = n.net_name ORDER BY session_id DESC LIMIT 1
) last ON true
ORDER BY n.net_name
"""

_SESSIONS = """
SELECT s.session_id, s.net_name, s.state, s.trigger, s.created_utc, s.started_utc, s.ended_utc,
       coalesce((SELECT json_object_agg(state, n) FROM
                 (SELECT r.state, count(*) AS n FROM
                  (SELECT DISTINCT ON (job_name) state FROM job_run WHERE session_id = s.session_id
                   ORDER BY job_name, attempt DESC) r GROUP BY r.state) x),
                '{}') AS job_states
FROM job_session s
WHERE (%(before)s::bigint IS NULL OR s.session_id < %(before)s) AND (%(net)s::text IS NULL OR s.net_name = %(net)s)
  AND (%(session)s::bigint IS NULL OR s.session_id = %(session)s)
  AND (%(owners)s::text[] IS NULL OR s.owner_role = '' OR s.owner_role = ANY(%(owners)s::text[]))
ORDER BY s.session_id DESC LIMIT %(limit)s
"""

_JOB_RUNS = """
SELECT run_id::text, job_name, host_name, state, attempt, exit_code, started_utc, ended_utc, detail,
       is_held, is_stopping, right(output, 20000) AS output
FROM job_run WHERE session_id = %s ORDER BY started_utc NULLS LAST, job_name, attempt
"""


async def job_nets(conn: Connection) -> list[job_model.JobNet]:
    """Return all job nets by name."""
    cursor = conn.cursor(row_factory=class_row(job_model.JobNet))
    await cursor.execute(_JOB_NETS)
    return await cursor.fetchall()


async def sessions(
    conn: Connection,
    *,
    before: int | None = None,
    net: str | None = None,
    session: int | None = None,
    owners: list[str] | None = None,
    limit: int,
) -> list[job_model.Session]:
    """Return runs of job nets, newest first; with `owners`: only theirs, and nobody's."""
    cursor = conn.cursor(row_factory=class_row(job_model.Session))
    await cursor.execute(
        _SESSIONS, {"before": before, "net": net, "session": session, "owners": owners, "limit": limit}
    )
    return await cursor.fetchall()


async def session_detail(conn: Connection, session_id: int) -> job_model.SessionDetail | None:
    """Return one run with its jobs; None if there is none of that number."""
    found = await sessions(conn, session=session_id, limit=1)
    if not found:
        return None
    cursor = conn.cursor(row_factory=class_row(job_model.JobRun))
    await cursor.execute(_JOB_RUNS, (session_id,))
    return job_model.SessionDetail(**found[0].model_dump(), jobs=await cursor.fetchall())


_SWITCHES = """
SELECT epoch, member_name AS member, taken_utc, told_utc, (report->>'sessions')::int AS sessions,
       (report->>'going_on')::int AS going_on, (report->>'ended')::int AS ended, (report->>'unknown')::int AS unknown,
       (report->>'silent')::int AS silent, (report->>'repeated')::int AS repeated,
       ARRAY(SELECT jsonb_array_elements_text(report->'silent_hosts')) AS silent_hosts
  FROM job_switch_report ORDER BY epoch DESC LIMIT %s
"""


async def job_switches(conn: Connection, *, limit: int) -> list[job_history_model.SwitchReport]:
    """Return what each switch meant for job control, newest first."""
    cursor = conn.cursor(row_factory=class_row(job_history_model.SwitchReport))
    await cursor.execute(_SWITCHES, (limit,))
    return await cursor.fetchall()


async def open_tables(conn: Connection) -> None:
    """Read nothing from the tables that a posted event goes to: a new connection learns of them here, and not while
    somebody waits.
    """
    await conn.execute("SELECT 1 FROM event, api_event_key LIMIT 0")
