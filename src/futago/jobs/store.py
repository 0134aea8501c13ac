"""Job control's rows: every SQL statement of this column. Functions take the connection of a transaction and never
end it.

Moves are optimistic: each says from which state it goes, and `write_moves` refuses the whole transaction when a row
stands elsewhere by now. Whoever gets `Refused` or `Unknown` reads the rows again; the rows are the truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from futago.jobs.model import JobName, JobState, Operation, SessionState, Standing
from futago.runtime.faults import Refused

Connection = AsyncConnection[tuple[Any, ...]]
LOAD_MAX = 200  # new sessions read in one round
RUNS_READ_MAX = 20_000  # rows of one statement while everything is read


@dataclass(frozen=True, slots=True)
class SessionRow:
    """An open session."""

    session_id: int
    net_name: str
    digest: str
    state: SessionState
    business_date: date | None
    day: date
    started_utc: datetime | None = None
    is_suspended: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    shut: frozenset[str] = frozenset()
    typical_s: Mapping[JobName, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunRow:
    """The newest run of a unit of an open session."""

    run_id: str
    session_id: int
    job_name: JobName
    host_name: str
    attempt: int
    standing: Standing


@dataclass(frozen=True, slots=True)
class OperationRow:
    """Something that a person asked for and that is not decided. `job_name` empty: the whole session. `status` (empty:
    none) and `value`: of `end`.
    """

    operation_id: int
    session_id: int
    job_name: str
    operation: Operation
    asked_by: str
    session_state: SessionState
    status: str = ""
    value: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """A schedule. `counted_utc`: its instants up to then have been dealt with."""

    name: str
    spec: Mapping[str, Any]
    counted_utc: datetime


@dataclass(slots=True)
class RunMove:
    """A run goes from `before` to `to`. Fields that are None stay as they are in the row; `is_reset`: exit code, end and
    detail are not what they were before.
    """

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
    ready_utc: datetime | None = None
    is_held: bool | None = None
    is_stopping: bool | None = None
    is_suspended: bool | None = None
    is_late: bool | None = None
    is_stuck: bool | None = None
    is_reset: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """A new run of the job that `after` was a run of."""

    run_id: str
    after: str
    tries: int
    ready_utc: datetime


@dataclass(slots=True)
class SessionMove:
    """A session goes from `before` to `to`. `variables`: those that are set."""

    session_id: int
    before: SessionState
    to: SessionState
    started_utc: datetime | None = None
    ended_utc: datetime | None = None
    is_suspended: bool | None = None
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EventRow:
    """Something that people should know. `notify`: Notification objects, empty: none. `owner`: the role that may see it;
    empty: everybody.
    """

    occurred_utc: datetime
    priority: str
    host_name: str | None
    message: str
    detail: Mapping[str, Any]
    notify: tuple[str, ...] = ()
    owner: str = ""


@dataclass(slots=True)
class Moves:
    """What one transaction writes."""

    attempts: list[Attempt] = field(default_factory=list)
    runs: dict[str, RunMove] = field(default_factory=dict)
    sessions: dict[int, SessionMove] = field(default_factory=dict)
    events: list[EventRow] = field(default_factory=list)
    decided: dict[int, str] = field(default_factory=dict)  # operations, and why each was refused; empty: done

    def __bool__(self) -> bool:
        return bool(self.runs or self.sessions or self.events or self.decided)


# --- reading ----------------------------------------------------------------------------------------------------------


_SESSIONS = (
    "SELECT session_id, net_name, digest, state, business_date, day, started_utc, is_suspended, variables, shut,"
    " typical_s FROM job_session"
)


async def read_open(conn: Connection) -> tuple[list[SessionRow], list[RunRow]]:
    """Return every running session with all its runs."""
    rows = await fetch(conn, _SESSIONS + " WHERE state = 'running' ORDER BY session_id")
    sessions = [_session(row) for row in rows]
    return sessions, await read_runs(conn, [s.session_id for s in sessions])


async def read_starting(conn: Connection) -> tuple[list[SessionRow], list[RunRow]]:
    """Return the oldest LOAD_MAX sessions that wait to be begun, with their runs."""
    rows = await fetch(conn, _SESSIONS + " WHERE state = 'starting' ORDER BY session_id LIMIT %s", LOAD_MAX)
    sessions = [_session(row) for row in rows]
    return sessions, await read_runs(conn, [s.session_id for s in sessions])


async def read_running(conn: Connection) -> list[int]:
    """Return the ids of the running sessions."""
    return [int(row[0]) for row in await fetch(conn, "SELECT session_id FROM job_session WHERE state = 'running'")]


async def read_others(
    conn: Connection, asked: Sequence[tuple[int, str, float | None]]
) -> list[tuple[int, str, float | None, SessionState | None]]:
    """Return how the newest session of another net stands, for each (session, net, within seconds) that asks; None:
    there is none of the same day, or (`within`) of that time before the session that asks.
    """
    rows = await fetch(
        conn,
        "SELECT v.session_id, v.net, v.within_s, o.state FROM unnest(%s::bigint[], %s::text[], %s::float8[])"
        " AS v (session_id, net, within_s) JOIN job_session s USING (session_id) LEFT JOIN LATERAL"
        " (SELECT state FROM job_session x WHERE x.net_name = v.net AND x.session_id <> s.session_id"
        "  AND CASE WHEN v.within_s IS NULL THEN x.day = s.day"
        "      ELSE x.created_utc >= s.created_utc - make_interval(secs => v.within_s) END"
        "  ORDER BY x.session_id DESC LIMIT 1) o ON true",
        [a[0] for a in asked],
        [a[1] for a in asked],
        [a[2] for a in asked],
    )
    return [(int(s), str(net), within, SessionState(state) if state else None) for s, net, within, state in rows]


async def read_queues(conn: Connection) -> dict[str, Mapping[str, Any]]:
    """Return all job queues: the object of each name."""
    return {str(name): spec for name, spec in await fetch(conn, "SELECT queue_name, spec FROM job_queue")}


async def read_specs(conn: Connection, digests: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the definitions that have these digests."""
    rows = await fetch(conn, "SELECT digest, spec FROM job_definition WHERE digest = ANY(%s)", list(digests))
    return {str(digest): spec for digest, spec in rows}


