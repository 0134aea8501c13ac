"""Runs that run are asked after now and then, though nothing says that anything is wrong.

An agent that connects is asked for everything; but that it has connected may have been lost, with the hub's inbox full.
What it lost itself would then stay *running* for ever: nobody would say that it is not there any more.
"""

from __future__ import annotations

import asyncio

from futago.jobs.board import Board
from futago.jobs.hub import AgentHub
from futago.jobs.model import JobState

PATROL_S = 60.0  # from one round to the next; a round is a frame for 1,000 runs, and its answer


class Patrol:
    """See the module. One for each board."""

    def __init__(self, board: Board, hub: AgentHub) -> None:
        self._board = board
        self._hub = hub

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await asyncio.sleep(PATROL_S)
            for agent in self._hub.connected:
                running = [
                    e.run_id for e in self._board.at_host(agent.agent) if e.state is JobState.RUNNING and e.is_committed
                ]
                if running:
                    self._hub.ask(agent.agent, running)
                await asyncio.sleep(0)  # others have their turn between two hosts
