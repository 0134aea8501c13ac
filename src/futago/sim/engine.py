"""Simulated time: a heap of things to do, in order, on one clock that every random choice shares.

Nothing here knows of members or databases. One seed gives one run: the order of equal instants is the order of their scheduling.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush

MS = 1_000_000
S = 1_000_000_000


class Engine:
    """The world's clock and its one source of chance."""

    def __init__(self, seed: int, *, is_telling: bool = False) -> None:
        self.now = 0
        self.random = random.Random(seed)
        self.chance_of = self.random.random
        self.story: list[tuple[int, str, str]] = []
        self.is_telling = is_telling
        self.is_stopped = False  # set by whoever has seen enough: `run_until` returns
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0

    def at(self, when: int, act: Callable[[], None]) -> None:
        """Do `act` at `when` (now, if that has passed)."""
        self._order += 1
        heappush(self._heap, (max(when, self.now), self._order, act))

    def after(self, delay: int, act: Callable[[], None]) -> None:
        """Do `act` after `delay` nanoseconds."""
        self._order += 1
        heappush(self._heap, (self.now + delay, self._order, act))

    def run_until(self, end: int) -> None:
        """Run until `end`, or until `is_stopped`."""
        heap = self._heap
        while heap and heap[0][0] <= end:
            self.now, _, act = heappop(heap)
            act()
            if self.is_stopped:
                return
        self.now = end

    def between(self, low: int, high: int) -> int:
        """Return a random duration."""
        return low + int(self.chance_of() * (high - low))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.chance_of() < probability

    def tell(self, who: str, what: str) -> None:
        """Add a line to the story, where one is wanted."""
        if self.is_telling:
            self.story.append((self.now, who, what))
