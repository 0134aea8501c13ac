"""What jobs write and wrote, when they ran, how long they took."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from futago.jobs import history, trend, window
from futago.jobs.definitions import read_net
from futago.jobs.model import ENDS, JobState
from futago.jobs.store import read_specs
from futago.runtime.clock import now_utc
from futago.runtime.faults import Corrupt
from futago.store.commit import Connection
from futago.web import queries
from futago.web.allow import SCHEMES, Reader
from futago.web.faults import not_found
from futago.web.job_history_model import (
    Bar,
    Durations,
    FoundOutput,
    FoundOutputs,
    Gantt,
    JobOutput,
    Series,
    SessionTook,
    SwitchReport,
    SwitchReports,
)
from futago.web.owners import check_net, check_run
from futago.web.rooms import InRooms

router = APIRouter(tags=["jobs"], dependencies=SCHEMES)

SEARCH_S = 30.0


@router.get("/runs/{session_id}/jobs/{job:path}/output")
async def output(
    session_id: int,
    job: str,
    *,
    rooms: InRooms,
    who: Reader,
    offset: Annotated[int, Query(ge=0)] = 0,
    attempt: Annotated[int | None, Query(ge=1)] = None,
) -> JobOutput:
    """Return what a job has written from byte `offset` on, while it runs too."""

    async def work(conn: Connection) -> history.AttemptRow | None:
        await check_run(conn, who, session_id)
        return await history.read_attempt(conn, session_id, job, attempt=attempt)

    row = await rooms.serving.require().store.read(work, name="web.output")
    if row is None:
        raise not_found(f"Run {session_id} has no job `{job}`.")
    if row.state in ENDS:
        return _kept(row, offset)
    if row.state == JobState.WAITING:
        return _part(row, offset=offset, data=b"", size=0, is_ended=False)
    part = await window.ask(window.AskedOutput(row.host_name, row.run_id, offset))
    size = None if part.size is None else max(part.size, 0)
    return _part(row, offset=max(part.offset, offset), data=part.data, size=size, is_ended=False)


def _kept(row: history.AttemptRow, offset: int) -> JobOutput:
    """Return what the pair keeps of the output of a run that has ended."""
    content = (row.output or "").encode()
    size = max(row.output_bytes or 0, len(content))
    begin = max(offset, size - len(content))
    return _part(row, offset=begin, data=content[begin - (size - len(content)) :], size=size, is_ended=True)


def _part(row: history.AttemptRow, *, offset: int, data: bytes, size: int | None, is_ended: bool) -> JobOutput:
    whole = data if is_ended else _whole_characters(data)
    return JobOutput(
        run_id=row.run_id,
        job_name=row.job_name,
        host_name=row.host_name,
        attempt=row.attempt,
        state=row.state,
        offset=offset,
        text=whole.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}"),
        next=offset + len(whole),
        size=size,
        is_ended=is_ended,
    )


def _whole_characters(data: bytes) -> bytes:
    """Return the data without a UTF-8 character at its end that has only begun."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0xC0:  # the first byte of a character of more than one
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data[:-back] if length > back else data
        if byte < 0x80:
            return data
    return data


