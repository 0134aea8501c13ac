"""What a switch meant for job control: told once, when it is known what became of the runs that were open.

    open runs at the take-over ──► states and hosts a while later ──► one row and one event

Lives here: what counts as what and when it is known (pure, the upper half), and the one transaction that tells it. Must
not live here: the runs themselves; nothing waits for this. The member that takes job control up writes the report of
its epoch; if the role goes on before that, the next member's report counts what it finds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime

import msgspec

from futago.jobs import store
from futago.jobs.board import Entry
from futago.jobs.hub import AgentHub
from futago.jobs.model import AT_AGENT, JobState
from futago.jobs.store import Connection, EventRow
from futago.runtime.clock import MS, S, now_at, now_utc
from futago.runtime.engine import EngineContext

SETTLE_S = 5.0  # agents are asked again after 2 s: by then they have said what they have, if they are there
PATIENCE_S = 60.0  # hosts that are silent for so long are told as that
LOOK_S = 1.0
HOSTS_NAMED_MAX = 20


class OpenRun(msgspec.Struct, frozen=True):
    """A run that was ordered or ran when the role was taken. `host` empty: the manager itself does it."""

    run_id: str
    host: str


class SwitchReport(msgspec.Struct, frozen=True):
    """What became of them. `sessions`: how many runs of nets were open; the others count runs of jobs: how many go on,
    have ended (however), are unknown, or belong to hosts that were not heard of (`silent_hosts`, the first few by name).
    `repeated`: orders that were sent again under their ids.
    """

    sessions: int
    going_on: int
    ended: int
    unknown: int
    silent: int
    repeated: int
    silent_hosts: tuple[str, ...] = ()


def judge(
    runs: Collection[OpenRun],
    states: Mapping[str, JobState],
    *,
    connected: Collection[str],
    sessions: int,
    repeated: int,
) -> SwitchReport:
    """Return how the runs stand now. `states`: of those that still have a row."""
    open_now = [r for r in runs if states.get(r.run_id) in AT_AGENT]
    silent = [r for r in open_now if r.host and r.host not in connected]
    unknown = sum(states.get(r.run_id) is JobState.UNKNOWN for r in runs)
    return SwitchReport(
        sessions=sessions,
        going_on=len(open_now) - len(silent),
        ended=len(runs) - len(open_now) - unknown,
        unknown=unknown,
        silent=len(silent),
        repeated=repeated,
        silent_hosts=tuple(sorted({r.host for r in silent})[:HOSTS_NAMED_MAX]),
    )


def is_known(report: SwitchReport, *, since_s: float) -> bool:
    """Return whether it may be told, so many seconds after the role was taken."""
    return since_s >= PATIENCE_S or (since_s >= SETTLE_S and not report.silent)


def event_of(report: SwitchReport, *, member: str, epoch: int, now: datetime) -> EventRow | None:
    """Return what people are told; None: nothing was open."""
    if not report.sessions:
        return None
    named = f" ({', '.join(report.silent_hosts)})" if report.silent_hosts else ""
    return EventRow(
        occurred_utc=now,
        priority="warning" if report.unknown or report.silent else "info",
        host_name=None,
        message=f"Job control goes on on {member} since epoch {epoch}: {report.sessions} runs of nets were open; of their jobs "
        f"on hosts {report.going_on} go on, {report.ended} have ended, {report.unknown} are unknown, "
        f"{report.silent} are on hosts that were not heard of{named}; {report.repeated} orders were repeated",
        detail={"report": "switch", "member": member, **msgspec.to_builtins(report)},
    )


class SwitchTeller:
    """Tells the report of one epoch.

    Args:
        hub: knows whose agents are connected.
        repeated: gives how many orders were sent again since the engine was made.
    """

    def __init__(self, context: EngineContext, hub: AgentHub, *, repeated: Callable[[], int]) -> None:
        self._context = context
        self._hub = hub
        self._repeated = repeated
        self._taken_at = 0
        self._taken_utc = now_utc()
        self._sessions = 0
        self._runs: list[OpenRun] = []
        self._is_told = False

    def note(self, entries: Iterable[Entry], *, sessions: int, runs: int, began_at: int) -> None:
        """Note what was open when the board was made, the first time."""
        took_ms = (now_at() - began_at) / MS
        self._context.log.event(
            "jobs.loaded", epoch=self._context.epoch, engine="jobs", sessions=sessions, runs=runs, took_ms=took_ms
        )
        if not self._taken_at:
            self._taken_at, self._taken_utc, self._sessions = now_at(), now_utc(), sessions
            self._runs = [OpenRun(e.run_id, e.host) for e in entries if _was_open(e)]

    async def run(self) -> None:
        """Tell it as soon as it is known; return then."""
        while not self._is_told:
            await asyncio.sleep(LOOK_S)
            since_s = (now_at() - self._taken_at) / S
            if since_s < SETTLE_S:
                continue
            report = await self._report()
            if is_known(report, since_s=since_s):
                await self._tell(report)
                self._is_told = True

    async def _report(self) -> SwitchReport:
        async def read(conn: Connection) -> dict[str, JobState]:
            return await store.read_run_states(conn, [r.run_id for r in self._runs])

        states = await self._context.store.read(read, name="jobs.switch_report") if self._runs else {}
        connected = {agent.agent for agent in self._hub.connected}
        return judge(self._runs, states, connected=connected, sessions=self._sessions, repeated=self._repeated())

    async def _tell(self, report: SwitchReport) -> None:
        """Write the row, and the event only with it: a repetition after an unknown outcome finds the row."""
        context = self._context
        member = context.settings.me

        async def write(conn: Connection) -> None:
            is_new = await store.add_switch_report(
                conn, epoch=context.epoch, member=member, taken=self._taken_utc, report=msgspec.to_builtins(report)
            )
            event = event_of(report, member=member, epoch=context.epoch, now=now_utc())
            if is_new and event is not None:
                await store.add_events(conn, [event], epoch=context.epoch)

        await context.store.commit(write, name="jobs.switch_report")


def _was_open(entry: Entry) -> bool:
    return entry.is_committed and entry.state in AT_AGENT and (entry.is_for_agent or entry.is_call)