async def read_run_states(conn: Connection, run_ids: Sequence[str]) -> dict[str, JobState]:
    """Return the states of these runs, as far as they have rows."""
    rows = await fetch(conn, "SELECT run_id::text, state FROM job_run WHERE run_id = ANY(%s::uuid[])", list(run_ids))
    return {str(run_id): JobState(state) for run_id, state in rows}


async def read_schedules(conn: Connection) -> list[ScheduleRow]:
    """Return all schedules."""
    rows = await fetch(
        conn,
        "SELECT s.schedule_name, s.spec, greatest(s.changed_utc, t.counted_utc) FROM schedule s"
        " LEFT JOIN schedule_state t USING (schedule_name) ORDER BY s.schedule_name",
    )
    return [ScheduleRow(str(name), spec, counted) for name, spec, counted in rows]


async def net_owner(conn: Connection, net_name: str) -> str | None:
    """Return the owner role of a net as it is defined now, its own or its unit's (empty: everybody's); None: no such net."""
    rows = await fetch(
        conn,
        "SELECT coalesce(nullif(n.spec->>'owner', ''), u.spec->>'owner', '') FROM job_net n"
        " LEFT JOIN job_unit u ON u.unit_name = n.spec->>'unit' WHERE n.net_name = %s",
        net_name,
    )
    return str(rows[0][0]) if rows else None


async def read_calendars(conn: Connection) -> dict[str, Mapping[str, Any]]:
    """Return all calendars: the object of each name."""
    rows = await fetch(conn, "SELECT calendar_name, spec FROM calendar")
    return {str(name): spec for name, spec in rows}


def _session(row: tuple[Any, ...]) -> SessionRow:
    session_id, net, digest, state, business_date, day, started, is_suspended, variables, shut, typical = row
    return SessionRow(
        session_id=int(session_id),
        net_name=str(net),
        digest=str(digest),
        state=SessionState(state),
        business_date=business_date,
        day=day,
        started_utc=started,
        is_suspended=bool(is_suspended),
        variables=variables,
        shut=frozenset(shut),
        typical_s={JobName(name): (float(mean), float(deviation)) for name, (mean, deviation) in typical.items()},
    )