@router.get("/job-output")
async def search(
    *,
    rooms: InRooms,
    who: Reader,
    text: Annotated[str, Query(min_length=2, max_length=200, description="As it is; upper and lower case alike.")],
    net: str | None = None,
    host: str | None = None,
    days: Annotated[float, Query(gt=0, le=3660, description="How far back.")] = 7,
    before: Annotated[int | None, Query(ge=0)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> FoundOutputs:
    """Search what jobs wrote: return the newest runs whose kept output holds a text."""
    since = now_utc() - timedelta(days=days)

    async def work(conn: Connection) -> list[history.FoundRow]:
        return await history.search_output(
            conn, text, net=net, host=host, since_utc=since, before=before, owners=who.only_owners, limit=limit
        )

    store = rooms.serving.require().store
    found = await store.read(work, name="web.search_output", deadline_s=SEARCH_S)
    return FoundOutputs(runs=[FoundOutput.model_validate(row, from_attributes=True) for row in found])


@router.get("/runs/{session_id}/gantt")
async def gantt(session_id: int, rooms: InRooms, who: Reader) -> Gantt:
    """Return when each job of a run was ordered, started and ended, and which of them decided the end."""

    async def work(conn: Connection) -> Gantt | None:
        await check_run(conn, who, session_id)
        sessions = await queries.sessions(conn, session=session_id, limit=1)
        if not sessions:
            return None
        waits_for, children = await _plan(conn, session_id)
        rows = await history.read_bars(conn, session_id)
        ended = {row.job_name: row.ended_utc for row in rows if row.started_utc is not None}
        path = trend.critical_path(trend.through_nets(waits_for, children), ended)
        bars = [
            Bar(
                job_name=row.job_name,
                host_name=row.host_name,
                state=row.state,
                attempt=row.attempt,
                ordered_utc=row.ordered_utc,
                started_utc=row.started_utc,
                ended_utc=row.ended_utc,
                after=sorted(waits_for.get(row.job_name, [])),
                is_critical=row.job_name in path,
            )
            for row in rows
        ]
        session = sessions[0]
        return Gantt(
            session_id=session_id,
            net_name=session.net_name,
            state=session.state,
            started_utc=session.started_utc,
            ended_utc=session.ended_utc,
            critical_path=path,
            bars=bars,
        )

    found = await rooms.serving.require().store.read(work, name="web.gantt")
    if found is None:
        raise not_found(f"There is no run {session_id}.")
    return found


async def _plan(conn: Connection, session_id: int) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return the predecessors of each job, and what is in each net, as the definition of the session tells them."""
    cursor = await conn.execute("SELECT digest FROM job_session WHERE session_id = %s", (session_id,))
    digests = [str(row[0]) for row in await cursor.fetchall()]
    try:
        (spec,) = (await read_specs(conn, digests)).values()
        net = read_net(spec)
    except (Corrupt, ValueError):  # another version wrote it: the times are there all the same
        return {}, {}
    waits_for: dict[str, list[str]] = defaultdict(list)
    for job, followers in net.followers.items():
        for follower in followers:
            waits_for[follower].append(str(job))
    return waits_for, {str(parent): list(map(str, inside)) for parent, inside in net.children.items() if parent}


@router.get("/job-nets/{name}/durations")
async def durations(
    name: str, rooms: InRooms, who: Reader, count: Annotated[int, Query(ge=1, le=500)] = 50
) -> Durations:
    """Return how long the newest runs of a net took, and each of its jobs, and whether that changes."""

    async def work(conn: Connection) -> Durations:
        await check_net(conn, who, name)
        sessions = await history.read_sessions_took(conn, name, owners=who.only_owners, count=count)
        jobs = await history.read_jobs_took(conn, [s.session_id for s in sessions])
        by_job: dict[str, list[float]] = defaultdict(list)
        for row in jobs:
            by_job[row.job_name].append(row.seconds)
        series = [made for job, took in by_job.items() if (made := _series(job, took)) is not None]
        return Durations(
            net_name=name,
            net=_series(name, [s.seconds for s in sessions]),
            jobs=sorted(series, key=lambda s: s.median_s, reverse=True),
            runs=[
                SessionTook(session_id=s.session_id, state=s.state, started_utc=s.started_utc, seconds=s.seconds)
                for s in sessions
            ],
        )

    return await rooms.serving.require().store.read(work, name="web.durations")


@router.get("/job-switches")
async def switches(rooms: InRooms, who: Reader, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> SwitchReports:
    """Return what each switch meant for job control, newest first.

    One is told some seconds after the switch, at the latest a minute.
    """

    async def work(conn: Connection) -> list[SwitchReport]:
        return await queries.job_switches(conn, limit=limit)

    return SwitchReports(reports=await rooms.serving.require().store.read(work, name="web.job_switches"))


def _series(name: str, seconds: list[float]) -> Series | None:
    found = trend.trend(seconds)
    if found is None:
        return None
    return Series(
        name=name,
        count=found.count,
        last_s=found.last_s,
        median_s=found.median_s,
        p95_s=found.p95_s,
        max_s=found.max_s,
        change=found.change,
    )
