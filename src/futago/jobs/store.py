"""Job control's rows: every SQL statement of this column. Functions take the connection of a transaction and never
end it.

Moves are optimistic: each says from which state it goes, and `write_moves` refuses the whole transaction when a row
stands elsewhere by now. Whoever gets `Refused` or `Unknown` reads the rows again; the rows are the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from futago.jobs.definitions import read_net
from futago.jobs.model import JobName, JobState, Operation, SessionState
from futago.jobs.rerun import jobs_again
from futago.runtime.faults import OperatorFault, Refused

Connection = AsyncConnection[tuple[Any, ...]]
LOAD_MAX = 200  # new sessions read in one round
RUNS_READ_MAX = 20_000  # rows of one statement while everything is read


@dataclass(frozen=True, slots=True)
class Opened:
    """A session of a net. `is_new` False: its trigger key had started it before."""

    session_id: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class SessionRow:
    """An open session."""

    session_id: int
    net_name: str
    digest: str
    state: SessionState
    business_date: date | None = None


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run of an open session."""

    run_id: str
    session_id: int
    job_name: str
    host_name: str
    state: JobState
    is_held: bool = False
    is_stopping: bool = False


@dataclass(frozen=True, slots=True)
class OperationRow:
    """Something that a person asked for and that is not decided. `job_name` empty: the whole session."""

    operation_id: int
    session_id: int
    job_name: str
    operation: Operation
    asked_by: str
    session_state: SessionState


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """A schedule. `counted_utc`: its instants up to then have been dealt with."""

    name: str
    spec: Mapping[str, Any]
    counted_utc: datetime


@dataclass(slots=True)
class RunMove:
    """A run goes from `before` to `to`. Fields that are None stay as they are in the row."""

    run_id: str
    before: JobState
    to: JobState
    ordered_utc: datetime | None = None
    started_utc: datetime | None = None
    ended_utc: datetime | None = None
    exit_code: int | None = None
    output: str | None = None
    output_bytes: int | None = None
    detail: str | None = None
    is_held: bool | None = None
    is_stopping: bool | None = None


@dataclass(slots=True)
class SessionMove:
    """A session goes from `before` to `to`."""

    session_id: int
    before: SessionState
    to: SessionState
    started_utc: datetime | None = None
    ended_utc: datetime | None = None


@dataclass(frozen=True, slots=True)
class EventRow:
    """Something that people should know. `notify`: Notification objects, empty: none."""

    occurred_utc: datetime
    priority: str
    host_name: str | None
    message: str
    detail: Mapping[str, Any]
    notify: tuple[str, ...] = ()


@dataclass(slots=True)
class Moves:
    """What one transaction writes."""

    runs: dict[str, RunMove] = field(default_factory=dict)
    sessions: dict[int, SessionMove] = field(default_factory=dict)
    events: list[EventRow] = field(default_factory=list)
    decided: dict[int, str] = field(default_factory=dict)  # operations, and why each was refused; empty: done

    def __bool__(self) -> bool:
        return bool(self.runs or self.sessions or self.events or self.decided)


# --- starting ---------------------------------------------------------------------------------------------------------


async def open_session(
    conn: Connection,
    net_name: str,
    *,
    trigger: str,
    trigger_key: str | None = None,
    business_date: date | None = None,
) -> Opened:
    """Make a session of a net with a waiting run for each job; the engine begins it within about 100 ms.

    Args:
        conn: a transaction; the session exists when it is committed.
        net_name: which net; its present definition is what this session keeps.
        trigger: what started it, for people: ``manual``, ``schedule nightly-at-one``.
        trigger_key: the same key never starts a second session.
        business_date: which date's work it is, for the jobs and for people.

    Raises:
        OperatorFault: there is no such net.
    """
    if trigger_key is not None:
        found = await _fetch(conn, "SELECT session_id FROM job_session WHERE trigger_key = %s", trigger_key)
        if found:
            return Opened(int(found[0][0]), is_new=False)
    digests = await _fetch(
        conn,
        "WITH net AS (SELECT spec, encode(sha256(convert_to(spec::text, 'UTF8')), 'hex') AS digest"
        "  FROM job_net WHERE net_name = %s),"
        " kept AS (INSERT INTO job_definition (digest, spec) SELECT digest, spec FROM net ON CONFLICT DO NOTHING)"
        " SELECT digest FROM net",
        net_name,
    )
    if not digests:
        raise OperatorFault(
            f"There is no job net `{net_name}`.", hint="Define it with `futago apply`.", code="jobs.no-such-net"
        )
    inserted = await _fetch(
        conn,
        "INSERT INTO job_session (net_name, digest, trigger, trigger_key, business_date) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (trigger_key) DO NOTHING RETURNING session_id",
        net_name,
        digests[0][0],
        trigger,
        trigger_key,
        business_date,
    )
    if not inserted:  # another transaction with this key was faster
        found = await _fetch(conn, "SELECT session_id FROM job_session WHERE trigger_key = %s", trigger_key)
        return Opened(int(found[0][0]), is_new=False)
    session_id = int(inserted[0][0])
    await conn.execute(
        "INSERT INTO job_run (session_id, job_name, host_name)"
        " SELECT %s, job->>'name', job->>'host'"
        " FROM job_definition, jsonb_array_elements(spec->'jobs') WITH ORDINALITY AS j (job, n)"
        " WHERE digest = %s ORDER BY n",
        (session_id, digests[0][0]),
    )
    return Opened(session_id, is_new=True)


