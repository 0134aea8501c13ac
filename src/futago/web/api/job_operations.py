"""What people do to running sessions: asked for here, decided by the engine, and answered when it has decided."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Response

from futago.web import run_orders
from futago.web.allow import SCHEMES, JobStarter
from futago.web.job_model import AskedOperation, AskedRerun, OperationDone, RunsAgain
from futago.web.rooms import InRooms

router = APIRouter(tags=["jobs"], dependencies=SCHEMES)


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
    done = await run_orders.operate(rooms, who, session_id, asked)
    if not done.is_decided:
        response.status_code = HTTPStatus.ACCEPTED
    return done


@router.post("/runs/{session_id}/rerun", responses={422: {"description": "It has no meaning; the error says why."}})
async def rerun(
    session_id: int,
    asked: AskedRerun,
    rooms: InRooms,
    who: JobStarter,
    *,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> RunsAgain:
    """Let an ended run run again: from a job, with everything that waits for it, or from all that failed.

    With an Idempotency-Key, a repetition never begins it a second time.
    """
    return await run_orders.rerun(rooms, who, session_id, asked, key=idempotency_key or "")
