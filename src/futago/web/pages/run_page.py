"""One run of a job net as people look at it: the outermost net, and on opening what lies in others.

A level that is open asks again when the stream says that runs have changed, and brings the digest of what it shows; if
that is still so, the answer is empty (204). What may be asked of the run or a unit of it is offered above the tree, to those who may start jobs.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Form, Query, Request
from pydantic import ValidationError
from starlette.responses import Response

from futago.access.model import Permission
from futago.jobs.model import JobState
from futago.runtime.faults import OperatorFault, Unknown
from futago.store.commit import Connection
from futago.web import run_orders
from futago.web.allow import JobStarter, Reader
from futago.web.faults import HttpFault, body_of, not_found
from futago.web.job_model import JOB_PATH_MAX, AskedOperation, AskedRerun
from futago.web.model import ErrorBody
from futago.web.owners import check_run
from futago.web.render import render
from futago.web.rooms import InRooms, Rooms
from futago.web.run_tree import PAGE_MAX, Level, read_level, read_output

router = APIRouter()

STATUSES_OFFERED = (JobState.NORMAL, JobState.WARNING, JobState.ABNORMAL)


@router.get("/parts/runs/{session_id}")
async def run_part(request: Request, rooms: InRooms, who: Reader, session_id: int) -> Response:
    """One run with what lies in its outermost net."""
    return await run_shown(request, rooms, who, session_id)


async def run_shown(
    request: Request, rooms: Rooms, who: Reader, session_id: int, *, is_repeated: bool = False
) -> Response:
    """Show a run. `is_repeated`: a form that was sent again had started it before.

    Raises:
        HttpFault: there is no such run, or it is another owner's.
    """
    level = await _level(rooms, who, session_id, under="", page=0)
    may = who.may(Permission.RUN_JOB)
    return render(
        request,
        "parts/run.html",
        run=level.session,
        level=level,
        is_update=False,
        may=may,
        is_repeated=is_repeated,
    )


@router.get("/parts/runs/{session_id}/level")
async def level_part(
    request: Request,
    rooms: InRooms,
    who: Reader,
    session_id: int,
    *,
    under: Annotated[str, Query(max_length=JOB_PATH_MAX)] = "",
    page: Annotated[int, Query(ge=0, le=PAGE_MAX)] = 0,
    known: Annotated[str, Query(max_length=16)] = "",
) -> Response:
    """What lies in one net of a run; nothing (204) if it is `known`."""
    level = await _level(rooms, who, session_id, under=under, page=page)
    if known == level.digest:
        return Response(status_code=204)
    may = who.may(Permission.RUN_JOB)
    return render(request, "parts/run_level.html", run=level.session, level=level, is_update=not under, may=may)


@router.get("/parts/runs/{session_id}/output/{run_id}")
async def output_part(request: Request, rooms: InRooms, who: Reader, session_id: int, run_id: str) -> Response:
    """All that is kept of what a job wrote."""

    async def work(conn: Connection) -> str | None:
        await check_run(conn, who, session_id)
        return await read_output(conn, session_id, run_id)

    found = await rooms.serving.require().store.read(work, name="web.run_output", deadline_s=5)
    if found is None:
        raise not_found(f"Run {session_id} has no such job.")
    return render(request, "parts/run_output.html", output=found)


@router.get("/parts/runs/{session_id}/acts")
async def acts_part(
    request: Request,
    rooms: InRooms,
    who: JobStarter,
    session_id: int,
    *,
    job: Annotated[str, Query(max_length=JOB_PATH_MAX)] = "",
) -> Response:
    """What may be asked of a run, or of a unit of it."""
    return await _acts(request, rooms, who, _Place(session_id, job))


@router.post("/parts/runs/{session_id}/operations")
async def operate(
    request: Request,
    rooms: InRooms,
    who: JobStarter,
    session_id: int,
    *,
    operation: Annotated[str, Form(max_length=20)],
    job: Annotated[str, Form(max_length=JOB_PATH_MAX)] = "",
    status: Annotated[str, Form(max_length=20)] = "",
    value: Annotated[str, Form(max_length=20)] = "",
    note: Annotated[str, Form(max_length=1000)] = "",
) -> Response:
    """Operate on a run; show what came of it, and what may be asked now."""
    said: dict[str, Any] = {"operation": operation, "job": job or None, "note": note}
    if operation == "end":
        said |= {"status": status or None, "value": value or None}
    try:
        asked = AskedOperation.model_validate(said)
    except ValidationError as e:
        wrong = e.errors(include_url=False)[0]
        error = ErrorBody(error=f"{wrong['loc'][0]}: {wrong['msg']}.", code="request.invalid")
        return await _acts(request, rooms, who, _Place(session_id, job), refused=error)
    return await _asked(request, rooms, who, _Place(session_id, job), run_orders.operate(rooms, who, session_id, asked))


@router.post("/parts/runs/{session_id}/rerun")
async def rerun(
    request: Request,
    rooms: InRooms,
    who: JobStarter,
    session_id: int,
    *,
    job: Annotated[str, Form(max_length=JOB_PATH_MAX)] = "",
    key: Annotated[str, Form(max_length=100)] = "",
) -> Response:
    """Let an ended run run again; show what came of it. `key`: of the offer, so that a button pressed twice does it once."""
    again = run_orders.rerun(rooms, who, session_id, AskedRerun(job=job or None), key=key and f"page:{key}")
    return await _asked(request, rooms, who, _Place(session_id, job), again)


@dataclass(frozen=True, slots=True)
class _Place:
    """A run, or a unit of it."""

    session_id: int
    job: str


async def _asked(request: Request, rooms: Rooms, who: JobStarter, place: _Place, answer: Awaitable[Any]) -> Response:
    """Show what came of a request: done, asked for, refused with its reason, or nobody knows."""
    try:
        done = await answer
    except HttpFault as fault:
        if fault.status is not HTTPStatus.FORBIDDEN:
            raise
        return render(request, "parts/run_acts.html", offers=None, statuses=(), refused=body_of(fault), done=None)
    except OperatorFault as fault:
        return await _acts(request, rooms, who, place, refused=body_of(fault))
    except Unknown as fault:
        return await _acts(request, rooms, who, place, refused=ErrorBody(error=str(fault), code="jobs.unknown"))
    return await _acts(request, rooms, who, place, done=done)


async def _acts(
    request: Request,
    rooms: Rooms,
    who: JobStarter,
    place: _Place,
    *,
    refused: ErrorBody | None = None,
    done: object = None,
) -> Response:
    async def work(conn: Connection) -> run_orders.Offers | None:
        return await run_orders.offers(conn, who, place.session_id, place.job)

    found = await rooms.serving.require().store.read(work, name="web.run_offers", deadline_s=5)
    if found is None:
        raise not_found(f"Run {place.session_id} has no job `{place.job}`.")
    return render(
        request,
        "parts/run_acts.html",
        offers=found,
        statuses=STATUSES_OFFERED,
        refused=refused,
        done=done,
        key=uuid4().hex,
    )


async def _level(rooms: Rooms, who: Reader, session_id: int, *, under: str, page: int) -> Level:
    async def work(conn: Connection) -> Level | None:
        await check_run(conn, who, session_id)
        return await read_level(conn, session_id, under=under, page=page)

    found = await rooms.serving.require().store.read(work, name="web.run_level", deadline_s=5)
    if found is None:
        raise not_found(f"There is no run {session_id}.")
    return found