async def start_session(conn: Connection, net_name: str, *, trigger: str, trigger_key: str | None = None) -> int:
    """Return the id of the session that `open_session` makes (or has made under this key)."""
    return (await open_session(conn, net_name, trigger=trigger, trigger_key=trigger_key)).session_id


async def run_again(conn: Connection, session_id: int, job: str | None) -> list[str]:
    """Begin an ended session again, from a job or from all that failed; return the jobs that run again. Each gets
    a new attempt; the engine begins the session as it begins a new one.

    Raises:
        OperatorFault: there is no such session, it has not ended, or the point has no meaning.
    """
    found = await _fetch(
        conn,
        "SELECT s.state, d.spec FROM job_session s JOIN job_definition d USING (digest) WHERE session_id = %s FOR UPDATE OF s",
        session_id,
    )
    if not found:
        raise _no_such_run(session_id)
    if found[0][0] in ("starting", "running"):
        raise OperatorFault(
            f"Run {session_id} has not ended.",
            hint=f"Stop it first: `futago job stop {session_id}`.",
            code="jobs.refused",
        )
    runs = await _runs(conn, [session_id])
    try:
        again = jobs_again(
            read_net(found[0][1]), {JobName(r.job_name): r.state for r in runs}, JobName(job) if job else None
        )
    except ValueError as e:
        raise OperatorFault(str(e), hint=f"See `futago job show {session_id}`.", code="jobs.refused") from e
    await conn.execute(
        "INSERT INTO job_run (session_id, job_name, host_name, attempt)"
        " SELECT session_id, job_name, host_name, attempt + 1 FROM job_run WHERE run_id = ANY(%s::uuid[])",
        ([r.run_id for r in runs if r.job_name in again],),
    )
    await conn.execute(
        "UPDATE job_session SET state = 'starting', ended_utc = NULL WHERE session_id = %s", (session_id,)
    )
    return sorted(again)


def _no_such_run(session_id: int) -> OperatorFault:
    return OperatorFault(
        f"There is no run {session_id}.", hint="`futago job list` shows them.", code="jobs.no-such-run"
    )


async def ask_operation(
    conn: Connection, session_id: int, operation: Operation, *, job: str = "", asked_by: str
) -> int:
    """Ask the engine to operate on a session (or one of its jobs); return the operation's id. It is decided within
    about 100 ms of the commit.

    Raises:
        OperatorFault: there is no such session.
    """
    inserted = await _fetch(
        conn,
        "INSERT INTO job_operation (session_id, job_name, operation, asked_by)"
        " SELECT session_id, %s, %s, %s FROM job_session WHERE session_id = %s RETURNING operation_id",
        job,
        operation.value,
        asked_by,
        session_id,
    )
    if not inserted:
        raise _no_such_run(session_id)
    return int(inserted[0][0])


async def read_decision(conn: Connection, operation_id: int) -> str | None:
    """Return why the operation was refused, empty if it was done; None while it is not decided."""
    rows = await _fetch(
        conn, "SELECT refusal FROM job_operation WHERE operation_id = %s AND decided_utc IS NOT NULL", operation_id
    )
    return str(rows[0][0]) if rows else None


# --- reading ----------------------------------------------------------------------------------------------------------


_SESSIONS = "SELECT session_id, net_name, digest, state, business_date FROM job_session"


async def read_open(conn: Connection) -> tuple[list[SessionRow], list[RunRow]]:
    """Return every running session with all its runs."""
    rows = await _fetch(conn, _SESSIONS + " WHERE state = 'running' ORDER BY session_id")
    sessions = [_session(row) for row in rows]
    return sessions, await _runs(conn, [s.session_id for s in sessions])


