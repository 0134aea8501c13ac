"""The simulated networks: who reaches whom, one way at a time, with delays, losses, repetitions and disorder.

Two networks join the members (service and heartbeat); jurors, clients and fence devices are on the service network.
"""

from __future__ import annotations

from collections.abc import Iterable

from futago.sim.engine import MS, Engine

SERVICE, HEARTBEAT = "service", "heartbeat"
NETWORKS = (SERVICE, HEARTBEAT)
Path = tuple[str, str, str]  # from, to, network


class Network:
    """Which one-way paths are cut, and how slow or lossy the rest is.

    `is_calm`: nothing is cut, lost, late or repeated; then the simulation may take shorter ways.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._cuts: dict[Path, int] = {}  # how many faults cut it
        self._lossy: dict[tuple[str, str], float] = {}  # one way, on every network: share of datagrams lost
        self.loss = 0.0
        self.twice = 0.0  # share of datagrams that arrive twice, the second time later
        self.slow_ns = 0  # every packet may be later by so much: order is lost
        self.is_calm = True

    def cut(self, source: str, target: str, network: str) -> None:
        """Cut one direction of one network."""
        key = (source, target, network)
        self._cuts[key] = self._cuts.get(key, 0) + 1
        self.is_calm = False

    def mend(self, source: str, target: str, network: str) -> None:
        """Take one cut back."""
        key = (source, target, network)
        left = self._cuts.get(key, 0) - 1
        if left > 0:
            self._cuts[key] = left
        else:
            self._cuts.pop(key, None)
        self._look()

    def spoil(self, *, loss: float = 0.0, twice: float = 0.0, slow_ns: int = 0) -> None:
        """Let packets everywhere be lost, repeated, late."""
        self.loss, self.twice, self.slow_ns = loss, twice, slow_ns
        self._look()

    def spoil_way(self, source: str, target: str, loss: float) -> None:
        """Lose a share of the datagrams of one direction."""
        if loss > 0:
            self._lossy[source, target] = loss
        else:
            self._lossy.pop((source, target), None)
        self._look()

    def mend_all(self) -> None:
        """Take everything back."""
        self._cuts.clear()
        self._lossy.clear()
        self.spoil()

    def _look(self) -> None:
        self.is_calm = not (self._cuts or self._lossy or self.loss or self.twice or self.slow_ns)

    def is_open(self, source: str, target: str, network: str = SERVICE) -> bool:
        """Tell whether packets pass now in this direction."""
        return not self._cuts or (source, target, network) not in self._cuts

    def is_open_both(self, a: str, b: str, network: str = SERVICE) -> bool:
        """Tell whether a connection works."""
        return not self._cuts or ((a, b, network) not in self._cuts and (b, a, network) not in self._cuts)

    def is_clear(self, who: str, others: Iterable[str]) -> bool:
        """Tell whether nothing is wrong on the service network between one and these others."""
        if self.is_calm:
            return True
        if self.loss or self.twice or self.slow_ns or self._lossy:
            return False
        cuts = self._cuts
        return not any((who, o, SERVICE) in cuts or (o, who, SERVICE) in cuts for o in others)

    def is_joined(self, a: str, b: str) -> bool:
        """Tell whether a connection works over any network of the members."""
        return not self._cuts or any(self.is_open_both(a, b, network) for network in NETWORKS)

    def delay(self) -> int:
        """How long a packet takes."""
        late = int(self._engine.chance_of() * self.slow_ns) if self.slow_ns else 0
        return int(self._engine.chance_of() * MS) + MS // 5 + late

    def datagrams(self, source: str, target: str) -> list[int]:
        """How long each copy of a datagram takes on an open path: none if it is lost, two if it is repeated."""
        chance = self._engine.chance_of
        if self.loss and chance() < self.loss:
            return []
        if self._lossy and chance() < self._lossy.get((source, target), 0.0):
            return []
        if self.twice and chance() < self.twice:
            return [self.delay(), self.delay() + int(chance() * 400 * MS)]
        return [self.delay()]
