"""The loop: facts changed while it decides are not missed, it wakes when it must, and a standstill is seen first."""

from __future__ import annotations

import asyncio

from futago.runtime.clock import MS, S, now_at
from futago.runtime.loop import DecisionLoop


class Toy:
    """A decider that counts."""

    def __init__(self, *, wake_in: int = 10 * S) -> None:
        self.bell, self.stop = asyncio.Event(), asyncio.Event()
        self.order: list[str] = []
        self.wake_in = wake_in
        self.loop = DecisionLoop(
            observe=self._observe,
            decide=lambda facts, now: f"decided {facts}",
            act=self._act,
            bell=self.bell,
            turned=lambda: self.order.append("fed"),
            on_stall=lambda gap: self.order.append("stalled"),
            stall_ns=lambda: 300 * MS,
        )

    def _observe(self) -> str:
        self.order.append("observed")
        return "facts"

    def _act(self, facts: str, decision: str, now: int) -> int:
        self.order.append(decision)
        return now + self.wake_in


async def test_turn_feeds_observes_decides_and_acts_in_this_order() -> None:
    toy = Toy()
    toy.loop.turn()
    assert toy.order == ["fed", "observed", "decided facts"]


async def test_standstill_is_answered_before_anything_is_looked_at() -> None:
    toy = Toy()
    toy.loop.turn()
    toy.order.clear()
    toy.loop._turned_at = now_at() - S  # as if the machine had stood still
    toy.loop.turn()
    assert toy.order[0] == "stalled" and toy.order[1:] == ["fed", "observed", "decided facts"]
    toy.order.clear()
    toy.loop.turn()
    assert "stalled" not in toy.order


async def test_changed_fact_wakes_at_once_and_silence_turns_nevertheless() -> None:
    toy = Toy()
    task = asyncio.create_task(toy.loop.run(toy.stop))
    await asyncio.sleep(0.02)
    took = []
    for _ in range(5):
        turns, began = toy.loop.turns, now_at()
        toy.bell.set()
        async with asyncio.timeout(30):
            while toy.loop.turns == turns:
                await asyncio.sleep(0)
        took.append(now_at() - began)
    assert min(took) < 100 * MS  # a test suite beside it may hold up any one of them
    turns = toy.loop.turns
    async with asyncio.timeout(30):
        while toy.loop.turns == turns:  # watchdogs are fed although nothing happens
            await asyncio.sleep(0.01)
    toy.stop.set()
    toy.bell.set()
    await asyncio.wait_for(task, 5)


async def test_loop_wakes_at_the_decisions_instant() -> None:
    toy = Toy(wake_in=20 * MS)
    task = asyncio.create_task(toy.loop.run(toy.stop))
    async with asyncio.timeout(30):
        while toy.loop.turns < 5:  # a silent loop would take seconds for each
            await asyncio.sleep(0.01)
    toy.stop.set()
    await asyncio.wait_for(task, 5)


async def test_fact_that_changes_during_the_turn_is_not_missed() -> None:
    toy = Toy()
    seen = []

    def act(facts: str, decision: str, now: int) -> int:
        seen.append(now)
        if len(seen) < 3:
            toy.bell.set()
        return now + 10 * S

    toy.loop._act = act
    task = asyncio.create_task(toy.loop.run(toy.stop))
    async with asyncio.timeout(30):
        while len(seen) < 3:
            await asyncio.sleep(0.01)
    toy.stop.set()
    toy.bell.set()
    await asyncio.wait_for(task, 5)
