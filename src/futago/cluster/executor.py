"""Performs what has been decided, and turns the outcomes into facts.

Lives here: one task for each thing that can be under way, deadlines, and the pause after something that did not help.
Must not live here: any choice. The idea: a crew that hears the same orders again and again until they are fulfilled.
An order that is already being carried out is not begun twice; a contrary order ends it; the same order after a
failure is taken up again after a breath.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from futago.cluster import pgwire
from futago.cluster.address.carried import CarriedAddress
from futago.cluster.facts import Board
from futago.cluster.fence import Power
from futago.cluster.fence.worker import FenceDesk
from futago.cluster.model import (
    Action,
    AskPower,
    At,
    Cas,
    CasRegister,
    Enforce,
    Epoch,
    FenceOff,
    FenceOn,
    Gate,
    HoldAddress,
    KillPg,
    Lsn,
    NoteMet,
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
from futago.cluster.pgsync import PgSync
from futago.cluster.postgres import Postgres
from futago.cluster.recover import Ladder
from futago.cluster.slots import Keeper
from futago.register.ballot import value_of, view_of
from futago.register.port import Register
from futago.runtime.clock import MS, now_at
from futago.runtime.faults import FutagoFault, Refused, WorldFault
from futago.runtime.log import Log

PAUSE_FIRST = 20 * MS  # before an order is taken up again that has just ended; doubles
PAUSE_MAX = 2000 * MS
FORGET = 3000 * MS  # an order that comes again after this is a new one
SUPERSEDE_S_MAX = 3.0
POWER_ONS_KEPT = 7  # more than the limit that the decision keeps

_GROUPS: dict[type[object], str] = {
    PersistView: "durable",
    PersistIntent: "durable",
    PersistStopped: "durable",
    ReadRegister: "read",
    CasRegister: "cas",
    Enforce: "enforce",
    VerifyBarrier: "enforce",
    StartPg: "pg",
    Promote: "pg",
    StopPg: "pg",
    KillPg: "pg",
    StartRejoin: "pg",
    SetGate: "gate",
    HoldAddress: "address",
    FenceOff: "fence-off",
    FenceOn: "fence-on",
    AskPower: "power",
    NoteMet: "met",
}
_PACED = frozenset({"read", "cas", "power"})  # questions: the decision says when to ask again, and may be in a hurry
_PATIENT = frozenset({"durable", "read", "cas", "fence-off", "fence-on", "power"})  # never ended by another order


@dataclass(slots=True)
class _Past:
    """How the last order of a group ended."""

    action: Action
    ended_at: int
    repeats: int

    @property
    def due_at(self) -> int:
        return self.ended_at + min(PAUSE_FIRST << min(self.repeats, 10), PAUSE_MAX)


@dataclass(frozen=True, slots=True)
class Hands:
    """Everything that an order may need."""

    board: Board
    keeper: Keeper
    postgres: Postgres
    sync: PgSync
    ladder: Ladder
    fences: FenceDesk
    address: CarriedAddress
    jury: Callable[[], Register | None]
    say_now: Callable[[], None]  # send a heartbeat at once
    op_done: Callable[[OpDone], None]
    note_met: Callable[[Epoch], None]  # on tmpfs; raises OSError


class Executor:
    """Carries out actions. `perform` returns at once."""

    def __init__(self, hands: Hands, *, log: Log) -> None:
        self._h, self._log = hands, log
        self._running: dict[str, tuple[Action, asyncio.Task[None]]] = {}
        self._past: dict[str, _Past] = {}
        self._ending: dict[str, list[asyncio.Task[None]]] = {}  # superseded, and not yet at their end
        self._background: set[asyncio.Future[None]] = set()

    def perform(self, actions: tuple[Action, ...], now: int) -> int | None:
        """Begin what is not under way; return when an order that had to wait is due, None if none waits."""
        due: int | None = None
        for action in actions:
            if isinstance(action, SetWants):
                self._set_wants(action, now)
            elif isinstance(action, OpDone):
                self._h.op_done(action)
            else:
                waits_until = self._begin(action, now)
                if waits_until is not None:
                    due = waits_until if due is None else min(due, waits_until)
        return due

    def under_way(self) -> list[str]:
        """Return the names of what is being done, for the log."""
        return [type(action).__name__ for action, _ in self._running.values()]

    async def close(self) -> None:
        """End everything that is under way."""
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        tasks += [task for superseded in self._ending.values() for task in superseded]
        if tasks:
            await asyncio.wait(tasks, timeout=SUPERSEDE_S_MAX)

    def _begin(self, action: Action, now: int) -> int | None:
        group = _GROUPS[type(action)]
        if group in self._running:
            present, under_way = self._running[group]
            if present == action or group in _PATIENT:
                return None
            under_way.cancel()
            # One that was superseded before it had begun ends at once; the one that it waited for may still be at work.
            self._ending[group] = [t for t in (*self._ending.get(group, ()), under_way) if not t.done()]
        else:
            past = self._past.get(group)
            if past is not None and past.action == action and now < past.due_at:
                return past.due_at
        task = asyncio.create_task(self._carry_out(group, action), name=type(action).__name__)
        self._running[group] = (action, task)
        return None

    async def _carry_out(self, group: str, action: Action) -> None:
        if before := self._ending.get(group):
            await asyncio.wait(before, timeout=SUPERSEDE_S_MAX)
        try:
            await self._perform(action)
        except FutagoFault as e:
            self._log.warning("action.failed", action=repr(action), outcome=type(e).__name__, error=str(e))
        finally:
            self._note_end(group, action)

    def _note_end(self, group: str, action: Action) -> None:
        now, past = now_at(), self._past.get(group)
        is_repeat = past is not None and past.action == action and now - past.ended_at < FORGET and group not in _PACED
        self._past[group] = _Past(action, now, past.repeats + 1 if is_repeat and past is not None else 0)
        running = self._running.get(group)
        if running is not None and running[1] is asyncio.current_task():
            del self._running[group]
        self._h.board.bell.set()

    async def _perform(self, action: Action) -> None:  # noqa: PLR0912  a table of seventeen orders, one line each
        h = self._h
        match action:
            case PersistView():
                await self._persist_view(action)
            case PersistIntent():
                await h.keeper.put_intent(action.epoch)
            case PersistStopped():
                await h.keeper.put_stopped(action.epoch)
            case ReadRegister():
                await self._read_register()
            case CasRegister():
                await self._cas(action.view)
            case Enforce():
                await h.sync.enforce(on=action.on)
            case VerifyBarrier():
                await h.sync.barrier(action.epoch)
            case StartPg():
                await h.postgres.start(as_standby=action.as_standby, enforced=action.enforced)
                self._tidy_slots()
            case Promote():
                await h.postgres.promote()
                self._tidy_slots()
            case StopPg():
                await h.postgres.stop()
            case KillPg():
                await h.postgres.kill()
            case SetGate():
                await self._set_gate(is_open=action.open)
            case HoldAddress():
                await (h.address.hold if action.hold else h.address.drop)()
            case FenceOff():
                await h.fences.off(action.epoch)
            case FenceOn():
                await self._power_on(action)
            case AskPower():
                await self._ask_power()
            case NoteMet():
                self._note_met(action.epoch)
            case StartRejoin():
                await h.ladder.climb()

    # --- one by one -------------------------------------------------------------------------------------------------

    def _set_wants(self, action: SetWants, now: int) -> None:
        if self._h.board.wants != action.wants:
            self._h.board.put(wants=action.wants, wants_since=At(now))
            self._h.say_now()

    async def _persist_view(self, action: PersistView) -> None:
        """Since when the view is ours must be known before it can be seen: outward effects are counted from there."""
        board, view = self._h.board, action.view
        is_won = view.primary == board.cfg.me and view.is_solo and not action.stopped
        if is_won:
            board.put(won_at=At(now_at()))
        await self._h.keeper.put_view(view, stopped=action.stopped)
        if not is_won:
            board.put(won_at=None)
        if view.primary == board.cfg.me and not view.is_solo:  # made in this boot, and only a shot could have ended it
            self._note_met(view.epoch)
        self._h.say_now()
        self._log.event(
            "view.persisted",
            epoch=view.epoch,
            primary=view.primary,
            insync=sorted(view.insync),
            floor=view.floor,
            stopped=action.stopped,
        )

    async def _read_register(self) -> None:
        h, board = self._h, self._h.board
        jury, began = h.jury(), At(now_at())
        if jury is None:
            return
        board.put_register(is_pending=True, asked_at=began)
        try:
            held = await jury.read()
            known = board.register.view
            view = None if held is None else view_of(held)
            if view is None or (known is not None and known.epoch > view.epoch):
                view = known  # a put of ours ended while the read was on its way
            board.put_register(view=view)
            if h.jury() is jury:  # else another one was seated meanwhile, and this answer says nothing of that
                board.put_register(read_at=began, contact_at=began)
        except Refused:
            pass  # shown by the age of the last contact
        finally:
            if h.jury() is jury:
                board.put_register(is_pending=False)

    async def _cas(self, view: View) -> None:
        jury, board = self._h.jury(), self._h.board
        if jury is None:
            return
        began = At(now_at())
        board.put_register(cas=Cas.PENDING, cas_epoch=view.epoch)
        outcome, held = Cas.UNKNOWN, None
        try:
            is_ours, value = await jury.put(value_of(view, roster=jury.version))
            outcome, held = (Cas.DONE if is_ours else Cas.REFUSED), value
        except WorldFault as e:
            self._log.warning("register.unclear", epoch=view.epoch, error=str(e))
        finally:
            seen = board.register.view if held is None else view_of(held)
            board.put_register(view=seen)
            if self._h.jury() is jury:
                contact = board.register.contact_at if held is None else began
                board.put_register(cas=outcome, cas_epoch=view.epoch, cas_at=At(now_at()), contact_at=contact)
        self._log.event("register.put", epoch=view.epoch, outcome=outcome.value)

    async def _power_on(self, action: FenceOn) -> None:
        board = self._h.board
        if action.is_unasked:  # noted first: a device that fails is not asked at once again either
            board.put(power_ons=(*board.power_ons[-POWER_ONS_KEPT:], At(now_at())))
        await self._h.fences.on(action.epoch)
        board.put_fence(has_power=None)

    async def _ask_power(self) -> None:
        board, began = self._h.board, At(now_at())
        board.put_fence(is_asking=True, asked_at=began)
        try:
            power = await self._h.fences.peer_power()
            has_power = None if power is Power.UNKNOWN else power is Power.ON
            board.put_fence(has_power=has_power, power_at=began if has_power is not None else board.fence.power_at)
        except WorldFault:
            board.put_fence(has_power=None)  # shown by the age of the last answer
        finally:
            board.put_fence(is_asking=False)

    def _note_met(self, epoch: Epoch) -> None:
        if self._h.board.cfg.authority != "fence":
            return
        try:
            self._h.note_met(epoch)
        except OSError as e:
            self._log.warning("met.not-noted", epoch=epoch, error=str(e))
        self._h.board.put(met_epoch=epoch)

    async def _set_gate(self, *, is_open: bool) -> None:
        h = self._h
        if is_open:
            h.board.put(gate=Gate.UNKNOWN)
            await h.postgres.gate.open()
            h.board.put(gate=Gate.OPEN)
            self._log.event("gate.open")
            return
        h.board.put(gate=Gate.UNKNOWN if h.postgres.death.pid else Gate.CLOSED)
        if h.board.pg.state is PgState.HUNG:  # it would not answer: do not wait for it
            await self._shut_by_death()
            return
        try:
            await h.postgres.gate.close()
            await self._move_start()
        except WorldFault as e:
            self._log.error("gate.does-not-close", error=str(e))
            await h.postgres.kill()  # its death closes it surely, and every start begins behind a closed gate
        h.board.put(gate=Gate.CLOSED)
        self._log.event("gate.closed")

    async def _shut_by_death(self) -> None:
        """A server that hangs lets nobody in and shows nobody out; the file is for the next start, which writes it
        too."""
        h = self._h
        try:
            await h.postgres.gate.write(gate_open=False)
        finally:
            await h.postgres.kill()
            h.board.put(gate=Gate.CLOSED)
            self._log.event("gate.closed", by="kill")

    async def _move_start(self) -> None:
        """Sessions that waited for the peer have committed here alone: nobody is let in again before the peer has that."""
        if self._h.board.pg.state is PgState.PRIMARY and self._h.postgres.death.pid:
            row = (await self._h.postgres.ask("SELECT pg_current_wal_flush_lsn()")).one()
            self._h.board.put_pg(start_lsn=Lsn(pgwire.lsn(row[0])))

    def _tidy_slots(self) -> None:
        state = self._h.board.pg.state
        work: Awaitable[None] = self._h.sync.ensure_slot() if state is PgState.PRIMARY else self._h.sync.drop_slots()
        task = asyncio.ensure_future(self._quietly(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _quietly(self, work: Awaitable[None]) -> None:
        try:
            await work
        except WorldFault as e:
            self._log.warning("slots.failed", error=str(e))
