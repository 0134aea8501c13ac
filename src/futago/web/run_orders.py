"""What people ask of runs over the web, from the API and from the page alike: asked, audited, and waited for.

Lives here: the question to the engine and its answer, and what a person is offered. Must not live here: what has a
meaning (jobs/operate.py), and how it is shown.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from futago.access import store as rows
from futago.access.model import Principal
from futago.jobs.model import ENDS, JobName, JobState, Operation, SessionState, Standing
from futago.jobs.offers import offered, offered_of_run
from futago.jobs.sessions import (
    BegunAgain,
    ask_operation,
    key_of_start,
    plan_of,
    read_decision,
    rerun_once,
    run_again,
)
from futago.jobs.store import fetch
from futago.runtime.clock import S, now_at
from futago.runtime.faults import OperatorFault
from futago.store.commit import Connection
from futago.web.job_model import AskedOperation, AskedRerun, OperationDone, RunsAgain
from futago.web.owners import audited, check_run
from futago.web.rooms import Rooms

DECIDED_S = 5.0  # the engine looks every 100 ms; during a switch it may be longer
LOOK_S = 0.05


async def operate(rooms: Rooms, who: Principal, session_id: int, asked: AskedOperation) -> OperationDone:
    """Ask for an operation on a running session, and wait for what the engine decides.

    Raises:
        OperatorFault: it was refused, with the reason.
    """

    async def work(conn: Connection) -> int:
        await check_run(conn, who, session_id, asked.job or "")
        operation_id = await ask_operation(
            conn,
            session_id,
            asked.operation,
            job=asked.job or "",
            asked_by=who.account,
            status=asked.status or "",
            value=asked.value,
            note=asked.note,
        )
        detail = {"operation_id": operation_id, **asked.model_dump(mode="json", exclude_defaults=True)}
        await rows.record(conn, who, rows.Deed(f"run.{asked.operation}", str(session_id), detail))
        return operation_id

    store = rooms.serving.require().store
    operation_id = await audited(store, who, f"run.{asked.operation}", work, name="web.operate")
    end_at = now_at() + int(DECIDED_S * S)
    while now_at() < end_at:
        refusal = await store.read(lambda c: read_decision(c, operation_id), name="web.decision")
        if refusal is not None:
            if refusal:
                raise OperatorFault(refusal, hint=f"See `futago job show {session_id}`.", code="jobs.refused")
            return OperationDone(operation_id=operation_id, is_decided=True)
        await asyncio.sleep(LOOK_S)
    return OperationDone(operation_id=operation_id, is_decided=False)


async def rerun(rooms: Rooms, who: Principal, session_id: int, asked: AskedRerun, *, key: str = "") -> RunsAgain:
    """Let an ended run run again; the same `key` of the same account never does so twice.

    Raises:
        OperatorFault: it has no meaning, with the reason.
    """

    async def work(conn: Connection) -> BegunAgain:
        await check_run(conn, who, session_id, asked.job or "")
        if key:
            again = await rerun_once(
                conn, session_id, asked.job, key=key_of_start("rerun", who.account, str(session_id), key=key)
            )
        else:
            again = BegunAgain(await run_again(conn, session_id, asked.job), is_new=True)
        detail = {"job": asked.job, "jobs": len(again.jobs), "repeated": not again.is_new}
        await rows.record(conn, who, rows.Deed("run.rerun", str(session_id), detail))
        return again

    again = await audited(rooms.serving.require().store, who, "run.rerun", work, name="web.rerun")
    return RunsAgain(session_id=session_id, jobs=again.jobs, repeated=not again.is_new)


@dataclass(frozen=True, slots=True)
class Offers:
    """What a person may ask of a run, or of one unit of it. `state`: of which. `can_rerun`: from there."""

    session_id: int
    job: str
    state: str
    operations: list[Operation]
    can_rerun: bool


_UNIT = """
SELECT state, is_held, is_stopping, is_suspended FROM job_run
 WHERE session_id = %s AND job_name = %s ORDER BY attempt DESC LIMIT 1
"""
_SESSION = """
SELECT s.state, s.is_suspended, s.digest, d.spec FROM job_session s JOIN job_definition d USING (digest)
 WHERE s.session_id = %s
"""


async def offers(conn: Connection, who: Principal, session_id: int, job: str) -> Offers | None:
    """Return what is offered of a run (`job` empty) or a unit of it; None: there is none.

    Raises:
        HttpFault: it is another owner's, or there is no such run.
    """
    await check_run(conn, who, session_id, job)
    sessions = await fetch(conn, _SESSION, session_id)
    if not sessions:
        return None
    session_state, is_suspended, digest, spec = sessions[0]
    state = SessionState(session_state)
    is_over = state not in (SessionState.STARTING, SessionState.RUNNING)
    if not job:
        return Offers(session_id, "", state, offered_of_run(state, is_suspended=is_suspended), can_rerun=is_over)
    units = await fetch(conn, _UNIT, session_id, job)
    plan = await asyncio.to_thread(plan_of, digest, spec)
    unit = plan.units.get(JobName(job))
    if not units or unit is None:
        return None
    unit_state, is_held, is_stopping, is_unit_suspended = units[0]
    standing = Standing(JobState(unit_state), is_held=is_held, is_stopping=is_stopping, is_suspended=is_unit_suspended)
    operations = offered(unit.work, standing) if state is SessionState.RUNNING else []
    return Offers(session_id, job, standing.state, operations, can_rerun=is_over and standing.state in ENDS)
