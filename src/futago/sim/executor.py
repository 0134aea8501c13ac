"""The simulated executor: carries out what decide() orders, late, and forgetfully when the controller dies in between.

An order is a task with a key; the same key in flight is ignored. A durable write that is cut short by the death of the controller may have happened.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from futago.cluster.model import (
    Action,
    AskPower,
    At,
    Cas,
    CasRegister,
    Durable,
    Enforce,
    Epoch,
    FenceOff,
    FenceOn,
    FenceOutcome,
    HoldAddress,
    KillPg,
    NoteMet,
    Op,
    OpDone,
    PersistIntent,
    PersistStopped,
    PersistView,
    PgState,
    Promote,
    ReadRegister,
    SetGate,
    SetWants,
    StartPg,
    StartRejoin,
    StopPg,
    VerifyBarrier,
    View,
)
from futago.register.ballot import Outcome, Proposal, value_of, view_of
from futago.sim.engine import MS, Engine, S
from futago.sim.jury import Asking
from futago.sim.ladder import SimLadder
from futago.sim.senses import ABLE_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    from futago.sim.member import SimMember
    from futago.sim.world import World

READ_NS, PUT_NS = 1 * S, 3 * S // 2
BARRIER_NS = 3 * S
UNENFORCE_NS = 2 * S


def key_of(action: Action) -> str:
    """Two orders with one key are never carried out at once."""
    if isinstance(action, PersistView | PersistIntent | PersistStopped):
        return "disk"
    if isinstance(action, FenceOff | FenceOn):
        return "fence"
    return type(action).__name__


class Executor:
    """Carries out orders for both members."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.engine: Engine = world.engine
        self.ladder = SimLadder(world, start=self._start, done=self._done)

    def perform(self, m: SimMember, action: Action) -> None:  # noqa: PLR0912  a table of orders
        """Begin to carry out one order, unless one like it is under way."""
        key = key_of(action)
        if key in m.v.busy:
            return
        m.v.busy.add(key)
        if self.engine.is_telling and not isinstance(action, ReadRegister):
            self.engine.tell(m.name, f"  does {_short(action)}")
        match action:
            case PersistView() | PersistIntent() | PersistStopped():
                self._persist(m, action)
            case ReadRegister():
                self._read(m)
            case CasRegister(view=view):
                self._put(m, view)
            case SetWants(wants=wants):
                m.v.wants, m.v.wants_since = wants, m.local()
                m.say_now()
                self._done(m, key)
            case SetGate(open=is_open):
                m.slowly(15 * MS, 50 * MS, lambda: self._gate(m, is_open=is_open))
            case HoldAddress(hold=hold):
                m.later(self.engine.between(2 * MS, 15 * MS), lambda: self._address(m, hold=hold))
            case FenceOff() | FenceOn():
                self._fence(m, action)
            case AskPower():
                self._ask_power(m)
            case NoteMet(epoch=epoch):
                m.met_epoch = epoch
                self._done(m, key)
            case StartRejoin():
                self.ladder.climb(m)
            case OpDone(ok=ok, text=text):
                m.op, m.op_answers = Op(), [*m.op_answers, (ok, text)]
                self._done(m, key)
            case _:
                self._database(m, action)

    def _done(self, m: SimMember, key: str) -> None:
        m.v.busy.discard(key)
        m.poke()

    # --- own disk ---

    def _persist(self, m: SimMember, action: PersistView | PersistIntent | PersistStopped) -> None:
        v, before = m.v, m.disk
        v.is_writing = not isinstance(action, PersistStopped)
        v.write_began_at = self.engine.now
        delay = max(self.engine.between(1 * MS, 25 * MS) + m.disk_slow_ns, m.disk_slow_until - self.engine.now)
        if delay > ABLE_NS:
            m.later(ABLE_NS + MS, m.poke)  # from then on it says that it cannot write
        is_lucky = self.engine.chance(0.5)  # does it reach the disk if the controller dies before it knows?

        def land() -> None:
            m.disk = _written(before, action)
            if isinstance(action, PersistView):
                self.world.checker.on_view(m, before.view, action.view)
                if action.view.primary == m.name and not action.view.is_solo:
                    self.world.messages.counted_on(m.other)

        def write() -> None:
            if m.v is v:
                m.write_under_way = None
                land()
                m.later(0, written)

        def written() -> None:
            v.is_writing, v.write_began_at = False, None
            if isinstance(action, PersistView):
                is_win = action.view.primary == m.name and not action.stopped
                v.won_at = m.local() if is_win and action.view.is_solo else None
            m.say_now()
            self._done(m, "disk")

        m.write_under_way = land if is_lucky else None
        self.engine.after(delay, write)

    # --- the register ---

    def _propose(self, m: SimMember, put: View | None, deadline: int, done: Callable[[Proposal], None]) -> None:
        v, world = m.v, self.world
        p = Proposal(
            world.roster,
            me=m.name,
            nonce=self.engine.random.getrandbits(40),
            deadline_at=self.engine.now + deadline,
            put=None if put is None else value_of(put, roster=1),
            seen=v.seen_ballot,
        )

        def finish(p: Proposal) -> None:
            world.puts -= put is not None
            world.w_changes += put is not None
            if m.v is v and m.is_alive:
                v.seen_ballot = max(v.seen_ballot, p.highest)
                m.later(0, lambda: done(p))

        world.puts += put is not None
        asking = Asking(
            m.network,
            world.jurors,
            p,
            engine=self.engine,
            who=m.name,
            is_listening=lambda: m.v is v and m.is_running,
            done=finish,
        )
        asking.begin(may_hurry=put is None and world.puts == 0)

    def _read(self, m: SimMember) -> None:
        v, began, changes = m.v, m.local(), self.world.w_changes
        v.is_reading, v.w_asked_at = True, began

        def done(p: Proposal) -> None:
            before = v.w_view
            v.is_reading = False
            if p.outcome is Outcome.DONE:
                v.w_read_at = v.w_contact_at = began
                v.w_view = self._newer(before, p)
                v.w_seen = changes if self.world.puts == 0 else v.w_seen
            v.busy.discard("ReadRegister")
            d = v.decision
            if v.w_view != before or d is None or d.rule not in STEADY:
                m.poke()

        self._propose(m, None, READ_NS, done)

    def _put(self, m: SimMember, view: View) -> None:
        v, began = m.v, m.local()
        v.cas, v.cas_epoch, v.cas_at = Cas.PENDING, view.epoch, None

        def done(p: Proposal) -> None:
            v.cas, v.cas_epoch, v.cas_at = Cas.UNKNOWN, view.epoch, m.local()
            if p.outcome in (Outcome.DONE, Outcome.REFUSED):
                v.cas = Cas.DONE if p.outcome is Outcome.DONE else Cas.REFUSED
                v.w_contact_at = began
                v.w_view = self._newer(v.w_view, p)
            self.engine.tell(m.name, f"  W answers {v.cas.value} to epoch {view.epoch}")
            self._done(m, "CasRegister")

        self._propose(m, view, PUT_NS, done)

    def _newer(self, known: View | None, p: Proposal) -> View | None:
        if p.value is None:
            return known
        view = view_of(p.value)
        if known is not None and view == known:
            return known
        self.world.checker.see_view(view)
        return view if known is None or view.epoch >= known.epoch else known

    # --- gate, address, fence ---

    def _gate(self, m: SimMember, *, is_open: bool) -> None:
        if not is_open:
            m.gate_open = False
            if m.db.is_running:
                m.db.end_sessions()
        elif m.db.state is PgState.PRIMARY:
            self.world.checker.on_gate_open(m)
            m.gate_open = True
        self._done(m, "SetGate")

    def _address(self, m: SimMember, *, hold: bool) -> None:
        m.address = hold
        if hold:
            self.world.checker.on_outward()
        self._done(m, "HoldAddress")

    def _fence(self, m: SimMember, action: FenceOff | FenceOn) -> None:
        """The device of the other member; what it does and what it says may be two things."""
        is_off = isinstance(action, FenceOff)
        if is_off:
            m.v.fence = replace(
                m.v.fence, outcome=FenceOutcome.PENDING, epoch=action.epoch, at=None, is_powered_on_again=False
            )
        elif isinstance(action, FenceOn) and action.is_unasked:
            m.v.power_ons = (*m.v.power_ons[-9:], At(m.local()))
        kind, target = m.fence_of_peer, m.other
        works = kind in ("works", "lies") or (kind == "dies-with-host" and target.is_powered)

        def done() -> None:
            if kind == "lies":
                m.lied_at = self.engine.now if is_off and target.is_powered else m.lied_at
            elif works and is_off:
                target.power_off()
            elif works:
                target.power_on()
            m.later(self.engine.between(10 * MS, 300 * MS), lambda: answer(works))

        def answer(ok: bool) -> None:
            if is_off:
                bad = FenceOutcome.UNKNOWN if self.engine.chance(0.5) else FenceOutcome.FAILED
                m.v.fence = replace(m.v.fence, outcome=FenceOutcome.OFF if ok else bad, at=m.local())
            else:
                m.v.fence = replace(m.v.fence, is_powered_on_again=True, has_power=None)
            self.engine.tell(m.name, f"  fence answers {m.v.fence.outcome.value}")
            self._done(m, "fence")

        late = self.engine.between(8 * S, 20 * S) if kind == "hangs" else 4 * S
        m.later(self.engine.between(200 * MS, 2 * S) if works else late, done)

    def _ask_power(self, m: SimMember) -> None:
        """What the device of the other member says of its power; one that lies says "on"."""
        v, began = m.v, m.local()
        v.fence = replace(v.fence, is_asking=True, asked_at=began)
        kind, target = m.fence_of_peer, m.other
        works = kind in ("works", "lies") or (kind == "dies-with-host" and target.is_powered)

        def read() -> None:
            has_power = (target.is_powered or kind == "lies") if works else None
            m.later(self.engine.between(5 * MS, 300 * MS), lambda: answer(has_power))

        def answer(has_power: bool | None) -> None:
            power_at = v.fence.power_at if has_power is None else began
            v.fence = replace(v.fence, is_asking=False, has_power=has_power, power_at=power_at)
            self._done(m, "AskPower")

        m.later(self.engine.between(5 * MS, 300 * MS) if works else 4 * S, read)

    # --- the database ---

    def _database(self, m: SimMember, action: Action) -> None:
        db = m.db
        match action:
            case Enforce(on=True):
                m.slowly(5 * MS, 20 * MS, lambda: self._enforce(m))
            case Enforce(on=False):
                self._unenforce(m)
            case VerifyBarrier(epoch=epoch):
                self._verify(m, epoch, db.instance, self.engine.now + BARRIER_NS, None)
            case StartPg(as_standby=as_standby, enforced=enforced):
                self._start(m, as_standby=as_standby, enforced=enforced)
            case Promote():
                instance = db.instance
                m.slowly(100 * MS, 250 * MS, lambda: self._promote(m, instance))
            case StopPg():
                self._stop(m, action, db.stop_orderly, self.engine.between(150 * MS, 400 * MS))
            case KillPg():
                delay = max(self.engine.between(10 * MS, 80 * MS), db.disk_free_at - self.engine.now)
                is_absent = db.state is PgState.ABSENT
                self._stop(m, action, lambda: None if is_absent else db.stop(PgState.STOPPED), delay)

    def _enforce(self, m: SimMember) -> None:
        if m.db.state is PgState.PRIMARY and not m.db.setting:
            m.db.set_waiting(True)
        self._done(m, "Enforce")

    def _unenforce(self, m: SimMember) -> None:
        """Reload and wait for a commit that returns; a database that goes on waiting is stopped."""
        db, v, until = m.db, m.v, self.engine.now + UNENFORCE_NS
        v.is_unenforcing = True
        instance = db.instance
        if db.state is PgState.PRIMARY:
            db.set_waiting(False)

        def look() -> None:
            is_over = db.instance != instance or not db.is_running or not db.waits
            if not is_over and self.engine.now >= until:
                db.stop(PgState.STOPPED)
                is_over = True
            if is_over:
                v.is_unenforcing = False
                self._done(m, "Enforce")
            else:
                m.later(20 * MS, look)

        m.later(10 * MS, look)

    def _verify(self, m: SimMember, epoch: Epoch, instance: int, until: int, target: int | None) -> None:
        """See a commit wait, note how far the log went, and see the standby reach it."""
        db = m.db
        stream = db.stream
        if db.instance != instance or not db.setting or self.engine.now > until:
            self._done(m, "VerifyBarrier")
            return
        is_joined = stream is not None and stream.standby.stream is stream
        if target is None and db.waits and is_joined:
            target = len(db.wal)
        elif target is not None and not is_joined:
            target = None
        if target is not None and stream is not None and stream.acked >= target:
            db.barrier_epoch = epoch
            self._done(m, "VerifyBarrier")
            return
        m.later(30 * MS, lambda: self._verify(m, epoch, instance, until, target))

    def _start(self, m: SimMember, *, as_standby: bool, enforced: bool) -> None:
        db = m.db
        if db.is_running or db.state not in (PgState.STOPPED, PgState.DIED):
            self._done(m, "StartPg")
            return
        m.gate_open = False
        db.state = PgState.STARTING
        db.instance += 1
        instance = db.instance
        if as_standby:
            db.has_signal = True

        def started() -> None:
            if db.instance == instance and db.state is PgState.STARTING:
                if db.disk_free_at > self.engine.now or db.is_disk_broken:
                    db.stop(PgState.DIED)
                else:
                    db.run_as(PgState.STANDBY if as_standby else PgState.PRIMARY, waits=enforced)
            self._done(m, "StartPg")

        m.slowly(200 * MS, 1500 * MS, started)

    def _promote(self, m: SimMember, instance: int) -> None:
        if m.db.instance == instance and m.db.state is PgState.STANDBY:
            m.db.promote()
        self._done(m, "Promote")

    def _stop(self, m: SimMember, action: Action, stop: Callable[[], None], delay: int) -> None:
        if m.db.is_running and isinstance(action, StopPg):
            m.db.state = PgState.STOPPING
        key = key_of(action)

        def stopped() -> None:
            stop()
            self._done(m, key)

        m.later(delay, stopped)


STEADY = ("P7.serve", "B7.follow", "S9.no-peer", "S10.peer-silent", "S11.serve", "R4.follow")


def _written(disk: Durable, action: PersistView | PersistIntent | PersistStopped) -> Durable:
    match action:
        case PersistView(view=view, stopped=stopped):
            intent = Epoch(0) if view.epoch >= disk.intent else disk.intent
            stopped_epoch = view.epoch if stopped else disk.stopped_epoch
            return replace(disk, view=view, intent=intent, stopped_epoch=stopped_epoch)
        case PersistIntent(epoch=epoch):
            return replace(disk, intent=epoch)
        case PersistStopped(epoch=epoch):
            return replace(disk, stopped_epoch=epoch)


def _short(action: Action) -> str:
    match action:
        case PersistView(view=v) | CasRegister(view=v):
            return f"{type(action).__name__}: epoch {v.epoch}, {v.primary}, {sorted(v.insync)}"
        case _:
            return str(action)
