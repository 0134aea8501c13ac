"""Making sessions: a new one of a net, an ended one again from a point; and what people ask of a running one.

Everything runs in the caller's transaction. A new session keeps the definition it starts with: references and scopes
are written out (resolve.py), and the whole is one row per content, however many sessions share it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from psycopg.types.json import Jsonb
from pydantic import ValidationError

from futago.jobs import store
from futago.jobs.definitions import JobNet
from futago.jobs.model import JobName, JobState, Operation, SessionId, SessionState, make_tree
from futago.jobs.parameters import Parameter, values_of
from futago.jobs.plan import Net, Unit, calendars_of
from futago.jobs.rerun import Again, jobs_again
from futago.jobs.resolve import needed, resolve
from futago.jobs.schedule_definitions import CalendarObject
from futago.jobs.store import Connection, fetch, read_runs
from futago.runtime.clock import now_utc
from futago.runtime.faults import OperatorFault

PLANS_KEPT_MAX = 100  # of this process; a plan of ten thousand jobs is about 30 MB
HISTORY_RUNS = 30  # durations that a job is compared with
_plans: dict[str, Net] = {}


@dataclass(frozen=True, slots=True)
class Opened:
    """A session of a net. `is_new` False: its trigger key had started it before."""

    session_id: int
    is_new: bool


async def open_session(
    conn: Connection,
    net_name: str,
    *,
    trigger: str,
    trigger_key: str | None = None,
    business_date: date | None = None,
    parameters: Mapping[str, str] | None = None,
) -> Opened:
    """Make a session of a net with a waiting run for each unit; the engine begins it within about 100 ms.

    Args:
        conn: a transaction; the session exists when it is committed.
        net_name: which net; its present definition is what this session keeps.
        trigger: what started it, for people: ``manual``, ``schedule nightly-at-one``.
        trigger_key: the same key never starts a second session.
        business_date: which date's work it is, for the jobs and for people.
        parameters: values of the net's parameters; those that are missing have their defaults.

    Raises:
        OperatorFault: there is no such net, a parameter is wrong, or a reference leads nowhere.
    """
    known = await _by_key(conn, trigger_key)
    if known is not None:
        return Opened(known, is_new=False)
    spec = await _resolved(conn, net_name)
    variables = _variables(net_name, spec, parameters or {})
    digest, net = await _kept(conn, spec)
    day = business_date or now_utc().astimezone(ZoneInfo(net.timezone)).date()
    inserted = await fetch(
        conn,
        "INSERT INTO job_session (net_name, digest, trigger, trigger_key, business_date, day, variables, shut, typical_s,"
        " owner_role) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (trigger_key) DO NOTHING RETURNING session_id",
        net_name,
        digest,
        trigger,
        trigger_key,
        business_date,
        day,
        Jsonb(variables),
        await _shut(conn, net, day),
        Jsonb(await _typical(conn, net)),
        net.owner,
    )
    if not inserted:  # another transaction with this key was faster
        known = await _by_key(conn, trigger_key)
        assert known is not None
        return Opened(known, is_new=False)
    await _add_runs(conn, int(inserted[0][0]), net)
    return Opened(int(inserted[0][0]), is_new=True)


def key_of_start(way: str, *names: str, key: str) -> str:
    """Return the trigger key of a start that somebody outside asked for under a key of his own.

    A name may hold colons, and what stands for one here may not be in a name: so no key, whoever chooses it, is that of
    other names.
    """
    return ":".join([way, *(name.replace(":", "%3A") for name in names), key])


async def start_session(conn: Connection, net_name: str, *, trigger: str, trigger_key: str | None = None) -> int:
    """Return the id of the session that `open_session` makes (or has made under this key)."""
    return (await open_session(conn, net_name, trigger=trigger, trigger_key=trigger_key)).session_id


async def _by_key(conn: Connection, trigger_key: str | None) -> int | None:
    if trigger_key is None:
        return None
    found = await fetch(conn, "SELECT session_id FROM job_session WHERE trigger_key = %s", trigger_key)
    return int(found[0][0]) if found else None


async def _resolved(conn: Connection, net_name: str) -> dict[str, Any]:
    """Return the net's definition with everything that it refers to, and its owner."""
    nets: dict[str, Mapping[str, Any]] = {}
    missing = {net_name}
    while missing:
        rows = await fetch(conn, "SELECT net_name, spec FROM job_net WHERE net_name = ANY(%s)", sorted(missing))
        nets |= {str(name): spec for name, spec in rows}
        if net_name not in nets:
            raise OperatorFault(
                f"There is no job net `{net_name}`.", hint="Define it with `futago apply`.", code="jobs.no-such-net"
            )
        wanted = {name for spec in nets.values() for name in needed(spec)[0]}
        missing = wanted - nets.keys() if rows else set()
    scopes = await _hosts_of(conn, sorted({s for spec in nets.values() for s in needed(spec)[1]}))
    try:
        spec = resolve(nets[net_name], nets, scopes)
    except ValueError as e:
        raise _refused(str(e)) from e
    return await _owned(conn, spec)


