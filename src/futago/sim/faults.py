"""The faults of a schedule: which kinds a seed may use at all (swarm), when, and for how long.

Every fault names itself in the story, does something to the world and takes it back later.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from futago.sim.engine import S
from futago.sim.kinds import KINDS
from futago.sim.network import Path

if TYPE_CHECKING:
    from futago.sim.member import SimMember
    from futago.sim.world import World

FAULTS_MIN = 2
FAULT_EVERY_NS = 5 * S  # at most one more fault for so much of the chaos, and a few that come together
SHARES = (0.1, 0.25, 0.5, 1.0)  # of the kinds that a seed may use
ANOTHER_MAX = 20  # where a kind finds nothing to break, another one is drawn, so often


class Faults:
    """Draws and carries out the faults of one run."""

    def __init__(self, world: World, *, chaos_ns: int, is_quiet: bool = False) -> None:
        self.world = world
        self.engine = world.engine
        self.count = 0
        self.struck: dict[str, int] = {}
        random = self.engine.random
        share = random.choice(SHARES)
        self.enabled = [k for k in sorted(KINDS) if random.random() < share] or [random.choice(sorted(KINDS))]
        if is_quiet:
            return
        most = FAULTS_MIN + chaos_ns // FAULT_EVERY_NS
        for _ in range(random.randint(FAULTS_MIN, most)):
            kind = random.choice(self.enabled)
            self.engine.at(self.engine.between(2 * S, chaos_ns - 2 * S), partial(self.strike, kind))
        if random.random() < 0.5:  # faults love company: some more close to another
            first = self.engine.between(2 * S, chaos_ns - 4 * S)
            for _ in range(random.randint(2, 3)):
                kind = random.choice(self.enabled)
                self.engine.at(first + self.engine.between(0, 3 * S), partial(self.strike, kind))

    def strike(self, kind: str) -> None:
        """Let one fault happen, unless the chaos is over; another kind where this one finds nothing to break."""
        if self.world.is_healing:
            return
        before = self.count
        KINDS[kind](self)
        for _ in range(ANOTHER_MAX):
            if self.count > before:
                break
            kind = self.engine.random.choice(self.enabled)
            KINDS[kind](self)
        self.struck[kind] = self.struck.get(kind, 0) + (self.count > before)

    def say(self, what: str) -> None:
        """Count a fault and tell the story."""
        self.count += 1
        self.engine.tell("FAULT", what)

    def member(self) -> SimMember:
        """Pick a member; more often the one that serves."""
        a, b = self.world.members
        serving = a if a.db.is_primary else b
        return serving if self.engine.chance(0.6) else self.engine.random.choice((a, b))

    def is_whole(self) -> bool:
        """The pair is paired and both members have everything, so that one of them may lose it."""
        a, b = self.world.members
        views = a.disk.view, b.disk.view
        return (
            views[0] is not None
            and views[0] == views[1]
            and not views[0].is_solo
            and a.is_running
            and b.is_running
            and a.db.is_running
            and b.db.is_running
            and not a.disk.intent
            and not b.disk.intent
            and all(m.v.decision is not None and m.v.decision.is_protected for m in (a, b))
        )

    def later(self, low: int, high: int, act: Callable[[], None]) -> None:
        """Take something back after a while."""
        self.engine.after(self.engine.between(low, high), partial(self._unless_healed, act))

    def _unless_healed(self, act: Callable[[], None]) -> None:
        if not self.world.is_healing:  # the healing has taken everything back, or made it last
            act()

    def cut(self, pairs: list[Path], low: int, high: int) -> None:
        """Cut one-way paths for a while."""
        network = self.world.network
        for path in pairs:
            network.cut(*path)

        def mend() -> None:
            for path in pairs:
                network.mend(*path)

        self.later(low, high, mend)
