"""The invariants, watched from outside the members, with knowledge that no member has.

S1 one writer · S2 durability of what was acknowledged or shown · S5 outward effects on one side only · I3 waiting is off only under an own durable
solo view · I5 the gate · I6 one view per epoch, epochs never fall · I8 nothing is destroyed that counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from futago.cluster.model import MemberName, RejoinStep, View
from futago.cluster.situation import OUTWARD_MARGIN_NS
from futago.sim.engine import MS, Engine

if TYPE_CHECKING:
    from futago.sim.member import SimMember

ROLE_STALE_NS = 2_000_000_000  # a program that heard no role line for this long acts no more


class Violation(Exception):
    """An invariant is broken."""


class Checker:
    """Watches both members."""

    def __init__(self, engine: Engine, members: Callable[[], tuple[SimMember, SimMember]]) -> None:
        self._engine = engine
        self._members = members
        self.acked: set[int] = set()  # acknowledged to clients
        self.shown: set[int] = set()  # seen by readers
        self._views: dict[int, tuple[MemberName, frozenset[MemberName]]] = {}
        self.acks_total = 0

    def fail(self, invariant: str, what: str) -> None:
        """Report a broken invariant."""
        raise Violation(f"{invariant}: {what} (at {self._engine.now / 1e9:.3f} s)")

    def on_ack(self, member: SimMember, number: int) -> None:
        """A client was told that its commit is done."""
        self.acked.add(number)
        self.acks_total += 1
        other = member.other
        if other.db.can_acknowledge and number not in other.db.wal:
            self.fail("S2", f"{member.name} acknowledged {number}, and {other.name} can acknowledge without having it")

    def on_read(self, member: SimMember) -> None:
        """A client was shown everything visible."""
        db = member.db
        visible = db.visible
        if db.observed < visible:
            self.shown.update(db.wal[db.observed : visible])
            db.observed = visible

    def on_role(self) -> None:
        """Some database began or ended to commit, or to wait."""
        able = [m for m in self._members() if m.db.can_acknowledge]
        if len(able) == 2:
            self.fail("S1", "both members can acknowledge commits")
        for m in able:
            have = set(m.db.wal)
            if not self.acked <= have:
                self.fail("S2", f"{m.name} can acknowledge and lacks {sorted(self.acked - have)[:5]}")
            if not self.shown <= have:
                self.fail("S2", f"{m.name} can acknowledge and lacks shown {sorted(self.shown - have)[:5]}")
            view = m.disk.view
            if not m.db.waits and (view is None or view.insync != frozenset((m.name,))):
                self.fail("I3", f"{m.name} does not wait for the peer under {view}")

    def on_view(self, member: SimMember, before: View | None, view: View) -> None:
        """A view became durable on a member."""
        if before is not None and view.epoch <= before.epoch:
            self.fail("I6", f"{member.name} goes from epoch {before.epoch} to {view.epoch}")
        if member.name in view.insync and member.db.is_half_made and member.v.rejoin.step is RejoinStep.RUNNING:
            self.fail("I8", f"{member.name} makes a view durable that counts on data that are being replaced")
        self.see_view(view)
        self.on_role()

    def see_view(self, view: View) -> None:
        """A view exists: on a member or in the register."""
        content = (view.primary, view.insync)
        if self._views.setdefault(view.epoch, content) != content:
            self.fail("I6", f"two views in epoch {view.epoch}: {self._views[view.epoch]} and {content}")

    def on_gate_open(self, member: SimMember) -> None:
        """A gate was opened."""
        db, view = member.db, member.disk.view
        if view is None or view.primary != member.name:
            self.fail("I5", f"{member.name} opens its gate under {view}")
            return
        if view.is_solo:
            return
        if not (db.waits and db.is_caught_up):
            self.fail("I5", f"{member.name} opens its gate while paired before the peer has everything")

    def on_destroy(self, member: SimMember) -> None:
        """A destructive step of recovery begins."""
        view = member.disk.view
        if view is None or member.name in view.insync:
            self.fail("I8", f"{member.name} overwrites data that count in {view}")

    def on_outward(self) -> None:
        """Somebody was allowed to act outward, or took the address.

        A power device that says "off" and lies is believed, which is promised to go wrong for as long as a member without
        contact keeps its address (docs/operations/fencing.md). Until then S5 is not asked, and at its end it is.
        """
        a, b = self._members()
        what = "act outward" if a.is_outward and b.is_outward else ""
        what = what or ("answer for the floating address" if a.answers_address and b.answers_address else "")
        if not what:
            return
        until = max(_misled_until(a), _misled_until(b))
        if until <= self._engine.now:
            self.fail("S5", f"both members {what}")
        self._engine.at(until, self.on_outward)


def _misled_until(m: SimMember) -> int:
    """Until when the other one may still believe that it serves, where the device of the other one lied to this winner."""
    view = m.disk.view
    if m.lied_at is None or view is None or not view.is_solo or view.primary != m.name:
        return 0
    return m.lied_at + m.cfg.t_self + OUTWARD_MARGIN_NS


THAW_GRACE_NS = 300 * MS  # pair-protocol 24: after a freeze the controller needs a moment to take the address down