async def read_starting(conn: Connection) -> tuple[list[SessionRow], list[RunRow]]:
    """Return the oldest LOAD_MAX sessions that wait to be begun, with their runs."""
    rows = await _fetch(conn, _SESSIONS + " WHERE state = 'starting' ORDER BY session_id LIMIT %s", LOAD_MAX)
    sessions = [_session(row) for row in rows]
    return sessions, await _runs(conn, [s.session_id for s in sessions])


async def read_running(conn: Connection) -> list[int]:
    """Return the ids of the running sessions."""
    return [int(row[0]) for row in await _fetch(conn, "SELECT session_id FROM job_session WHERE state = 'running'")]


async def read_specs(conn: Connection, digests: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the definitions that have these digests."""
    rows = await _fetch(conn, "SELECT digest, spec FROM job_definition WHERE digest = ANY(%s)", list(digests))
    return {str(digest): spec for digest, spec in rows}


async def read_run_states(conn: Connection, run_ids: Sequence[str]) -> dict[str, JobState]:
    """Return the states of these runs, as far as they have rows."""
    rows = await _fetch(conn, "SELECT run_id::text, state FROM job_run WHERE run_id = ANY(%s::uuid[])", list(run_ids))
    return {str(run_id): JobState(state) for run_id, state in rows}


async def read_schedules(conn: Connection) -> list[ScheduleRow]:
    """Return all schedules."""
    rows = await _fetch(
        conn,
        "SELECT s.schedule_name, s.spec, greatest(s.changed_utc, t.counted_utc) FROM schedule s"
        " LEFT JOIN schedule_state t USING (schedule_name) ORDER BY s.schedule_name",
    )
    return [ScheduleRow(str(name), spec, counted) for name, spec, counted in rows]


async def read_calendars(conn: Connection) -> dict[str, Mapping[str, Any]]:
    """Return all calendars: the object of each name."""
    rows = await _fetch(conn, "SELECT calendar_name, spec FROM calendar")
    return {str(name): spec for name, spec in rows}


def _session(row: tuple[Any, ...]) -> SessionRow:
    return SessionRow(int(row[0]), str(row[1]), str(row[2]), SessionState(row[3]), row[4])


async def _runs(conn: Connection, session_ids: Sequence[int]) -> list[RunRow]:
    if not session_ids:
        return []
    rows = await _fetch(
        conn,
        "SELECT DISTINCT ON (session_id, job_name)"  # the latest attempt of each job
        " run_id::text, session_id, job_name, host_name, state, is_held, is_stopping FROM job_run"
        " WHERE session_id = ANY(%s) ORDER BY session_id, job_name, attempt DESC",
        list(session_ids),
    )
    return [
        RunRow(str(r), int(s), str(job), str(host), JobState(state), held, stopping)
        for r, s, job, host, state, held, stopping in rows
    ]


async def read_operations(conn: Connection) -> list[OperationRow]:
    """Return the oldest LOAD_MAX operations that are not decided."""
    rows = await _fetch(
        conn,
        "SELECT operation_id, session_id, job_name, operation, asked_by, state FROM job_operation"
        " JOIN job_session USING (session_id) WHERE decided_utc IS NULL ORDER BY operation_id LIMIT %s",
        LOAD_MAX,
    )
    return [
        OperationRow(int(i), int(s), str(job), Operation(operation), str(by), SessionState(state))
        for i, s, job, operation, by, state in rows
    ]


async def _fetch(conn: Connection, query: str, *values: object) -> list[tuple[Any, ...]]:
    cursor = await conn.execute(query.encode(), values)
    return await cursor.fetchall()


# --- writing ----------------------------------------------------------------------------------------------------------

_MOVE_RUNS = b"""
UPDATE job_run r SET state = v.state, ordered_utc = coalesce(v.ordered_utc, r.ordered_utc),
    started_utc = coalesce(v.started_utc, r.started_utc), ended_utc = coalesce(v.ended_utc, r.ended_utc),
    exit_code = coalesce(v.exit_code, r.exit_code), output = coalesce(v.output, r.output),
    output_bytes = coalesce(v.output_bytes, r.output_bytes), detail = coalesce(v.detail, r.detail),
    is_held = coalesce(v.is_held, r.is_held), is_stopping = coalesce(v.is_stopping, r.is_stopping),
    epoch = CASE WHEN v.ordered_utc IS NULL THEN r.epoch ELSE %s END
FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[], %s::int[],
            %s::text[], %s::bigint[], %s::text[], %s::boolean[], %s::boolean[])
    AS v (run_id, before, state, ordered_utc, started_utc, ended_utc, exit_code, output, output_bytes, detail,
          is_held, is_stopping)
WHERE r.run_id = v.run_id AND r.state = v.before
"""

_MOVE_SESSIONS = b"""
UPDATE job_session s SET state = v.state, started_utc = coalesce(v.started_utc, s.started_utc),
    ended_utc = coalesce(v.ended_utc, s.ended_utc), epoch = %s
FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[])
    AS v (session_id, before, state, started_utc, ended_utc)
WHERE s.session_id = v.session_id AND s.state = v.before
"""

_DECIDE = b"""
UPDATE job_operation o SET decided_utc = now(), refusal = v.refusal
FROM unnest(%s::bigint[], %s::text[]) AS v (operation_id, refusal)
WHERE o.operation_id = v.operation_id AND o.decided_utc IS NULL
"""

_ADD_EVENTS = b"""
INSERT INTO event (occurred_utc, priority, source, host_name, message, detail, epoch, notify)
VALUES (%s, %s, 'job', %s, %s, %s, %s, %s)
"""


async def write_moves(conn: Connection, moves: Moves, *, epoch: int) -> None:
    """Write all moves, or none.

    Raises:
        Refused: a row is not in the state that a move starts from.
    """
    if moves.runs:
        runs = list(moves.runs.values())
        values = (
            [UUID(m.run_id) for m in runs],
            [m.before.value for m in runs],
            [m.to.value for m in runs],
            [m.ordered_utc for m in runs],
            [m.started_utc for m in runs],
            [m.ended_utc for m in runs],
            [m.exit_code for m in runs],
            [m.output for m in runs],
            [m.output_bytes for m in runs],
            [m.detail for m in runs],
            [m.is_held for m in runs],
            [m.is_stopping for m in runs],
        )
        await _exactly(conn, _MOVE_RUNS, (epoch, *values), len(runs))
    if moves.sessions:
        sessions = list(moves.sessions.values())
        rows = (
            [m.session_id for m in sessions],
            [m.before.value for m in sessions],
            [m.to.value for m in sessions],
            [m.started_utc for m in sessions],
            [m.ended_utc for m in sessions],
        )
        await _exactly(conn, _MOVE_SESSIONS, (epoch, *rows), len(sessions))
    if moves.decided:
        decisions = (list(moves.decided), list(moves.decided.values()))
        await _exactly(conn, _DECIDE, decisions, len(moves.decided))
    await add_events(conn, moves.events, epoch=epoch)


async def _exactly(conn: Connection, query: bytes, values: Sequence[object], count: int) -> None:
    cursor = await conn.execute(query, values)
    if cursor.rowcount != count:
        raise Refused(f"{count - cursor.rowcount} of {count} rows have moved meanwhile")


async def add_events(conn: Connection, events: Sequence[EventRow], *, epoch: int) -> None:
    """Insert events."""
    if events:
        rows = [
            (e.occurred_utc, e.priority, e.host_name, e.message, Jsonb(dict(e.detail)), epoch, list(e.notify) or None)
            for e in events
        ]
        async with conn.cursor() as cursor:
            await cursor.executemany(_ADD_EVENTS, rows)


async def count_schedule(conn: Connection, name: str, until: datetime) -> None:
    """Note that the schedule's instants up to `until` have been dealt with."""
    await conn.execute(
        "INSERT INTO schedule_state AS t (schedule_name, counted_utc) VALUES (%s, %s)"
        " ON CONFLICT (schedule_name) DO UPDATE SET counted_utc = greatest(t.counted_utc, excluded.counted_utc)",
        (name, until),
    )


async def note_agents(conn: Connection, agents: Mapping[str, str], seen_utc: datetime) -> None:
    """Note that these hosts have an agent that is connected now; `agents` maps host names to the addresses they came
    from.

    A host that nobody declared becomes registered: it holds a certificate of the pair, so an administrator enrolled it.
    """
    came_from = list(agents.values())
    addresses = [a if came_from.count(a) == 1 else None for a in came_from]  # behind one translated address: nobody's
    await conn.execute(  # a message may have come before the agent did: a host that nobody knows gives its address up
        "UPDATE host SET address = NULL"
        " WHERE NOT is_registered AND NOT has_agent AND host_name <> ALL(%s) AND address = ANY(%s::inet[])",
        (list(agents), [a for a in addresses if a is not None]),
    )
    await conn.execute(
        "INSERT INTO host AS h (host_name, address, is_registered, has_agent, agent_seen_utc)"
        " SELECT v.name, CASE WHEN NOT EXISTS (SELECT FROM host o WHERE o.address = v.address) THEN v.address END,"
        " true, true, %s FROM unnest(%s::text[], %s::inet[]) AS v (name, address) ORDER BY v.name"
        " ON CONFLICT (host_name) DO UPDATE"
        " SET has_agent = true, agent_seen_utc = excluded.agent_seen_utc, is_registered = true,"
        " address = coalesce(h.address, excluded.address)",
        (seen_utc, list(agents), addresses),
    )
