"""What the engine does now and then beside the jobs: notes which agents are here, and removes what is old. A failure
here is not worth a reload of the board: another round will come.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

from futago.jobs import store
from futago.jobs.hub import AgentHub
from futago.jobs.retention import prune
from futago.jobs.store import Connection
from futago.runtime.clock import now_utc
from futago.runtime.engine import EngineContext
from futago.runtime.faults import WorldFault

HOSTS_S = 10.0  # how often `agent_seen_utc` is renewed
HOSTS_SOON_S = 0.2  # after a new agent: they come in swarms
PRUNE_S = 600.0
PIECE_PAUSE_S = 0.2
PIECES_MAX = 1_000  # of one round


class Upkeep:
    """See the module. `new_agent` is set by whoever sees one come."""

    def __init__(self, context: EngineContext, hub: AgentHub) -> None:
        self.new_agent = asyncio.Event()
        self._context = context
        self._hub = hub

    async def note_hosts(self) -> None:
        """Keep the host rows of connected agents fresh, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HOSTS_S):
                    await self.new_agent.wait()
            await asyncio.sleep(HOSTS_SOON_S)
            self.new_agent.clear()
            agents = {c.agent: c.address for c in self._hub.connected}
            if not agents:
                continue
            try:
                await self._write_hosts(agents)
            except WorldFault as e:
                self._context.log.warning("jobs.hosts_not_noted", error=str(e))

    async def _write_hosts(self, agents: dict[str, str]) -> None:
        async def write(conn: Connection) -> None:
            await store.note_agents(conn, agents, now_utc())

        await self._context.store.commit(write, name="jobs.hosts")

    async def prune(self) -> None:
        """Remove what is older than the settings say, until cancelled."""
        days = self._context.settings.pair.job_history_days
        while days:
            await asyncio.sleep(PRUNE_S)
            try:
                await prune_round(self._context, kept=timedelta(days=days))
            except WorldFault as e:
                self._context.log.event("jobs.prune_put_off", why=str(e))


async def prune_round(context: EngineContext, *, kept: timedelta) -> int:
    """Remove what ended longer ago than `kept`, piece by piece; return in how many pieces."""
    before = now_utc() - kept

    async def piece(conn: Connection) -> bool:
        return await prune(conn, before=before)

    pieces = 0
    while pieces < PIECES_MAX and await context.store.commit(piece, name="jobs.prune"):
        pieces += 1
        await asyncio.sleep(PIECE_PAUSE_S)
    return pieces