async def read_runs(conn: Connection, session_ids: Sequence[int]) -> list[RunRow]:
    """Return the newest run of each unit of these sessions."""
    if not session_ids:
        return []
    rows = await fetch(
        conn,
        "SELECT DISTINCT ON (session_id, job_name)"  # the latest attempt of each job
        " run_id::text, session_id, job_name, host_name, attempt, state, exit_code, tries, ready_utc, ordered_utc,"
        " is_held, is_stopping, is_suspended, is_late, is_stuck FROM job_run"
        " WHERE session_id = ANY(%s) ORDER BY session_id, job_name, attempt DESC",
        list(session_ids),
    )
    return [
        RunRow(str(r), int(s), JobName(job), str(host), int(attempt), Standing(JobState(state), *standing))
        for r, s, job, host, attempt, state, *standing in rows
    ]


async def read_operations(conn: Connection) -> list[OperationRow]:
    """Return the oldest LOAD_MAX operations that are not decided."""
    rows = await fetch(
        conn,
        "SELECT operation_id, session_id, job_name, operation, asked_by, state, status, value, note FROM job_operation"
        " JOIN job_session USING (session_id) WHERE decided_utc IS NULL ORDER BY operation_id LIMIT %s",
        LOAD_MAX,
    )
    return [
        OperationRow(
            int(i), int(s), str(job), Operation(operation), str(by), SessionState(state), str(status), value, str(note)
        )
        for i, s, job, operation, by, state, status, value, note in rows
    ]


