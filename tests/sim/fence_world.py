"""The exhaustive search where the fence device decides: no register, and a shot that takes time, lands, or fails.

What is added to the world of futago.sim.exhaustive: a member remembers in this boot which view both had (met), the
shot that it ordered and the "off" that it was told; a shot that lands powers the other member off at any moment, in the
middle of whatever it does; whoever is off may be powered on by anybody at any moment. The delay between two shots is
not modelled: both may shoot whenever they may at all, so no safety found here rests on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from futago.cluster.decide import decide
from futago.cluster.model import (
    Action,
    Cas,
    Epoch,
    Facts,
    Fence,
    FenceOff,
    FenceOutcome,
    NoteMet,
    PersistIntent,
    PersistView,
    Register,
    View,
    Wants,
)
from futago.sim.abstract import (
    BOTH,
    FRESH,
    HEARING,
    LONG,
    NAMES,
    NOW,
    ON,
    PRIMARY,
    STANDBY,
    Member,
    Seen,
    crashed,
    facts_of,
    written,
)
from futago.sim.exhaustive import Bounds, Change, Search, World


class FencedMember(NamedTuple):
    """As abstract.Member, field for field, and what the fence adds."""

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
    met: int = 0
    shooting: int = 0  # the epoch for which a shot is under way
    off: int = 0  # the epoch for which the device said off, since the other was last heard


assert FencedMember._fields[: len(Member._fields)] == Member._fields


def fenced_facts(i: int, m: FencedMember, seen: Seen | None, *, peer_streams: bool, streams: bool) -> Facts:
    """Return what the member knows."""
    facts = facts_of(i, m, seen, peer_streams=peer_streams, streams=streams)  # type: ignore[arg-type]
    outcome = FenceOutcome.PENDING if m.shooting else FenceOutcome.OFF if m.off else FenceOutcome.NONE
    heard = facts.peer.heartbeat
    said = None if heard is None else replace(heard, authority="fence")
    return replace(
        facts,
        cfg=replace(facts.cfg, authority="fence"),
        register=Register(),
        peer=replace(facts.peer, heartbeat=said),
        fence=Fence(True, outcome, Epoch(m.shooting or m.off), NOW, has_power=True, power_at=LONG, asked_at=FRESH),
        met_epoch=Epoch(m.met),
    )


class FencedSearch(Search):
    """Search where the fence decides. `is_gullible`: a proof is kept although the other member is heard again."""

    is_gullible = False

    def initial(self) -> World:
        """The pair after a healthy start: each has heard that the other has the view."""
        view = View(Epoch(1), NAMES[0], BOTH)
        base = FencedMember(True, view, 0, PRIMARY, False, (), ON, 0, 0, None, None, None, Cas.NONE, 0, None, met=1)
        second = base._replace(pg=STANDBY, signal=True, waits=0)
        return World((self._m(base), self._m(second)), self._v(View(Epoch(0), NAMES[0], BOTH)), frozenset(), 0, 1, 0, 0)  # type: ignore[arg-type]

    def _turned(self, number: int, kind: str) -> int:
        if kind != "crash":
            return super()._turned(number, kind)
        m: FencedMember = crashed(self.members[number])  # type: ignore[assignment]
        return self._m(m._replace(met=0, shooting=0, off=0))  # type: ignore[arg-type]

    def successors(self, w: World) -> Iterator[tuple[str, World]]:
        yield from super().successors(w)
        for i in (0, 1):
            m: FencedMember = self.member(w, i)  # type: ignore[assignment]
            if m.up and m.shooting:
                yield from self._ends_of_shot(w, i, m)

    def _ends_of_shot(self, w: World, i: int, m: FencedMember) -> Iterator[tuple[str, World]]:
        missed = self._m(m._replace(shooting=0))  # type: ignore[arg-type]
        yield f"{NAMES[i]}'s shot fails", self._with(w, i, missed)
        j, other = 1 - i, self.member(w, 1 - i)
        said = self._said_by(w.members[j], self.streams(w, j))
        after = m._replace(shooting=0, off=m.shooting)
        if m.mood in HEARING:  # what it heard last stays; nothing more is heard
            after = after._replace(mood="lagging", seen=said)
        shot = self._turned(w.members[j], "crash") if other.up else w.members[j]
        yield f"{NAMES[i]}'s shot lands", self._with(self._with(w, j, shot), i, self._m(after))  # type: ignore[arg-type]

    def _mood_changes(self, w: World, i: int, m: Member) -> Iterator[tuple[str, World]]:
        """Who is heard again is not proved off any more; nor is who hears us, since only an answer to a word of this boot
        is believed (link/heartbeat.py), and that answer was heard by the other one first.
        """
        for label, after in super()._mood_changes(w, i, m):
            world = after
            if self.member(after, i).mood in HEARING and not self.is_gullible:
                for k in (0, 1):
                    turned: FencedMember = self.member(world, k)  # type: ignore[assignment]
                    if turned.off:
                        world = self._with(world, k, self._m(turned._replace(off=0)))  # type: ignore[arg-type]
            yield label, world

    def _member_changes(
        self, i: int, number: int, seen: Seen | None, peer_streams: bool, streams: bool
    ) -> Iterator[Change]:
        m: FencedMember = self.members[number]  # type: ignore[assignment]
        me = NAMES[i]
        if m.writing is not None:
            after: FencedMember = written(m)  # type: ignore[arg-type,assignment]
            if after.view.primary == me and after.view.insync == BOTH and after.view != m.view:
                after = after._replace(met=after.view.epoch)
            yield f"{me} has written", "self", self._m(after), 0  # type: ignore[arg-type]
        if m.pg == PRIMARY and m.waits == 1:
            yield f"waiting of {me} takes effect", "effect", number, 0
        d = decide(fenced_facts(i, m, seen, peer_streams=peer_streams, streams=streams), NOW)
        self.rules.add(d.rule)
        for action in d.actions:
            yield from self._effect(m, action, f"{me} {d.rule}: {type(action).__name__}", peer_streams)  # type: ignore[arg-type]

    def _effect(self, m: Member, action: Action, label: str, peer_streams: bool) -> Iterator[Change]:
        f: FencedMember = m  # type: ignore[assignment]
        match action:
            case FenceOff(epoch=epoch) if not f.shooting and epoch <= self.bounds.epochs:
                yield label, "self", self._m(f._replace(shooting=epoch, off=0)), 0  # type: ignore[arg-type]
            case NoteMet(epoch=epoch) if f.met != epoch:
                yield label, "self", self._m(f._replace(met=epoch)), 0  # type: ignore[arg-type]
            case FenceOff() | NoteMet():
                return
            case _:
                yield from super()._effect(m, action, label, peer_streams)


def search(bounds: Bounds) -> FencedSearch:
    """Return a search that is ready to run."""
    return FencedSearch(bounds)
