"""Results of runs that are not on the board: of sessions that have ended, and of runs nobody knows. Answered, so that
the agents may forget them.
"""

from __future__ import annotations

import asyncio

from futago.jobs import store
from futago.jobs.hub import AgentHub
from futago.jobs.model import ENDS, JobState
from futago.jobs.store import Connection, EventRow
from futago.link.orders import RunEnded
from futago.runtime.clock import now_utc
from futago.runtime.engine import EngineContext

ROUND_S = 0.1
STRAYS_MAX = 5_000
NAMED_MAX = 20  # runs that one event names


class Strays:
    """See the module."""

    def __init__(self, context: EngineContext, hub: AgentHub) -> None:
        self.count = 0
        self._context = context
        self._hub = hub
        self._waiting: dict[str, tuple[str, RunEnded]] = {}

    def note(self, agent: str, said: RunEnded) -> None:
        """Keep a result until it is looked at; beyond STRAYS_MAX the agent says it again."""
        if len(self._waiting) < STRAYS_MAX:
            self._waiting[said.run_id] = (agent, said)

    async def run(self) -> None:
        """Answer them until cancelled."""
        while True:
            await asyncio.sleep(ROUND_S)
            if self._waiting:
                strays, self._waiting = self._waiting, {}
                self.count += len(strays)
                await self._answer(strays)

    async def _answer(self, strays: dict[str, tuple[str, RunEnded]]) -> None:
        known = await self._states(list(strays))
        orphans = [pair for run_id, pair in strays.items() if run_id not in known]
        if orphans:
            await self._note_orphans(orphans)
        for run_id, (agent, _) in strays.items():
            if known.get(run_id, JobState.NORMAL) in ENDS:
                self._hub.committed(agent, run_id)

    async def _states(self, run_ids: list[str]) -> dict[str, JobState]:
        async def read(conn: Connection) -> dict[str, JobState]:
            return await store.read_run_states(conn, run_ids)

        return await self._context.store.read(read, name="jobs.strays")

    async def _note_orphans(self, orphans: list[tuple[str, RunEnded]]) -> None:
        by_host: dict[str, list[RunEnded]] = {}
        for agent, said in orphans:
            by_host.setdefault(agent, []).append(said)
        events = [_event(agent, ends) for agent, ends in by_host.items()]

        async def write(conn: Connection) -> None:
            await store.add_events(conn, events, epoch=self._context.epoch)

        await self._context.store.commit(write, name="jobs.orphans")


def _event(agent: str, ends: list[RunEnded]) -> EventRow:
    """Return the one event of what a host has said in a round: a host that makes runs up must not make thousands."""
    first = ends[0]
    what = (
        f"the end of a run that has no record here: exit code {first.exit_code}"
        if len(ends) == 1
        else f"the ends of {len(ends)} runs that have no record here"
    )
    return EventRow(
        occurred_utc=now_utc(),
        priority="warning",
        host_name=agent,
        message=f"Host {agent} reported {what}",
        detail={
            "run_id": first.run_id,
            "exit_code": first.exit_code,
            "outcome": first.outcome.value,
            "run_ids": [said.run_id for said in ends[:NAMED_MAX]],
            "count": len(ends),
        },
    )