async def fetch(conn: Connection, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    cursor = await conn.execute(query.encode(), values)
    return await cursor.fetchall()


# --- writing ----------------------------------------------------------------------------------------------------------

_RUN_FIELDS = (
    "ordered_utc", "started_utc", "ended_utc", "exit_code", "output", "output_bytes", "detail", "ready_utc",
    "is_held", "is_stopping", "is_suspended", "is_late", "is_stuck", "is_reset",
)  # fmt: skip

_ADD_ATTEMPTS = b"""
INSERT INTO job_run (run_id, session_id, job_name, host_name, kind, owner_role, attempt, tries, ready_utc, state)
SELECT v.run_id, r.session_id, r.job_name, r.host_name, r.kind, r.owner_role, r.attempt + 1, v.tries, v.ready_utc, 'ready'
FROM unnest(%s::uuid[], %s::uuid[], %s::int[], %s::timestamptz[]) AS v (run_id, after, tries, ready_utc)
JOIN job_run r ON r.run_id = v.after
"""

_MOVE_RUNS = b"""
UPDATE job_run r SET state = v.state, ordered_utc = coalesce(v.ordered_utc, r.ordered_utc),
    started_utc = coalesce(v.started_utc, r.started_utc), output = coalesce(v.output, r.output),
    output_bytes = coalesce(v.output_bytes, r.output_bytes), ready_utc = coalesce(v.ready_utc, r.ready_utc),
    exit_code = CASE WHEN v.is_reset THEN v.exit_code ELSE coalesce(v.exit_code, r.exit_code) END,
    ended_utc = CASE WHEN v.is_reset THEN v.ended_utc ELSE coalesce(v.ended_utc, r.ended_utc) END,
    detail = CASE WHEN v.is_reset THEN v.detail ELSE coalesce(v.detail, r.detail) END,
    is_held = coalesce(v.is_held, r.is_held), is_stopping = coalesce(v.is_stopping, r.is_stopping),
    is_suspended = coalesce(v.is_suspended, r.is_suspended), is_late = coalesce(v.is_late, r.is_late),
    is_stuck = coalesce(v.is_stuck, r.is_stuck),
    epoch = CASE WHEN v.ordered_utc IS NULL THEN r.epoch ELSE %s END
FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[], %s::int[],
            %s::text[], %s::bigint[], %s::text[], %s::timestamptz[], %s::boolean[], %s::boolean[], %s::boolean[],
            %s::boolean[], %s::boolean[], %s::boolean[])
    AS v (run_id, before, state, ordered_utc, started_utc, ended_utc, exit_code, output, output_bytes, detail, ready_utc,
          is_held, is_stopping, is_suspended, is_late, is_stuck, is_reset)
WHERE r.run_id = v.run_id AND r.state = v.before
"""

_MOVE_SESSIONS = b"""
UPDATE job_session s SET state = v.state, started_utc = coalesce(v.started_utc, s.started_utc),
    ended_utc = coalesce(v.ended_utc, s.ended_utc), is_suspended = coalesce(v.is_suspended, s.is_suspended),
    variables = s.variables || v.variables, epoch = %s
FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::boolean[], %s::jsonb[])
    AS v (session_id, before, state, started_utc, ended_utc, is_suspended, variables)
WHERE s.session_id = v.session_id AND s.state = v.before
"""

_DECIDE = b"""
UPDATE job_operation o SET decided_utc = now(), refusal = v.refusal
FROM unnest(%s::bigint[], %s::text[]) AS v (operation_id, refusal)
WHERE o.operation_id = v.operation_id AND o.decided_utc IS NULL
"""

_ADD_EVENTS = b"""
INSERT INTO event (occurred_utc, priority, source, host_name, message, detail, owner_role, epoch, notify)
VALUES (%s, %s, 'job', %s, %s, %s, %s, %s, %s)
"""


async def write_moves(conn: Connection, moves: Moves, *, epoch: int) -> None:
    """Write all moves, or none.

    Raises:
        Refused: a row is not in the state that a move starts from.
    """
    if moves.attempts:
        ids, after = [UUID(a.run_id) for a in moves.attempts], [UUID(a.after) for a in moves.attempts]
        values = (ids, after, [a.tries for a in moves.attempts], [a.ready_utc for a in moves.attempts])
        await _exactly(conn, _ADD_ATTEMPTS, values, len(ids))
    if moves.runs:
        runs = list(moves.runs.values())
        await _exactly(conn, _MOVE_RUNS, (epoch, *_run_columns(runs)), len(runs))
    if moves.sessions:
        sessions = list(moves.sessions.values())
        rows = (
            [m.session_id for m in sessions],
            [m.before.value for m in sessions],
            [m.to.value for m in sessions],
            [m.started_utc for m in sessions],
            [m.ended_utc for m in sessions],
            [m.is_suspended for m in sessions],
            [Jsonb(m.variables) for m in sessions],
        )
        await _exactly(conn, _MOVE_SESSIONS, (epoch, *rows), len(sessions))
    if moves.decided:
        decisions = (list(moves.decided), list(moves.decided.values()))
        await _exactly(conn, _DECIDE, decisions, len(moves.decided))
    await add_events(conn, moves.events, epoch=epoch)


def _run_columns(runs: Sequence[RunMove]) -> Iterator[Sequence[object]]:
    """Yield the arrays of _MOVE_RUNS."""
    yield [UUID(m.run_id) for m in runs]
    yield [m.before.value for m in runs]
    yield [m.to.value for m in runs]
    for name in _RUN_FIELDS:
        yield [getattr(m, name) for m in runs]


async def _exactly(conn: Connection, query: bytes, values: Sequence[object], count: int) -> None:
    cursor = await conn.execute(query, values)
    if cursor.rowcount != count:
        raise Refused(f"{count - cursor.rowcount} of {count} rows have moved meanwhile")


async def add_events(conn: Connection, events: Sequence[EventRow], *, epoch: int) -> None:
    """Insert events."""
    if events:
        rows = [
            (
                e.occurred_utc,
                e.priority,
                e.host_name,
                e.message,
                Jsonb(dict(e.detail)),
                e.owner,
                epoch,
                list(e.notify) or None,
            )
            for e in events
        ]
        async with conn.cursor() as cursor:
            await cursor.executemany(_ADD_EVENTS, rows)


async def add_switch_report(
    conn: Connection, *, epoch: int, member: str, taken: datetime, report: Mapping[str, Any]
) -> bool:
    """Keep the report of an epoch; return whether it is the first."""
    added = await fetch(
        conn,
        "INSERT INTO job_switch_report (epoch, member_name, taken_utc, report) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (epoch) DO NOTHING RETURNING epoch",
        epoch,
        member,
        taken,
        Jsonb(dict(report)),
    )
    return bool(added)


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
