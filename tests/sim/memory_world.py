"""The exhaustive search where there is no third vote at all, and a member may lose its memory, or memory and data.

What is added to fence_world: a crash after which a member knows no view any more; its data volume is gone too, or is
left. Only losses are made that leave every acknowledged commit on the other member: more than that no protocol mends.
No shots are fired: there is no device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from fence_world import FencedSearch

from futago.cluster.decide import decide
from futago.cluster.model import (
    Cas,
    Facts,
    Fence,
    PersistIntent,
    PersistView,
    PgState,
    Register,
    View,
    Wants,
)
from futago.sim.abstract import (
    BOTH,
    LONG,
    NAMES,
    NOW,
    OLDER,
    ON,
    PRIMARY,
    STANDBY,
    Member,
    Seen,
    crashed,
    facts_of,
    written,
)
from futago.sim.exhaustive import Change, World


class Forgetful(NamedTuple):
    """As abstract.Member, field for field, and what may be lost."""

    up: bool
    view: View
    intent: int
    pg: str
    signal: bool
    wal: tuple[int, ...]
    waits: int
    confirmed: int
    barrier: int
    wants: Wants | None
    seen: Seen | None
    known: View | None
    cas: Cas
    cas_epoch: int
    writing: PersistView | PersistIntent | None
    mood: str = "well"
    blank: bool = False  # it knows no view; `view` stands for nothing then
    empty: bool = False  # it has no data


def forgetful_facts(
    i: int, m: Forgetful, seen: Seen | None, *, peer_streams: bool, streams: bool, is_hasty: bool
) -> Facts:
    """Return what the member knows. `is_hasty`: it is not told that a write is under way."""
    facts = facts_of(i, m, seen, peer_streams=peer_streams, streams=streams)  # type: ignore[arg-type]
    is_stranger = seen is not None and seen.view is None and m.mood in ("stalled", "lagging")
    peer = replace(facts.peer, unfit_since=LONG if is_stranger else facts.peer.unfit_since)
    if peer.heartbeat is not None and peer.heartbeat.view is None:
        peer = replace(peer, heartbeat=replace(peer.heartbeat, is_fit=False))
    pg = replace(facts.pg, state=PgState.ABSENT) if m.empty and m.pg != STANDBY else facts.pg
    durable = replace(facts.durable, view=None) if m.blank else facts.durable
    if is_hasty:
        durable = replace(durable, is_writing=False)
    return replace(facts, register=Register(), fence=Fence(), peer=peer, pg=pg, durable=durable)


class MemorySearch(FencedSearch):
    """Search where nothing but the two members votes. `is_hasty`: nobody minds a write that is under way."""

    is_hasty = False

    losses = 1  # how often, in all, memory is lost; counted with the crashes

    def initial(self) -> World:
        """The pair after a healthy start."""
        view = View(OLDER.epoch + 1, NAMES[0], BOTH)  # type: ignore[arg-type]
        base = Forgetful(True, view, 0, PRIMARY, False, (), ON, 0, 0, None, None, None, Cas.NONE, 0, None)
        second = base._replace(pg=STANDBY, signal=True, waits=0)
        return World((self._m(base), self._m(second)), self._v(OLDER), frozenset(), 0, 1, 0, 0)  # type: ignore[arg-type]

    def _turned(self, number: int, kind: str) -> int:
        if kind != "crash":
            return super(FencedSearch, self)._turned(number, kind)
        return self._m(crashed(self.members[number]))

    def successors(self, w: World) -> Iterator[tuple[str, World]]:
        yield from super(FencedSearch, self).successors(w)
        if w.crashes >= self.bounds.crashes + self.losses:
            return
        for i in (0, 1):
            m: Forgetful = self.member(w, i)  # type: ignore[assignment]
            other = self.member(w, 1 - i)
            has_all = not w.acked & ~sum(1 << c for c in other.wal)
            if m.blank or not has_all:
                continue
            for loses_data in (True, False):
                bare: Forgetful = crashed(m)  # type: ignore[arg-type,assignment]
                bare = bare._replace(view=OLDER, intent=0, blank=True)
                if loses_data:
                    bare = bare._replace(empty=True, wal=(), signal=False)
                after = self._with(w._replace(crashes=w.crashes + 1), i, self._m(bare))  # type: ignore[arg-type]
                j: Forgetful = other  # type: ignore[assignment]
                if other.up and other.mood in ("well", "stalled", "switchover"):
                    said = self._said_by(w.members[i], self.streams(w, i))
                    after = self._with(after, 1 - i, self._m(j._replace(mood="lagging", seen=said)))  # type: ignore[arg-type]
                yield f"{NAMES[i]} loses its memory{' and data' if loses_data else ''}", after

    def _mood_changes(self, w: World, i: int, m: Member) -> Iterator[tuple[str, World]]:
        yield from super(FencedSearch, self)._mood_changes(w, i, m)

    def _said_by(self, speaker: int, speaker_streams: bool) -> Seen:
        said = super()._said_by(speaker, speaker_streams)
        s: Forgetful = self.members[speaker]  # type: ignore[assignment]
        return said._replace(view=None) if s.blank else said

    def _member_changes(
        self, i: int, number: int, seen: Seen | None, peer_streams: bool, streams: bool
    ) -> Iterator[Change]:
        m: Forgetful = self.members[number]  # type: ignore[assignment]
        me = NAMES[i]
        if m.writing is not None:
            after: Forgetful = written(m)  # type: ignore[arg-type,assignment]
            yield f"{me} has written", "self", self._m(after._replace(blank=False)), 0  # type: ignore[arg-type]
        if m.pg == PRIMARY and m.waits == 1:
            yield f"waiting of {me} takes effect", "effect", number, 0
        facts = forgetful_facts(i, m, seen, peer_streams=peer_streams, streams=streams, is_hasty=self.is_hasty)
        d = decide(facts, NOW)
        self.rules.add(d.rule)
        for action in d.actions:
            label = f"{me} {d.rule}: {type(action).__name__}"
            yield from super(FencedSearch, self)._effect(m, action, label, peer_streams)  # type: ignore[arg-type]

    def _apply(self, w: World, i: int, kind: str, after: int, argument: int) -> World | None:
        world = super()._apply(w, i, kind, after, argument)
        if world is None or kind != "rejoin":
            return world
        m: Forgetful = self.member(world, i)  # type: ignore[assignment]
        return self._with(world, i, self._m(m._replace(empty=False)))  # type: ignore[arg-type]


assert Forgetful._fields[: len(Member._fields)] == Member._fields
