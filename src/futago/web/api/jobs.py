"""Job nets and their runs: read them, start one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from futago.store.commit import Connection
from futago.web import net_starts, queries
from futago.web.allow import SCHEMES, JobStarter, Reader
from futago.web.faults import not_found
from futago.web.job_model import AskedStart, JobNets, Session, SessionDetail, Sessions, Started
from futago.web.owners import check_run
from futago.web.rooms import InRooms

router = APIRouter(tags=["jobs"], dependencies=SCHEMES)


@router.get("/job-nets")
async def job_nets(rooms: InRooms, who: Reader) -> JobNets:
    """Return all job nets, each with its newest run."""
    found = await rooms.serving.require().store.read(queries.job_nets, name="web.job_nets")
    return JobNets(job_nets=[net for net in found if who.has_part_in(net.owner)])


@router.post(
    "/job-nets/{name}/runs",
    status_code=201,
    responses={200: {"model": Started, "description": "The key was known: this is the run of then."}},
)
async def start(
    name: str,
    response: Response,
    rooms: InRooms,
    who: JobStarter,
    *,
    asked: AskedStart | None = None,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> Started:
    """Start a job net. With an Idempotency-Key, a repetition never starts a second run."""
    parameters = asked.parameters if asked else {}
    started = await net_starts.start(rooms, who, name, parameters, by="api", key=idempotency_key)
    response.status_code = 200 if started.repeated else 201
    return started


@router.get("/runs")
async def runs(
    rooms: InRooms,
    who: Reader,
    before: Annotated[int | None, Query(ge=0)] = None,
    net: str | None = None,
    limit: Annotated[int, Query(ge=1, le=queries.SESSIONS_MAX)] = 50,
) -> Sessions:
    """Return runs of job nets, newest first."""

    async def work(conn: Connection) -> list[Session]:
        return await queries.sessions(conn, before=before, net=net, owners=who.only_owners, limit=limit)

    found = await rooms.serving.require().store.read(work, name="web.runs")
    return Sessions(runs=found, next=found[-1].session_id if len(found) == limit else None)


@router.get("/runs/{session_id}")
async def run(session_id: int, rooms: InRooms, who: Reader) -> SessionDetail:
    """Return one run with all its jobs."""

    async def work(conn: Connection) -> SessionDetail | None:
        await check_run(conn, who, session_id)
        return await queries.session_detail(conn, session_id)

    found = await rooms.serving.require().store.read(work, name="web.run")
    if found is None:
        raise not_found(f"There is no run {session_id}.")
    return found
