"""One run of a job net as people look at it: the outermost net, and on opening what lies in others.

A level that is open asks again when the stream says that runs have changed, and brings the digest of what it shows; if
that is still so, the answer is empty (204).
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from futago.store.commit import Connection
from futago.web.allow import Reader
from futago.web.faults import not_found
from futago.web.job_model import JOB_PATH_MAX
from futago.web.owners import check_run
from futago.web.render import render
from futago.web.rooms import InRooms, Rooms
from futago.web.run_tree import PAGE_MAX, Level, read_level, read_output

router = APIRouter()


@router.get("/parts/runs/{session_id}")
async def run_part(request: Request, rooms: InRooms, who: Reader, session_id: int) -> Response:
    """One run with what lies in its outermost net."""
    level = await _level(rooms, who, session_id, under="", page=0)
    return render(request, "parts/run.html", run=level.session, level=level, is_update=False)


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
    return render(request, "parts/run_level.html", run=level.session, level=level, is_update=not under)


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


async def _level(rooms: Rooms, who: Reader, session_id: int, *, under: str, page: int) -> Level:
    async def work(conn: Connection) -> Level | None:
        await check_run(conn, who, session_id)
        return await read_level(conn, session_id, under=under, page=page)

    found = await rooms.serving.require().store.read(work, name="web.run_level", deadline_s=5)
    if found is None:
        raise not_found(f"There is no run {session_id}.")
    return found
