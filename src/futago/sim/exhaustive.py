"""Every reachable state of a small abstract pair, searched with the production decide().

The world: two members (abstract.py), an atomic register whose requests may be late, lost or unanswered, heartbeats
that may be old, durable writes that take time, crashes at any moment. Time is abstracted: whatever waiting could make
true (silence, a stall, an unanswered request) may become true at any step, so no property found here rests on a
clock; how often that happens is bounded. Gate, address, fence, journals and the ballots of the jury are left to the
simulator.

Checked in every state: never two members that can acknowledge (S1); whoever can acknowledge holds every acknowledged
commit (S2, I1); one view per epoch (I6); waiting is off only under an own durable solo view (I3).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from futago.cluster.decide import decide
from futago.cluster.model import (
    Action,
    Cas,
    CasRegister,
    Epoch,
    PersistIntent,
    PersistView,
    ReadRegister,
    SetWants,
    StartRejoin,
    VerifyBarrier,
    View,
)
from futago.sim.abstract import (
    BOTH,
    DIED,
    HEARING,
    LYING,
    MOODS,
    NAMES,
    NOW,
    OFF,
    ON,
    PRIMARY,
    STANDBY,
    STOPPED,
    Member,
    Seen,
    crashed,
    essential,
    facts_of,
    postgres_after,
    stopped,
    written,
)


class World(NamedTuple):
    """A state of the search. Members and views are numbers in the pools of the search."""

    members: tuple[int, int]
    register: int
    flying: frozenset[int]  # requests under way to the register: 2 * view + owner
    acked: int  # acknowledged commits, one bit each
    next_commit: int
    crashes: int
    turns: int


Change = tuple[str, str, int, int]  # (label, kind, member after, argument)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far the search goes."""

    commits: int = 1
    epochs: int = 4
    crashes: int = 1
    turns: int = 4  # how often, in all, a member's mood turns from well to something else
    states: int = 10_000_000
    seconds: float = 1e9
    is_return_checked: bool = False  # also look for states from which the pair can never be paired again


@dataclass(slots=True)
class Found:
    """What a search found."""

    states: int = 0
    is_complete: bool = False
    violation: str = ""
    trace: tuple[str, ...] = ()
    paired_again: int = 0  # states that are paired in a later epoch, after something happened
    rules: frozenset[str] = frozenset()
    seconds: float = 0.0
    dead_ends: int = 0  # states, with epochs to spare, from which no paired state can be reached
    dead_end: tuple[str, ...] = ()  # the way to one of them


# --- from state to states
# --------------------------------------------------------------------------------------------


EPOCHS_TO_RETURN = 3  # at most: to somebody's solo view, by one or by two, and to the paired one