async def _owned(conn: Connection, spec: dict[str, Any]) -> dict[str, Any]:
    """Return the definition with the owner of its unit, if it names none itself."""
    if spec.get("owner") or not spec.get("unit"):
        return spec
    rows = await fetch(conn, "SELECT spec->>'owner' FROM job_unit WHERE unit_name = %s", spec["unit"])
    return {**spec, "owner": rows[0][0]} if rows and rows[0][0] else spec


async def _hosts_of(conn: Connection, scopes: list[str]) -> dict[str, list[str]]:
    """Return the hosts of each scope; first those whose agent was seen last, of these the one with the least to do."""
    if not scopes:
        return {}
    rows = await fetch(
        conn,
        "WITH member AS (SELECT scope_name, host_name FROM scope_host WHERE scope_name = ANY(%s)"
        " UNION SELECT '*', host_name FROM host WHERE is_registered AND has_agent AND '*' = ANY(%s))"
        " SELECT m.scope_name, h.host_name FROM member m JOIN host h USING (host_name) LEFT JOIN LATERAL"
        " (SELECT count(*) AS n FROM job_run r WHERE r.host_name = h.host_name AND r.state IN ('ordered', 'running')) b"
        " ON true ORDER BY h.has_agent DESC, h.agent_seen_utc < now() - interval '1 minute' NULLS LAST, b.n, h.host_name",
        scopes,
        scopes,
    )
    hosts: dict[str, list[str]] = {scope: [] for scope in scopes}
    for scope, host in rows:
        hosts[str(scope)].append(str(host))
    return hosts


