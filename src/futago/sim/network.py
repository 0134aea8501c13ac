"""The simulated networks: who reaches whom, one way at a time, with delays and losses.

Two networks join the members (service and heartbeat); jurors, clients and fence devices are on the service network.
"""

from __future__ import annotations

from futago.sim.engine import MS, Engine

SERVICE, HEARTBEAT = "service", "heartbeat"
NETWORKS = (SERVICE, HEARTBEAT)


class Network:
    """Which one-way paths are cut, and how slow or lossy the rest is."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._cuts: dict[tuple[str, str, str], int] = {}  # (from, to, network): how many faults cut it
        self.loss = 0.0
        self.slow_ns = 0

    def cut(self, source: str, target: str, network: str) -> None:
        """Cut one direction of one network."""
        key = (source, target, network)
        self._cuts[key] = self._cuts.get(key, 0) + 1

    def mend(self, source: str, target: str, network: str) -> None:
        """Take one cut back."""
        key = (source, target, network)
        left = self._cuts.get(key, 0) - 1
        if left > 0:
            self._cuts[key] = left
        else:
            self._cuts.pop(key, None)

    def mend_all(self) -> None:
        """Take all cuts back."""
        self._cuts.clear()
        self.loss, self.slow_ns = 0.0, 0

    def is_open(self, source: str, target: str, network: str = SERVICE) -> bool:
        """Tell whether packets pass now in this direction."""
        return not self._cuts or (source, target, network) not in self._cuts

    def is_open_both(self, a: str, b: str, network: str = SERVICE) -> bool:
        """Tell whether a connection works."""
        return not self._cuts or ((a, b, network) not in self._cuts and (b, a, network) not in self._cuts)

    def is_joined(self, a: str, b: str) -> bool:
        """Tell whether a connection works over any network of the members."""
        return any(self.is_open_both(a, b, network) for network in NETWORKS)

    def delay(self) -> int:
        """How long a packet takes."""
        return int(self._engine.random.random() * MS) + MS // 5 + self.slow_ns

    def is_lost(self) -> bool:
        """Whether this datagram is lost on an open path."""
        return self.loss > 0 and self._engine.random.random() < self.loss
