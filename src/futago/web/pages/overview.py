"""The one page after login: the pair at a glance, hosts, events, job runs; and its parts, which the script reloads.

Shapes data for the templates; says nothing in words (texts.py) and looks like nothing (templates, static).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from futago.access.model import Permission, Principal
from futago.access.tokens import csrf_token
from futago.cluster.explain import Failure
from futago.runtime.clock import now_utc
from futago.runtime.faults import OperatorFault
from futago.store.commit import Connection
from futago.web import event_search, queries
from futago.web.allow import PairOperator, Reader
from futago.web.controller_link import Operation
from futago.web.faults import ControllerSilent
from futago.web.identity import COOKIE
from futago.web.job_model import Session
from futago.web.model import (
    EventPage,
    FenceStatus,
    Host,
    MemberStatus,
    OperationState,
    OperationStatus,
    Order,
    PairState,
    PairStatus,
    Priority,
    Source,
)
from futago.web.render import render
from futago.web.rooms import InRooms, Rooms

router = APIRouter()

LATEST = EventPage(order=Order.DESCENDING, limit=60)
SESSIONS_SHOWN = 12
OPERATION_SHOWN = timedelta(minutes=10)  # after that, what became of it is old news


@dataclass(frozen=True, slots=True)
class Card:
    """One member and what belongs to it."""

    member: MemberStatus
    fence: FenceStatus | None
    is_primary: bool

    @property
    def tone(self) -> str:
        if not self.member.reachable:
            return "bad"
        return "warn" if self.member.fit is False or self.member.able is False else "ok"


@dataclass(frozen=True, slots=True)
class Bar:
    """One step of a switch as a bar: where it begins and how long it is, in thousandths of the whole."""

    name: str
    ms: float
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class PairView:
    """The pair as the template shows it."""

    status: PairStatus
    operation: OperationStatus | None
    floating_ip: str

    @property
    def tone(self) -> str:
        if self.status.protected:
            return "ok"
        return "warn" if self.is_serving else "bad"

    @property
    def is_serving(self) -> bool:
        return any(m.role == "primary" and m.gate == "open" for m in self.status.members)

    @property
    def headline(self) -> str:
        """Return the key of the headline's text."""
        if not self.is_serving:
            return "headline.down"
        if self.status.protected:
            return "headline.protected"
        return "headline.solo" if self.status.state == PairState.SOLO else "headline.exposed"

    @property
    def cards(self) -> list[Card]:
        by_health = sorted(
            (f for f in self.status.fences if f.level), key=lambda f: f.ok
        )  # a member with several is as safe as its best one
        fences = {fence.member: fence for fence in by_health}
        members = sorted(self.status.members, key=lambda m: m.name)  # each stays at its side through a switch
        return [Card(m, fences.get(m.name), m.name == self.status.primary) for m in members]

    @property
    def replication(self) -> str:
        """Return the key's last word of what the standby's database does."""
        if self.status.state == PairState.PAIRED:
            return "sync"
        follows = any(m.reachable and m.pg == "standby" and m.name != self.status.primary for m in self.status.members)
        return "follows" if follows else "off"

    @property
    def target(self) -> str | None:
        """Return the member that a switchover would make primary; None if there is none."""
        others = [m.name for m in self.status.members if m.name != self.status.primary]
        return others[0] if len(others) == 1 and self.status.primary else None

    @property
    def can_switch_over(self) -> bool:
        return self.status.state == PairState.PAIRED and self.target is not None

    @property
    def can_recover(self) -> bool:
        return self.status.state != PairState.PAIRED and len(self.status.members) == 2

    @property
    def failures(self) -> list[str]:
        """Return what can be asked about with "what if"."""
        return [failure.value for failure in Failure]

    @property
    def bars(self) -> list[Bar]:
        """Return the steps of the last switch, each from where the one before it ended."""
        if self.status.last_switch is None:
            return []
        steps = sorted(self.status.last_switch.steps, key=lambda s: s.ms)
        whole = max((s.ms for s in steps), default=0.0) or 1.0
        begins = [0.0, *(max(s.ms, 0.0) for s in steps)]
        return [
            Bar(s.name, s.ms, round(1000 * begin / whole), max(4, round(1000 * (max(s.ms, 0.0) - begin) / whole)))
            for s, begin in zip(steps, begins, strict=False)
        ]


@dataclass(frozen=True, slots=True)
class Strip:
    """The jobs of a run by state, as one stacked bar: (state, start, length) in thousandths."""

    session: Session
    pieces: tuple[tuple[str, int, int], ...]

    @property
    def job_count(self) -> int:
        return sum(self.session.job_states.values())


