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
        events = [
            EventRow(
                occurred_utc=now_utc(),
                priority="warning",
                host_name=agent,
                message=f"Host {agent} reported the end of a run that has no record here: exit code {said.exit_code}",
                detail={"run_id": said.run_id, "exit_code": said.exit_code, "outcome": said.outcome.value},
            )
            for agent, said in orphans
        ]

        async def write(conn: Connection) -> None:
            await store.add_events(conn, events, epoch=self._context.epoch)

        await self._context.store.commit(write, name="jobs.orphans")
