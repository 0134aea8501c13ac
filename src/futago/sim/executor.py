"""The simulated executor: carries out what decide() orders, late, and forgetfully when the controller dies in between.

An order is a task with a key; the same key in flight is ignored. A durable write that is cut short by the death of the controller may have happened.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from futago.cluster.model import (
    Action,
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
    Op,
    OpDone,
    PersistIntent,
    PersistStopped,
    PersistView,
    PgState,
    Promote,
    ReadRegister,
    Rejoin,
    RejoinStep,
    SetGate,
    SetWants,
    StartPg,
    StartRejoin,
    StopPg,
    VerifyBarrier,
    View,
)
from futago.register.ballot import Outcome, Proposal, value_of, view_of
from futago.sim.database import Database
from futago.sim.engine import MS, Engine, S
from futago.sim.jury import ROSTER, Asking

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

    def perform(self, m: SimMember, action: Action) -> None:
        """Begin to carry out one order, unless one like it is under way."""
        key = key_of(action)
        if key in m.v.busy:
            return
        m.v.busy.add(key)
        if not isinstance(action, ReadRegister):
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
                self._done(m, key)
            case SetGate(open=is_open):
                m.later(self.engine.between(15 * MS, 50 * MS), lambda: self._gate(m, is_open=is_open))
            case HoldAddress(hold=hold):
                m.later(self.engine.between(2 * MS, 15 * MS), lambda: self._address(m, hold=hold))
            case FenceOff() | FenceOn():
                self._fence(m, action)
            case StartRejoin():
                self._rejoin(m)
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
        v, boots, before = m.v, m.boots, m.disk
        v.is_writing = not isinstance(action, PersistStopped)
        v.write_began_at = self.engine.now
        delay = max(self.engine.between(1 * MS, 25 * MS), m.disk_slow_until - self.engine.now)
        is_lucky = self.engine.chance(0.5)  # does it reach the disk if the controller dies before it knows?

        def write() -> None:
            is_orphan = m.v is not v
            if m.disk is not before or (is_orphan and not (is_lucky and m.boots == boots and m.is_powered)):
                return
            m.disk = _written(before, action)
            if isinstance(action, PersistView):
                self.world.checker.on_view(m, before.view, action.view)
            if not is_orphan:
                m.later(0, written)

        def written() -> None:
            v.is_writing, v.write_began_at = False, None
            if isinstance(action, PersistView):
                is_win = action.view.primary == m.name and not action.stopped
                v.won_at = m.local() if is_win and action.view.is_solo else None
            self._done(m, "disk")

        self.engine.after(delay, write)

    # --- the register ---

    def _propose(self, m: SimMember, put: View | None, deadline: int, done: Callable[[Proposal], None]) -> None:
        p = Proposal(
            ROSTER,
            me=m.name,
            nonce=self.engine.random.getrandbits(40),
            deadline_at=self.engine.now + deadline,
            put=None if put is None else value_of(put, roster=1),
            seen=m.v.seen_ballot,
        )
        v = m.v

        def finish(p: Proposal) -> None:
            if m.v is v and m.is_alive:
                v.seen_ballot = max(v.seen_ballot, p.highest)
                m.later(0, lambda: done(p))

        Asking(
            m.network,
            self.world.jurors,
            p,
            who=m.name,
            is_listening=lambda: m.v is v and m.is_running,
            done=finish,
        )

    def _read(self, m: SimMember) -> None:
        began = m.local()
        m.v.register = replace(m.v.register, is_pending=True, asked_at=began)

        def done(p: Proposal) -> None:
            r = replace(m.v.register, is_pending=False)
            before = r.view
            if p.outcome is Outcome.DONE:
                r = replace(r, read_at=began, contact_at=began, view=self._newer(r.view, p))
            m.v.register = r
            m.v.busy.discard("ReadRegister")
            d = m.v.decision
            if r.view != before or d is None or d.rule not in STEADY:
                m.poke()

        self._propose(m, None, READ_NS, done)

    def _put(self, m: SimMember, view: View) -> None:
        began = m.local()
        m.v.register = replace(m.v.register, cas=Cas.PENDING, cas_epoch=view.epoch, cas_at=None)

        def done(p: Proposal) -> None:
            r = replace(m.v.register, cas=Cas.UNKNOWN, cas_epoch=view.epoch, cas_at=m.local())
            if p.outcome in (Outcome.DONE, Outcome.REFUSED):
                cas = Cas.DONE if p.outcome is Outcome.DONE else Cas.REFUSED
                r = replace(r, cas=cas, contact_at=began, view=self._newer(r.view, p))
            self.engine.tell(m.name, f"  W answers {r.cas.value} to epoch {view.epoch}")
            m.v.register = r
            self._done(m, "CasRegister")

        self._propose(m, view, PUT_NS, done)

    def _newer(self, known: View | None, p: Proposal) -> View | None:
        if p.value is None:
            return known
        view = view_of(p.value)
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
        is_off = isinstance(action, FenceOff)
        if is_off:
            m.v.fence = replace(m.v.fence, outcome=FenceOutcome.PENDING, epoch=action.epoch, at=None)
        works, target = m.fence_of_peer_works, m.other

        def done() -> None:
            if works and is_off:
                target.power_off()
            elif works:
                target.power_on()
            m.later(self.engine.between(10 * MS, 300 * MS), lambda: answer(works))

        def answer(ok: bool) -> None:
            if is_off:
                bad = FenceOutcome.UNKNOWN if self.engine.chance(0.5) else FenceOutcome.FAILED
                m.v.fence = replace(m.v.fence, outcome=FenceOutcome.OFF if ok else bad, at=m.local())
            else:
                m.v.fence = replace(m.v.fence, is_powered_on_again=True)
            self.engine.tell(m.name, f"  fence answers {m.v.fence.outcome.value}")
            self._done(m, "fence")

        m.later(self.engine.between(200 * MS, 2 * S) if works else 4 * S, done)

    # --- the database ---

    def _database(self, m: SimMember, action: Action) -> None:
        db = m.db
        match action:
            case Enforce(on=True):
                m.later(self.engine.between(5 * MS, 20 * MS), lambda: self._enforce(m))
            case Enforce(on=False):
                self._unenforce(m)
            case VerifyBarrier(epoch=epoch):
                self._verify(m, epoch, db.instance, self.engine.now + BARRIER_NS, None)
            case StartPg(as_standby=as_standby, enforced=enforced):
                self._start(m, as_standby=as_standby, enforced=enforced)
            case Promote():
                instance = db.instance
                m.later(self.engine.between(100 * MS, 250 * MS), lambda: self._promote(m, instance))
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
                if db.disk_free_at > self.engine.now:
                    db.stop(PgState.DIED)
                else:
                    db.run_as(PgState.STANDBY if as_standby else PgState.PRIMARY, waits=enforced)
            self._done(m, "StartPg")

        m.later(self.engine.between(200 * MS, 1500 * MS), started)

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

    # --- the ladder ---

    def _rejoin(self, m: SimMember) -> None:
        """Follow if the log allows it; else rewind, which may do nothing; else copy everything."""
        m.v.rejoin = Rejoin(RejoinStep.RUNNING, "follow")
        db, source = m.db, m.other.db
        is_forked = db.wal != source.wal[: len(db.wal)] or len(db.wal) > len(source.wal)
        if db.state is PgState.ABSENT or (is_forked and not self.world.rewind_did_nothing.get(m.name)):
            self._overwrite(m, is_copy=db.state is PgState.ABSENT)
        elif is_forked:
            self._overwrite(m, is_copy=True)
        else:
            self._follow(m, self.engine.now + 4 * S)

    def _follow(self, m: SimMember, until: int) -> None:
        db = m.db
        if db.state is PgState.STANDBY and db.is_streaming:
            self.world.rewind_did_nothing.pop(m.name, None)
            self._rejoined(m, ok=True)
            return
        if self.engine.now > until:
            self._rejoined(m, ok=False)
            return
        if db.state in (PgState.STOPPED, PgState.DIED) and "StartPg" not in m.v.busy:
            m.v.busy.add("StartPg")
            self._start(m, as_standby=True, enforced=False)
        m.later(100 * MS, lambda: self._follow(m, until))

    def _overwrite(self, m: SimMember, *, is_copy: bool) -> None:
        """Rewind or base backup: while it runs, and when it is cut short, there is no usable data directory."""
        db, source = m.db, m.other.db
        self.world.checker.on_destroy(m)
        m.v.rejoin = Rejoin(RejoinStep.RUNNING, "basebackup" if is_copy else "rewind")
        does_nothing = not is_copy and not source.has_checkpoint
        db.stop(PgState.STOPPED if does_nothing else PgState.ABSENT)
        instance = db.instance

        def copied() -> None:
            if db.instance != instance:
                self._rejoined(m, ok=False)
                return
            if not (source.is_running and source.state is PgState.PRIMARY and m.network.is_joined(m.name, source.name)):
                self._rejoined(m, ok=False)
                return
            if does_nothing:
                self.world.rewind_did_nothing[m.name] = True
            else:
                _copy(source, db)
            self._follow(m, self.engine.now + 4 * S)

        m.later(self.engine.between(3 * S, 6 * S) if is_copy else self.engine.between(S // 2, 2 * S), copied)

    def _rejoined(self, m: SimMember, *, ok: bool) -> None:
        step = RejoinStep.DONE if ok else RejoinStep.FAILED
        m.v.rejoin = Rejoin(step, m.v.rejoin.rung, retry_at=At(m.local() + 2 * S))
        self._done(m, "StartRejoin")


STEADY = ("P7.serve", "B7.follow", "S9.no-peer", "S10.peer-silent", "S11.serve", "R4.follow")


def _copy(source: Database, target: Database) -> None:
    target.wal = list(source.wal)
    target.observed = 0
    target.timeline = source.timeline
    target.has_signal = True
    target.state = PgState.STOPPED


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