class Search:
    """Breadth-first search over all that may happen."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.rules: set[str] = set()
        self.members: list[Member] = []
        self.views: list[View] = []
        self._member_ids: dict[Member, int] = {}
        self._view_ids: dict[View, int] = {}
        self._changes: dict[tuple[int, int, Seen | None, bool, bool], tuple[Change, ...]] = {}
        self._turns: dict[tuple[int, str], int] = {}
        self._ack_bits: dict[int, int] = {}
        self._said: dict[tuple[int, bool], Seen] = {}

    # --- pools

    def _m(self, member: Member) -> int:
        number = self._member_ids.get(member)
        if number is None:
            essence = essential(member)
            number = self._member_ids.get(essence)
            if number is None:
                number = self._member_ids[essence] = len(self.members)
                self.members.append(essence)
            self._member_ids[member] = number
        return number

    def _turned(self, number: int, kind: str) -> int:
        """The member after something that needs nobody else; remembered."""
        key = (number, kind)
        after = self._turns.get(key)
        if after is None:
            m = self.members[number]
            turned = {
                "boot": lambda: m._replace(up=True),
                "crash": lambda: crashed(m),
                "die": lambda: stopped(m, DIED),
            }[kind]()
            after = self._turns[key] = self._m(turned)
        return after

    def _v(self, view: View) -> int:
        number = self._view_ids.get(view)
        if number is None:
            number = self._view_ids[view] = len(self.views)
            self.views.append(view)
        return number

    def initial(self) -> World:
        """The pair as it is after a healthy start."""
        view = View(Epoch(1), NAMES[0], BOTH)
        base = Member(True, view, 0, PRIMARY, False, (), ON, 0, 0, None, None, view, Cas.NONE, 0, None)
        second = base._replace(pg=STANDBY, signal=True, waits=OFF)
        return World((self._m(base), self._m(second)), self._v(view), frozenset(), 0, 1, 0, 0)

    # --- search

    def run(self) -> Found:
        """Search until a violation, the end, or a bound."""
        found = Found()
        began = time.monotonic()
        start = self.initial()
        parents: dict[World, tuple[str, World] | None] = {start: None}
        queue = deque([start])
        before: dict[World, list[World]] = {}  # by which states a state is reached
        paired: list[World] = []
        while queue:
            w = queue.popleft()
            found.states += 1
            problem = self.violation(w)
            if problem:
                found.violation, found.trace = problem, _trace(parents, w)
                break
            if self.is_paired_again(w):
                found.paired_again += 1
                paired.append(w)
            for label, successor in self.successors(w):
                after = self._without_idle_requests(successor) if successor.flying else successor
                if self.bounds.is_return_checked:
                    before.setdefault(after, []).append(w)
                if after not in parents:
                    parents[after] = (label, w)
                    queue.append(after)
            if len(parents) > self.bounds.states or time.monotonic() - began > self.bounds.seconds:
                break
        else:
            found.is_complete = True
        if self.bounds.is_return_checked and found.is_complete:
            self._find_dead_ends(found, parents, before, paired)
        found.rules = frozenset(self.rules)
        found.seconds = time.monotonic() - began
        return found

    def _find_dead_ends(
        self,
        found: Found,
        parents: dict[World, tuple[str, World] | None],
        before: dict[World, list[World]],
        paired: list[World],
    ) -> None:
        """Go backwards from the paired states; what is not met, and could have gone on within the bounds, is a dead end."""
        good = set(paired)
        queue = deque(paired)
        while queue:
            for w in before.get(queue.popleft(), ()):
                if w not in good:
                    good.add(w)
                    queue.append(w)
        for w in parents:
            if w not in good and self._has_epochs_left(w):
                found.dead_ends += 1
                found.dead_end = found.dead_end or _trace(parents, w)

    def _has_epochs_left(self, w: World) -> bool:
        a, b = self.member(w, 0), self.member(w, 1)
        highest = max(a.view.epoch, b.view.epoch, self.views[w.register].epoch, a.intent, b.intent)
        return highest <= self.bounds.epochs - EPOCHS_TO_RETURN and w.turns < self.bounds.turns

    def member(self, w: World, i: int) -> Member:
        """Member `i` of a state."""
        return self.members[w.members[i]]

    def streams(self, w: World, standby: int) -> bool:
        """The member is a standby whose log is a prefix of the running primary's."""
        m, p = self.member(w, standby), self.member(w, 1 - standby)
        return m.pg == STANDBY and p.pg == PRIMARY and m.up and p.up and p.wal[: len(m.wal)] == m.wal

    def successors(self, w: World) -> Iterator[tuple[str, World]]:
        """Everything that may happen next, named."""
        streaming = (self.streams(w, 0), self.streams(w, 1))
        for i in (0, 1):
            m, number = self.member(w, i), w.members[i]
            if not m.up:
                yield f"boot {NAMES[i]}", self._with(w, i, self._turned(number, "boot"))
                continue
            yield from self._breakdowns(w, i, m)
            yield from self._mood_changes(w, i, m)
            yield from self._replication(w, i, m, peer_streams=streaming[1 - i])
            for flight in w.flying:
                if flight & 1 == i:
                    yield from self._arrivals(w, i, m, flight)
            seen = self._said_by(w.members[1 - i], streaming[1 - i]) if m.mood in HEARING else m.seen
            key = (i, number, seen, streaming[1 - i], streaming[i])
            changes = self._changes.get(key)
            if changes is None:
                changes = self._changes[key] = tuple(self._member_changes(*key))
            for label, kind, after, argument in changes:
                world = self._apply(w, i, kind, after, argument)
                if world is not None:
                    yield label, world

    def _without_idle_requests(self, w: World) -> World:
        """Forget requests whose arrival would change nothing: too low an epoch, and nobody waits for the answer."""
        lowest = self.views[w.register].epoch
        kept = frozenset(f for f in w.flying if self.views[f >> 1].epoch > lowest or self._is_awaited(w, f))
        return w if len(kept) == len(w.flying) else w._replace(flying=kept)

    def _is_awaited(self, w: World, flight: int) -> bool:
        owner = self.member(w, flight & 1)
        return owner.cas is Cas.PENDING and owner.cas_epoch == self.views[flight >> 1].epoch

    def _with(self, w: World, i: int, member: int) -> World:
        """Put the member in, and acknowledge all that may be acknowledged: the earliest acknowledgement is the worst."""
        pair = (member, w.members[1]) if i == 0 else (w.members[0], member)
        acked = w.acked | self._acks(member)
        return World(pair, w.register, w.flying, acked, w.next_commit, w.crashes, w.turns)

    def _acks(self, member: int) -> int:
        bits = self._ack_bits.get(member)
        if bits is None:
            m = self.members[member]
            done = () if not m.up or m.pg != PRIMARY else m.wal if m.waits != ON else m.wal[: m.confirmed]
            bits = self._ack_bits[member] = sum(1 << c for c in done)
        return bits

    # --- what happens to members

    def _breakdowns(self, w: World, i: int, m: Member) -> Iterator[tuple[str, World]]:
        if w.crashes >= self.bounds.crashes:
            return
        j = 1 - i
        other = self.member(w, j)
        broken = w._replace(crashes=w.crashes + 1)
        after = self._with(broken, i, self._turned(w.members[i], "crash"))
        if other.up and other.mood in HEARING:  # what it heard last stays
            said = self._said_by(w.members[i], self.streams(w, i))
            after = self._with(after, j, self._m(other._replace(mood="lagging", seen=said)))
        yield f"crash {NAMES[i]}", after
        if m.pg == PRIMARY:
            yield f"postgres of {NAMES[i]} dies", self._with(broken, i, self._turned(w.members[i], "die"))

    def _mood_changes(self, w: World, i: int, m: Member) -> Iterator[tuple[str, World]]:
        is_other_up = self.member(w, 1 - i).up
        for mood in MOODS:
            is_deaf = mood not in HEARING
            if mood == m.mood or not (is_other_up or is_deaf):
                continue
            cost = 0 if mood == "well" or (not is_other_up and is_deaf) else 1
            if w.turns + cost > self.bounds.turns:
                continue
            seen = None
            if is_deaf:
                hears_now = m.mood in HEARING
                seen = self._said_by(w.members[1 - i], self.streams(w, 1 - i)) if hears_now else m.seen
            after = self._m(m._replace(mood=mood, seen=seen))
            yield f"{NAMES[i]} is {mood}", self._with(w._replace(turns=w.turns + cost), i, after)

    def _replication(self, w: World, i: int, m: Member, *, peer_streams: bool) -> Iterator[tuple[str, World]]:
        if m.pg != PRIMARY:
            return
        j = 1 - i
        standby = self.member(w, j)
        if w.next_commit <= self.bounds.commits:
            grown = w._replace(next_commit=w.next_commit + 1)
            longer = self._m(m._replace(wal=(*m.wal, w.next_commit)))
            yield f"commit {w.next_commit} on {NAMES[i]}", self._with(grown, i, longer)
        if peer_streams and (len(standby.wal) < len(m.wal) or m.confirmed < len(standby.wal)):
            received = m.wal[: len(standby.wal) + 1]
            after = self._with(w, j, self._m(standby._replace(wal=received)))
            yield f"{NAMES[j]} receives", self._with(after, i, self._m(m._replace(confirmed=len(received))))

    def _said_by(self, speaker: int, speaker_streams: bool) -> Seen:
        said = self._said.get((speaker, speaker_streams))
        if said is None:
            s = self.members[speaker]
            pg = STOPPED if s.pg == DIED else s.pg
            said = self._said[speaker, speaker_streams] = Seen(s.view, s.intent, s.wants, pg, speaker_streams)
        return said

    def _arrivals(self, w: World, i: int, m: Member, flight: int) -> Iterator[tuple[str, World]]:
        view = self.views[flight >> 1]
        stored = flight >> 1 if self.views[w.register].epoch < view.epoch else w.register
        yield (
            f"{NAMES[i]}'s request {view.epoch} arrives, unanswered",
            w._replace(register=stored, flying=w.flying - {flight}),
        )
        if m.cas is Cas.PENDING and m.cas_epoch == view.epoch:
            done = Cas.DONE if stored == flight >> 1 else Cas.REFUSED
            rest = frozenset(f for f in w.flying if f & 1 != i)  # a put that ended makes the earlier ones void
            answered = self._m(m._replace(cas=done, known=self.views[stored]))
            world = self._with(w._replace(register=stored, flying=rest), i, answered)
            yield f"{NAMES[i]}'s request {view.epoch} is answered", world

    # --- what members do

    def _apply(self, w: World, i: int, kind: str, after: int, argument: int) -> World | None:
        """Return the world after one change of a member; None where the world does not allow it."""
        m, other = self.member(w, i), self.member(w, 1 - i)
        turned: Member | None = None
        match kind:
            case "self":
                return self._with(w, i, after)
            case "ask":
                return self._with(w._replace(flying=w.flying | {2 * argument + i}), i, after)
            case "read":
                turned = m._replace(known=self.views[w.register])
            case "prove":
                if other.wal == m.wal and m.barrier != argument:
                    turned = m._replace(barrier=argument, confirmed=len(m.wal))
            case "effect":  # waiting for the peer takes effect
                turned = m._replace(waits=ON, confirmed=len(other.wal) if self.streams(w, 1 - i) else 0)
            case "rejoin":
                if other.up and other.pg == PRIMARY:
                    turned = m._replace(pg=STANDBY, signal=True, wal=_common(m.wal, other.wal))
        return None if turned is None else self._with(w, i, self._m(turned))

    def _member_changes(
        self, i: int, number: int, seen: Seen | None, peer_streams: bool, streams: bool
    ) -> Iterator[Change]:
        """What this member may do by itself: finish what is under way, or begin what it decides."""
        m, me = self.members[number], NAMES[i]
        if m.writing is not None:
            yield f"{me} has written {_short(m.writing)}", "self", self._m(written(m)), 0
        if m.cas is Cas.PENDING:
            yield f"{me} gives up waiting for the register", "self", self._m(m._replace(cas=Cas.UNKNOWN)), 0
        if m.pg == PRIMARY and m.waits == LYING:
            yield f"waiting of {me} takes effect", "effect", number, 0
        d = decide(facts_of(i, m, seen, peer_streams=peer_streams, streams=streams), NOW)
        self.rules.add(d.rule)
        for action in d.actions:
            yield from self._effect(m, action, f"{me} {d.rule}: {_short(action)}", peer_streams)

    def _effect(self, m: Member, action: Action, label: str, peer_streams: bool) -> Iterator[Change]:
        """The executor's effect of one action, within the bounds."""
        match action:
            case PersistView() | PersistIntent():
                epoch = action.view.epoch if isinstance(action, PersistView) else action.epoch
                if m.writing is None and epoch <= self.bounds.epochs:
                    yield label, "self", self._m(m._replace(writing=action)), 0
            case ReadRegister():
                yield label, "read", 0, 0
            case CasRegister(view=view) if m.cas is not Cas.PENDING:
                asked = m._replace(cas=Cas.PENDING, cas_epoch=view.epoch)
                yield label, "ask", self._m(asked), self._v(view)
            case SetWants(wants=wants):
                yield label, "self", self._m(m._replace(wants=wants)), 0
            case VerifyBarrier(epoch=epoch) if m.pg == PRIMARY and m.waits == ON and peer_streams:
                yield label, "prove", 0, epoch
            case StartRejoin() if m.pg != PRIMARY:
                yield label, "rejoin", 0, 0
            case _:
                after = postgres_after(m, action)
                if after is not None and after != m:
                    yield label, "self", self._m(after), 0

    # --- checks

    def violation(self, w: World) -> str:
        """Name the invariant that this state breaks; empty if none."""
        can = [False, False]
        for i in (0, 1):
            m = self.member(w, i)
            if not (m.up and m.pg == PRIMARY):
                continue
            if m.waits == OFF and m.view.insync != frozenset((NAMES[i],)):
                return f"I3: {NAMES[i]} does not wait, and its durable view {m.view.epoch} is not its own solo view"
            can[i] = m.waits != ON or self.streams(w, 1 - i)
            if can[i] and w.acked & ~sum(1 << c for c in m.wal):
                return f"S2: {NAMES[i]} can acknowledge and lacks acknowledged commits"
        if can[0] and can[1]:
            return "S1: both members can acknowledge"
        views = (self.member(w, 0).view, self.member(w, 1).view, self.views[w.register])
        for x, y in ((0, 1), (0, 2), (1, 2)):
            a, b = views[x], views[y]
            if a.epoch == b.epoch and (a.primary, a.insync) != (b.primary, b.insync):
                return f"I6: two views in epoch {a.epoch}"
        return ""

    def is_paired_again(self, w: World) -> bool:
        """Tell whether both members are up in one later paired view with a waiting primary."""
        a, b = self.member(w, 0), self.member(w, 1)
        is_paired = a.up and b.up and a.view == b.view and a.view.insync == BOTH and a.view.epoch > 1
        return is_paired and any(m.pg == PRIMARY and m.waits == ON for m in (a, b))


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The part of two logs that is the same."""
    same = 0
    while same < min(len(a), len(b)) and a[same] == b[same]:
        same += 1
    return a[:same]


def _short(action: Action) -> str:
    match action:
        case PersistView(view=v) | CasRegister(view=v):
            return f"{type(action).__name__}({v.epoch}, {v.primary}, {{{', '.join(sorted(v.insync))}}})"
        case SetWants(wants=wants):
            return f"SetWants({wants.kind} {wants.epoch})" if wants else "SetWants(nothing)"
        case _:
            return str(action)


def _trace(parents: dict[World, tuple[str, World] | None], w: World) -> tuple[str, ...]:
    steps: list[str] = []
    step = parents[w]
    while step is not None:
        steps.append(step[0])
        step = parents[step[1]]
    return tuple(reversed(steps))


def search(bounds: Bounds) -> Found:
    """Search every state within the bounds."""
    return Search(bounds).run()