def _variables(net_name: str, spec: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    try:
        parameters = {name: Parameter.model_validate(p) for name, p in spec.get("parameters", {}).items()}
        return values_of(parameters, given)
    except ValidationError as e:
        raise _refused(f"The definition of job net `{net_name}` cannot be read: {e}") from e
    except ValueError as e:
        raise OperatorFault(
            f"Job net `{net_name}` cannot be started so: {e}.",
            hint="`futago job nets` shows the parameters.",
            code="jobs.parameter",
        ) from e


async def _kept(conn: Connection, spec: dict[str, Any]) -> tuple[str, Net]:
    """Keep the definition; return its digest and the plan that it writes."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    for _ in range(3):  # the shared lock keeps retention from removing it; what it has removed is written again
        await conn.execute("INSERT INTO job_definition VALUES (%s, %s) ON CONFLICT DO NOTHING", (digest, Jsonb(spec)))
        if await fetch(conn, "SELECT 1 FROM job_definition WHERE digest = %s FOR KEY SHARE", digest):
            break
    return digest, await asyncio.to_thread(plan_of, digest, spec)  # ten thousand jobs take a second


def plan_of(digest: str, spec: Mapping[str, Any]) -> Net:
    """Return the plan that a kept definition writes.

    Raises:
        OperatorFault: references taken together make no sense: a circle, a name that is not there; or another version
            of the program wrote another shape.
    """
    if digest not in _plans:
        if len(_plans) >= PLANS_KEPT_MAX:
            _plans.pop(next(iter(_plans)))
        _plans[digest] = _checked(spec)
    return _plans[digest]


def _checked(spec: Mapping[str, Any]) -> Net:
    try:
        written = JobNet.model_validate(dict(spec))
    except ValidationError as e:
        raise _refused(f"The definition of job net `{spec.get('name')}` cannot be read: {e}") from e
    wrong = next(written.complaints(), None)
    if wrong:
        raise _refused(f"Job net `{spec['name']}`, with everything that it refers to: {wrong[1]}.")
    return written.net()


async def _shut(conn: Connection, net: Net, day: date) -> list[str]:
    """Return which calendars of the net are closed on the day."""
    names = {name for unit in net.units.values() for name in calendars_of(unit)}
    if not names:
        return []
    specs = await store.read_calendars(conn)
    shut = []
    for name in sorted(names):
        if name not in specs:
            raise _refused(f"There is no calendar `{name}`.")
        try:
            calendar = CalendarObject.model_validate(dict(specs[name])).calendar()
        except ValidationError as e:
            raise _refused(f"Calendar `{name}` cannot be read: {e}") from e
        if not calendar.is_open(day):
            shut.append(name)
    return shut


async def _typical(conn: Connection, net: Net) -> dict[str, list[float]]:
    """Return mean and deviation, in seconds, of the newest good runs of the jobs that are compared with their past."""
    names = [n for n, unit in net.units.items() if unit.end_limit and unit.end_limit.deviations is not None]
    if not names:
        return {}
    rows = await fetch(
        conn,
        "SELECT v.job_name, avg(t.s), stddev_samp(t.s) FROM unnest(%s::text[]) AS v (job_name), LATERAL"
        " (SELECT extract(epoch FROM r.ended_utc - r.ordered_utc) AS s FROM job_session x JOIN job_run r USING (session_id)"
        "  WHERE x.net_name = %s AND r.job_name = v.job_name AND r.state = 'normal' AND r.ordered_utc IS NOT NULL"
        "  ORDER BY x.session_id DESC LIMIT %s) t GROUP BY 1 HAVING count(*) >= 5",
        names,
        net.name,
        HISTORY_RUNS,
    )
    return {str(name): [float(mean), float(deviation)] for name, mean, deviation in rows}


async def _add_runs(conn: Connection, session_id: int, net: Net) -> None:
    units = list(net.units.values())
    await conn.execute(
        "INSERT INTO job_run (session_id, job_name, host_name, kind, is_held, owner_role)"
        " SELECT %s, * FROM unnest(%s::text[], %s::text[], %s::text[], %s::boolean[], %s::text[])",
        (
            session_id,
            [u.name for u in units],
            [u.host for u in units],
            [kind_of(u) for u in units],
            [u.is_held for u in units],
            [u.owner for u in units],
        ),
    )


def kind_of(unit: Unit) -> str:
    """Return the word for what a unit does."""
    return type(unit.work).__name__.lower()


# --- again ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BegunAgain:
    """The jobs of a session that run again. `is_new` False: its key had begun it before, and these ran then."""

    jobs: list[str]
    is_new: bool


async def rerun_once(conn: Connection, session_id: int, job: str | None, *, key: str) -> BegunAgain:
    """As `run_again`; the same key never begins anything a second time.

    Raises:
        OperatorFault: as there; or the key was used for another point, or another session.
    """
    await conn.execute("SELECT FROM job_session WHERE session_id = %s FOR UPDATE", (session_id,))  # one after the other
    known = await fetch(conn, "SELECT session_id, job_name, jobs FROM job_rerun WHERE rerun_key = %s", key)
    if known:
        before, place, jobs = known[0]
        if (before, place) != (session_id, job or ""):
            raise OperatorFault(
                "This key was used to run something else again.", hint="Draw a new key.", code="jobs.key-used"
            )
        return BegunAgain(list(jobs), is_new=False)
    again = await run_again(conn, session_id, job)
    await conn.execute(
        "INSERT INTO job_rerun (rerun_key, session_id, job_name, jobs) VALUES (%s, %s, %s, %s)",
        (key, session_id, job or "", again),
    )
    return BegunAgain(again, is_new=True)


async def run_again(conn: Connection, session_id: int, job: str | None) -> list[str]:
    """Begin an ended session again, from a job or from all that failed; return the jobs that run again. Each gets
    a new attempt; the engine begins the session as it begins a new one.

    Raises:
        OperatorFault: there is no such session, it has not ended, or the point has no meaning.
    """
    found = await fetch(
        conn,
        "SELECT s.state, d.spec, s.digest, s.variables, s.day, s.started_utc FROM job_session s"
        " JOIN job_definition d USING (digest) WHERE session_id = %s FOR UPDATE OF s",
        session_id,
    )
    if not found:
        raise _no_such_run(session_id)
    state, spec, digest, variables, day, started = found[0]
    if state in ("starting", "running"):
        raise OperatorFault(
            f"Run {session_id} has not ended.",
            hint=f"Stop it first: `futago job stop {session_id}`.",
            code="jobs.refused",
        )
    runs = await read_runs(conn, [session_id])
    plan = await asyncio.to_thread(plan_of, digest, spec)
    if len(runs) < len(plan.units):  # retention has begun with it
        raise OperatorFault(
            f"Run {session_id} is too old: its jobs are being removed.", hint="Start the net anew.", code="jobs.refused"
        )
    tree = make_tree(
        SessionId(session_id),
        plan,
        SessionState(state),
        {r.job_name: r.standing for r in runs},
        variables=variables,
        day=day,
        started_utc=started,
    )
    try:
        again = jobs_again(tree, JobName(job) if job else None, now_utc())
    except ValueError as e:
        raise OperatorFault(str(e), hint=f"See `futago job show {session_id}`.", code="jobs.refused") from e
    await _add_attempts(conn, session_id, {r.job_name: r.run_id for r in runs}, again, now_utc())
    return sorted(again.jobs)


async def _add_attempts(
    conn: Connection, session_id: int, runs: Mapping[JobName, str], again: Again, now: datetime
) -> None:
    for names, state, begun in ((again.jobs, JobState.WAITING, None), (again.around, JobState.RUNNING, now)):
        await conn.execute(
            "INSERT INTO job_run (session_id, job_name, host_name, kind, owner_role, attempt, state, ordered_utc)"
            " SELECT session_id, job_name, host_name, kind, owner_role, attempt + 1, %s, %s FROM job_run"
            " WHERE run_id = ANY(%s::uuid[])",
            (state.value, begun, [runs[name] for name in names]),
        )
    await conn.execute(
        "UPDATE job_session SET state = 'starting', ended_utc = NULL, is_suspended = false WHERE session_id = %s",
        (session_id,),
    )


# --- operations -------------------------------------------------------------------------------------------------------


async def ask_operation(
    conn: Connection,
    session_id: int,
    operation: Operation,
    *,
    job: str = "",
    asked_by: str,
    status: str = "",
    value: int | None = None,
    note: str = "",
) -> int:
    """Ask the engine to operate on a session (or one of its jobs); return the operation's id. It is decided within
    about 100 ms of the commit.

    Raises:
        OperatorFault: there is no such session.
    """
    inserted = await fetch(
        conn,
        "INSERT INTO job_operation (session_id, job_name, operation, asked_by, status, value, note)"
        " SELECT session_id, %s, %s, %s, %s, %s, %s FROM job_session WHERE session_id = %s RETURNING operation_id",
        job,
        operation.value,
        asked_by,
        status,
        value,
        note,
        session_id,
    )
    if not inserted:
        raise _no_such_run(session_id)
    return int(inserted[0][0])


async def read_decision(conn: Connection, operation_id: int) -> str | None:
    """Return why the operation was refused, empty if it was done; None while it is not decided."""
    rows = await fetch(
        conn, "SELECT refusal FROM job_operation WHERE operation_id = %s AND decided_utc IS NOT NULL", operation_id
    )
    return str(rows[0][0]) if rows else None


def _no_such_run(session_id: int) -> OperatorFault:
    return OperatorFault(
        f"There is no run {session_id}.", hint="`futago job list` shows them.", code="jobs.no-such-run"
    )


def _refused(why: str) -> OperatorFault:
    return OperatorFault(why, hint="Correct the definition and apply it again.", code="jobs.refused")
