"""The exhaustive search where a member may lose its data, at any moment in which the other one has everything.

More than that no protocol mends. A member that has made durable that it serves alone does not lose them: then a person has to say which data count.
"""

from __future__ import annotations

from collections.abc import Iterator

from futago.sim.abstract import ABSENT, NAMES, Member, stopped
from futago.sim.exhaustive import Search, World


class DataSearch(Search):
    """Search with losses of data; `losses` are made in all, beside the crashes."""

    losses = 1

    def successors(self, w: World) -> Iterator[tuple[str, World]]:
        yield from super().successors(w)
        if w.crashes >= self.bounds.crashes + self.losses:
            return
        for i in (0, 1):
            m, other = self.member(w, i), self.member(w, 1 - i)
            if m.up and other.pg != ABSENT and self._is_spare(w, i, m, other):
                bare = stopped(m, ABSENT)._replace(wal=(), signal=False)
                yield f"{NAMES[i]} loses its data", self._with(w._replace(crashes=w.crashes + 1), i, self._m(bare))

    def _is_spare(self, w: World, i: int, m: Member, other: Member) -> bool:
        """The other one has all that was acknowledged, and this one has not gone on, or been voted to go on, without it."""
        has_all = not w.acked & ~sum(1 << c for c in other.wal)
        alone = frozenset((NAMES[i],))
        is_voted = any(self.views[v].insync == alone for v in (w.register, *(f >> 1 for f in w.flying)))
        return has_all and m.pg != ABSENT and m.view.insync != alone and not is_voted