_STATE_ORDER = ("normal", "warning", "abnormal", "unknown", "running", "ordered", "waiting", "not-run")


def strip(session: Session) -> Strip:
    """Return the run with its bar."""
    total = sum(session.job_states.values()) or 1
    known = {state: place for place, state in enumerate(_STATE_ORDER)}
    done, pieces = 0, []
    for state, count in sorted(session.job_states.items(), key=lambda item: known.get(item[0], 99)):
        start, done = round(1000 * done / total), done + count
        pieces.append((state, start, round(1000 * done / total) - start))
    return Strip(session, tuple(pieces))


async def _pair_view(rooms: Rooms) -> PairView | None:
    try:
        status = await rooms.controller.status()
    except ControllerSilent:
        return None
    present = rooms.operations.present
    if present and present.state is not OperationState.RUNNING and now_utc() - present.since_utc > OPERATION_SHOWN:
        present = None
    return PairView(status, present, rooms.serving.health().floating_ip)


@router.get("/")
async def overview(request: Request, rooms: InRooms, who: Reader) -> Response:
    """The frame with all parts in it."""
    rooms.serving.require()
    return render(
        request,
        "overview.html",
        who=who,
        csrf=csrf_token(request.cookies.get(COOKIE, "")),
        pair_name=rooms.settings.pair.name,
        health=rooms.serving.health(),
        pair=await _pair_view(rooms),
        sources=list(Source),
        priorities=list(Priority),
        rows=await _rows(rooms, who),
        may_start=who.may(Permission.RUN_JOB),
    )


@dataclass(frozen=True, slots=True)
class Rows:
    """What the database has for the overview, of one instant."""

    hosts: list[Host]
    events: list[event_search.EventRow]
    runs: list[Strip]


async def _rows(rooms: Rooms, who: Principal) -> Rows:
    async def work(conn: Connection) -> Rows:
        sessions = await queries.sessions(conn, owners=who.only_owners, limit=SESSIONS_SHOWN)
        events = await event_search.events(conn, LATEST, owners=who.only_owners)
        return Rows(await queries.hosts(conn), events, [strip(s) for s in sessions])

    return await rooms.serving.require().store.read(work, name="web.overview", deadline_s=5)


@router.get("/parts/pair")
async def pair_part(request: Request, rooms: InRooms, who: Reader) -> Response:
    """The pair at a glance."""
    rooms.serving.require()
    return render(request, "parts/pair.html", who=who, pair=await _pair_view(rooms))


@router.get("/parts/hosts")
async def hosts_part(request: Request, rooms: InRooms, who: Reader) -> Response:
    """All hosts with their worst status."""
    hosts = await rooms.serving.require().store.read(queries.hosts, name="web.hosts", deadline_s=5)
    return render(request, "parts/hosts.html", hosts=hosts)


@router.get("/parts/events")
async def events_part(
    request: Request,
    rooms: InRooms,
    who: Reader,
    *,
    source: Annotated[str, Query(max_length=20)] = "",
    priority: Annotated[str, Query(max_length=20)] = "",
    text: Annotated[str, Query(max_length=500)] = "",
) -> Response:
    """The latest events, of a source or priority or with a text if one is chosen."""
    chosen = {
        "text": text or None,
        "source": Source(source) if source in set(Source) else None,
        "priority": Priority(priority) if priority in set(Priority) else None,
    }
    wanted = LATEST.model_copy(update=chosen)

    async def work(conn: Connection) -> list[event_search.EventRow]:
        return await event_search.events(conn, wanted, owners=who.only_owners)

    events = await rooms.serving.require().store.read(work, name="web.events", deadline_s=5)
    return render(request, "parts/events.html", events=events)


@router.get("/parts/runs")
async def runs_part(request: Request, rooms: InRooms, who: Reader) -> Response:
    """The latest runs of job nets."""

    async def work(conn: Connection) -> list[Session]:
        return await queries.sessions(conn, owners=who.only_owners, limit=SESSIONS_SHOWN)

    found = await rooms.serving.require().store.read(work, name="web.sessions", deadline_s=5)
    return render(request, "parts/runs.html", runs=[strip(s) for s in found])


@router.post("/parts/pair/{operation}")
async def operate(request: Request, rooms: InRooms, who: PairOperator, operation: Operation) -> Response:
    """Ask for a switchover or recovery; answer with the pair as it is a moment later."""
    refused: OperatorFault | None = None
    try:
        await rooms.operations.start(operation, who)
    except OperatorFault as fault:
        refused = fault
    return render(request, "parts/asked.html", refused=refused, operation=operation)
