"""What people do to running sessions: asked for here, decided by the engine, and answered when it has decided."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from fastapi import APIRouter, Response

from futago.access import store as rows
from futago.jobs.sessions import ask_operation, read_decision, run_again
from futago.runtime.clock import S, now_at
from futago.runtime.faults import OperatorFault
from futago.store.commit import Connection
from futago.web.allow import SCHEMES, JobStarter
from futago.web.job_model import AskedOperation, AskedRerun, OperationDone, RunsAgain
from futago.web.owners import audited, check_run
from futago.web.rooms import InRooms

router = APIRouter(tags=["jobs"], dependencies=SCHEMES)

DECIDED_S = 5.0  # the engine looks every 100 ms; during a switch it may be longer
LOOK_S = 0.05


@router.post(
    "/runs/{session_id}/operations",
    responses={
        202: {"model": OperationDone, "description": "Asked for; the engine has not decided yet, and will."},
        422: {"description": "The operation has no meaning now; the error says why."},
    },
)
async def operate(
    session_id: int, asked: AskedOperation, response: Response, rooms: InRooms, who: JobStarter
) -> OperationDone:
    """Operate on a job of a running session: hold, release, skip, stop, suspend, resume, force, end, approve, reject.

    Without a job: stop, suspend or resume the session.
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
    response.status_code = HTTPStatus.ACCEPTED
    return OperationDone(operation_id=operation_id, is_decided=False)


@router.post("/runs/{session_id}/rerun", responses={422: {"description": "It has no meaning; the error says why."}})
async def rerun(session_id: int, asked: AskedRerun, rooms: InRooms, who: JobStarter) -> RunsAgain:
    """Let an ended run run again: from a job, with everything that waits for it, or from all that failed."""

    async def work(conn: Connection) -> list[str]:
        await check_run(conn, who, session_id, asked.job or "")
        again = await run_again(conn, session_id, asked.job)
        await rows.record(conn, who, rows.Deed("run.rerun", str(session_id), {"job": asked.job, "jobs": len(again)}))
        return again

    again = await audited(rooms.serving.require().store, who, "run.rerun", work, name="web.rerun")
    return RunsAgain(session_id=session_id, jobs=again)
