"""What had its effect, as the receivers know it: told by the local manager or by the other receiver, used to prune.

Positions only grow. Bounded: of each member the newest incarnations only.
"""

from __future__ import annotations

from collections.abc import Mapping

INCARNATIONS_MAX = 64


class Consumed:
    """Positions up to which the effects of messages are committed, by member and incarnation."""

    def __init__(self, *, me: str) -> None:
        self._me = me
        self.positions: dict[str, dict[str, int]] = {}

    def learn(self, positions: Mapping[str, Mapping[str, int]]) -> None:
        """Take what someone knows into account."""
        for member, known in positions.items():
            mine = self.positions.setdefault(member, {})
            for incarnation, sequence in known.items():
                if sequence > mine.get(incarnation, 0):
                    mine[incarnation] = sequence
            while len(mine) > INCARNATIONS_MAX:
                del mine[next(iter(mine))]

    def of(self, member: str) -> Mapping[str, int]:
        """Return what is known of one member's stream."""
        return self.positions.get(member, {})

    def of_others(self) -> Mapping[str, int]:
        """Return what is known of the other member's stream."""
        return {i: s for member, known in self.positions.items() if member != self._me for i, s in known.items()}

    def behind(self, have: Mapping[str, int]) -> dict[str, int]:
        """Return where to begin to send: behind what the copy has, and behind what had its effect."""
        mine = self.of(self._me)
        return {i: max(have.get(i, 0), mine.get(i, 0)) for i in {*have, *mine}}
