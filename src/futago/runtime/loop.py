"""The one loop that runs a decider: observe, decide, record durably, act; the outcome of an act is a new fact.

Lives here: that order, the waiting in between, and the detection that we ourselves stood still. Must not live here:
any fact or action. The idea: somebody who wakes up in a train. Before anything else they look at the clock; if it is
much later than it should be, they take their hands off everything (`on_stall`) and only then look around.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Generic, TypeVar

from futago.runtime.clock import MS, S, now_at

F = TypeVar("F")
D = TypeVar("D")
TURN_MAX = 200 * MS  # at least this often: watchdogs and the guard are fed by turning


class DecisionLoop(Generic[F, D]):
    """Turns until told to stop.

    Args:
        observe: returns all facts.
        decide: facts and now to a decision.
        act: begins the decision's actions; returns when to look again at the latest (ns).
        bell: set whenever a fact has changed.
        turned: called at every turn: feed watchdogs here.
        on_stall: called first thing after having stood still longer than `stall_ns()`, with the length.
    """

    def __init__(
        self,
        *,
        observe: Callable[[], F],
        decide: Callable[[F, int], D],
        act: Callable[[F, D, int], int],
        bell: asyncio.Event,
        turned: Callable[[], None],
        on_stall: Callable[[int], None],
        stall_ns: Callable[[], int],
    ) -> None:
        self._observe, self._decide, self._act, self._bell = observe, decide, act, bell
        self._turned, self._on_stall, self._stall_ns = turned, on_stall, stall_ns
        self._turned_at = now_at()
        self._due = 0
        self.turns = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Turn until `stop`."""
        while not stop.is_set():
            self.turn()
            await asyncio.sleep(0)  # let what the turn began begin
            await self._wait()

    def turn(self) -> None:
        """Observe, decide, act, once."""
        began = now_at()
        gap = began - self._turned_at
        if gap > self._stall_ns():
            self._on_stall(gap)
        self._turned_at = began
        self._turned()
        self._bell.clear()
        facts = self._observe()
        now = now_at()
        self._due = self._act(facts, self._decide(facts, now), now)
        self.turns += 1

    async def _wait(self) -> None:
        pause = min(self._due - now_at(), TURN_MAX) / S
        if pause <= 0 or self._bell.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._bell.wait()
