"""Brings the receive times of two members, and of several boots of each, onto one axis. Pure.

Each receiver stamps with a steady clock that begins anew with each boot of its machine: a *timeline*. Two timelines are
tied together by what the receivers measured over the journal sync and noted in their marks; before the first
measurement by the wall clocks, taken to agree. A timeline that was tied stays; the younger one is moved.
"""

from __future__ import annotations

import msgspec

from futago.intake.model import Mark

TIMELINES_MAX = 8


class Timeline(msgspec.Struct):
    """One boot of one member. Time on the common axis = receive time - `shift_ns`."""

    member: str
    zero_ns: int
    shift_ns: int = 0
    wall_ahead_ns: int = 0
    is_tied: bool = False  # by measurement, or because it was the first


class Timelines:
    """All timelines that still matter.

    Args:
        known: from the stored state, oldest first.
    """

    def __init__(self, known: list[Timeline]) -> None:
        self.known = known

    def shift(self, member: str, zero_ns: int) -> int:
        """Return what to take off a receive time; a timeline never met before is tied by the wall clocks."""
        return self._timeline(member, zero_ns).shift_ns

    def wall_ahead(self, member: str, zero_ns: int) -> int:
        """Return what to add to a receive time to get the wall clock's, as last noted."""
        return self._timeline(member, zero_ns).wall_ahead_ns

    def learn(self, member: str, zero_ns: int, other: str, mark: Mark) -> None:
        """Take a mark of `member` into account; `other` is "" while no peer is known."""
        mine = self._timeline(member, zero_ns)
        mine.wall_ahead_ns = mark.wall_ahead_ns
        if not mine.is_tied:
            self._tie_by_wall(mine)
        if not other or mark.peer_zero_ns is None or mark.peer_ahead_ns is None:
            return
        theirs = self._timeline(other, mark.peer_zero_ns)
        if self._moves(mine, theirs):
            mine.shift_ns = theirs.shift_ns - mark.peer_ahead_ns
            mine.is_tied = True
        else:
            theirs.shift_ns = mine.shift_ns + mark.peer_ahead_ns
            theirs.is_tied = True

    def _moves(self, mine: Timeline, theirs: Timeline) -> bool:
        if mine.is_tied != theirs.is_tied:
            return theirs.is_tied
        return self.known.index(mine) > self.known.index(theirs)

    def _timeline(self, member: str, zero_ns: int) -> Timeline:
        for one in self.known:
            if one.zero_ns == zero_ns and one.member == member:
                return one
        new = Timeline(member, zero_ns, is_tied=not self.known)
        self._tie_by_wall(new)
        self.known.append(new)
        while len(self.known) > TIMELINES_MAX:
            del self.known[0]
        return new

    def _tie_by_wall(self, new: Timeline) -> None:
        reference = next((one for one in reversed(self.known) if one.is_tied and one is not new), None)
        if reference is not None and not new.is_tied:
            new.shift_ns = reference.shift_ns + reference.wall_ahead_ns - new.wall_ahead_ns
