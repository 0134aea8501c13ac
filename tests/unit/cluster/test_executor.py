"""The crew: an order under way is not begun twice, a contrary one ends it, a failed one waits a breath."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from futago.cluster.executor import PAUSE_FIRST, Executor
from futago.cluster.facts import Board
from futago.cluster.fence import Power
from futago.cluster.met import MetNote
from futago.cluster.model import (
    Action,
    AskPower,
    At,
    Cas,
    CasRegister,
    Config,
    Durable,
    Epoch,
    FenceOn,
    Gate,
    KillPg,
    Lsn,
    MemberName,
    NoteMet,
    OpDone,
    PersistView,
    PgState,
    ReadRegister,
    Register,
    SetGate,
    SetWants,
    StartPg,
    View,
    Wants,
)
from futago.register.ballot import value_of
from futago.runtime.clock import now_at
from futago.runtime.faults import Refused, Unknown
from futago.runtime.log import Log

ME, PEER = MemberName("m1"), MemberName("m2")
CFG = Config(me=ME, peer=PEER, h=200_000_000, k=10, bias=300_000_000, t_stall=2_000_000_000)


@dataclass
class World:
    """Everything that orders act on, noting what happened."""

    board: Board
    done: list[str] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    is_unwound: asyncio.Event = field(default_factory=asyncio.Event)
    fault: Exception | None = None
    failed_at: int = 0
    view_seen_with_won_at: list[int | None] = field(default_factory=list)
    durable: Durable = field(default_factory=Durable)
    answer: Any = None

    # postgres
    @property
    def death(self) -> Any:
        return type("Death", (), {"pid": 1})

    @property
    def gate(self) -> World:
        return self

    async def start(self, *, as_standby: bool, enforced: bool) -> None:
        self.done.append(f"start standby={as_standby}")
        try:
            await self.hold.wait()
        except asyncio.CancelledError:
            await self.is_unwound.wait()
            self.done.append("start ended")
            raise
        self.board.put_pg(state=PgState.STANDBY)

    async def kill(self) -> None:
        self.done.append("kill")
        self.board.put_pg(state=PgState.STOPPED)

    async def open(self) -> None:
        self.done.append("open")
        if self.fault:
            self.failed_at = now_at()
            raise self.fault

    async def close(self) -> None:
        self.done.append("close")
        if self.fault:
            raise self.fault

    async def ask(self, _sql: str) -> Any:
        self.done.append("ask position")
        return type("Result", (), {"one": staticmethod(lambda: ("0/200",))})

    async def write(self, *, gate_open: bool) -> None:
        self.done.append(f"write {gate_open}")

    async def drop_slots(self) -> None:
        self.done.append("drop slots")

    # keeper
    async def put_view(self, view: View, *, stopped: bool) -> None:
        self.view_seen_with_won_at.append(self.board.won_at)
        self.durable = Durable(view=view)

    # jury
    version = 1

    async def read(self) -> Any:
        if self.fault:
            raise self.fault
        return self.answer

    # fences
    power: Any = None

    async def peer_power(self) -> Any:
        if self.fault:
            raise self.fault
        return self.power

    async def on(self, epoch: Epoch) -> None:
        self.done.append(f"on {epoch}")
        if self.fault:
            raise self.fault

    def note_met(self, epoch: Epoch) -> None:
        self.done.append(f"met {epoch}")
        if self.fault:
            raise self.fault

    async def put(self, value: Any) -> Any:
        if self.fault:
            raise self.fault
        return self.answer


def crew() -> tuple[Executor, World]:
    board = Board(cfg=CFG, started_at=At(now_at()))
    w = World(board)
    w.is_unwound.set()
    ended: list[OpDone] = []
    hands: Any = type(
        "Hands",
        (),
        {
            "board": board,
            "keeper": w,
            "postgres": w,
            "sync": w,
            "ladder": w,
            "fences": w,
            "address": w,
            "jury": staticmethod(lambda: w),
            "say_now": staticmethod(lambda: w.done.append("said")),
            "op_done": staticmethod(ended.append),
            "note_met": w.note_met,
        },
    )
    return Executor(hands, log=Log()), w


def view(epoch: int, *, primary: MemberName = ME, both: bool = False) -> View:
    return View(Epoch(epoch), primary, frozenset({ME, PEER} if both else {primary}), Lsn(1))


async def settle(executor: Executor) -> None:
    async with asyncio.timeout(30):
        while executor.under_way():
            await asyncio.sleep(0.001)


START = StartPg(as_standby=True, enforced=False)


async def test_closed_gate_moves_the_position_that_the_peer_must_reach_before_it_opens_again() -> None:
    executor, w = crew()
    w.board.put_pg(state=PgState.PRIMARY, start_lsn=Lsn(0x100))
    w.board.put(gate=Gate.OPEN)
    executor.perform((SetGate(open=False),), now_at())
    await settle(executor)
    assert w.done == ["close", "ask position"]
    assert w.board.gate is Gate.CLOSED and w.board.pg.start_lsn == 0x200


async def test_order_under_way_is_not_begun_twice() -> None:
    executor, w = crew()
    for _ in range(5):
        executor.perform((START,), now_at())
        await asyncio.sleep(0.001)
    assert w.done == ["start standby=True"]
    w.hold.set()
    await settle(executor)
    await executor.close()


async def test_contrary_order_ends_the_one_under_way_and_comes_after_its_end() -> None:
    executor, w = crew()
    executor.perform((START,), now_at())
    await asyncio.sleep(0.001)
    executor.perform((KillPg(),), now_at())
    await settle(executor)
    assert w.done == ["start standby=True", "start ended", "kill"]


async def test_third_order_comes_after_the_end_of_the_first_although_the_second_never_began() -> None:
    executor, w = crew()
    w.is_unwound.clear()
    executor.perform((START,), now_at())
    await asyncio.sleep(0.001)
    executor.perform((KillPg(),), now_at())
    await asyncio.sleep(0.001)  # it waits for the first to end, which takes a moment
    executor.perform((StartPg(as_standby=False, enforced=True),), now_at())
    for _ in range(20):
        await asyncio.sleep(0.001)
    done = list(w.done)
    w.is_unwound.set()
    w.hold.set()
    await settle(executor)
    assert done == ["start standby=True"]
    assert w.done[:3] == ["start standby=True", "start ended", "start standby=False"]
    await executor.close()


async def test_failed_order_waits_a_breath_that_grows() -> None:
    executor, w = crew()
    w.fault = Unknown("late")
    pauses = []
    for _ in range(4):
        while (due := executor.perform((SetGate(open=True),), now_at())) is not None:
            await asyncio.sleep((due - now_at()) / 1e9)
        await settle(executor)
        due = executor.perform((SetGate(open=True),), now_at())
        assert due is not None
        pauses.append(due - w.failed_at)
    assert w.done.count("open") == 4 and pauses == sorted(pauses) and pauses[-1] > 2 * pauses[0]


@pytest.mark.parametrize("question", [ReadRegister(), CasRegister(view=view(9)), AskPower()])
async def test_question_asked_again_and_again_waits_no_longer_than_the_first_time(question: Action) -> None:
    executor, _w = crew()
    due: int | None = now_at()
    for _ in range(8):
        assert due is not None
        executor.perform((question,), due)
        await settle(executor)
        ended_before = now_at()
        due = executor.perform((question,), 0)
        assert due is not None and due - ended_before <= PAUSE_FIRST


async def test_other_order_does_not_wait_for_the_breath_of_a_failed_one() -> None:
    executor, w = crew()
    w.fault = Unknown("late")
    executor.perform((SetGate(open=True),), now_at())
    await settle(executor)
    w.fault = None
    assert executor.perform((SetGate(open=False),), now_at()) is None
    await settle(executor)
    assert w.done == ["open", "close"] and w.board.gate is Gate.CLOSED


async def test_gate_that_does_not_close_is_closed_by_the_death_of_postgres() -> None:
    executor, w = crew()
    w.fault = Unknown("no answer")
    executor.perform((SetGate(open=False),), now_at())
    await settle(executor)
    assert w.done == ["close", "kill"] and w.board.gate is Gate.CLOSED


async def test_gate_of_a_hung_server_is_closed_by_its_death_at_once() -> None:
    executor, w = crew()
    w.board.put_pg(state=PgState.HUNG)
    executor.perform((SetGate(open=False),), now_at())
    await settle(executor)
    assert w.done == ["write False", "kill"] and w.board.gate is Gate.CLOSED


async def test_win_is_dated_before_the_view_can_be_seen() -> None:
    executor, w = crew()
    executor.perform((PersistView(view=view(5)),), now_at())
    await settle(executor)
    assert w.view_seen_with_won_at[0] is not None and w.board.won_at is not None
    executor.perform((PersistView(view=view(6, both=True)),), now_at())
    await settle(executor)
    assert w.view_seen_with_won_at[1] is not None and w.board.won_at is None  # it goes only after the new view


@pytest.mark.parametrize("stopped", [True, False])
async def test_view_by_consent_or_of_the_peer_is_no_win(stopped: bool) -> None:
    executor, w = crew()
    mine = view(5, primary=ME if stopped else PEER)
    executor.perform((PersistView(view=mine, stopped=stopped),), now_at())
    await settle(executor)
    assert w.board.won_at is None


async def test_wants_are_said_at_once_and_once() -> None:
    executor, w = crew()
    wants = SetWants(Wants("solo", Epoch(3)))
    executor.perform((wants,), 77)
    executor.perform((wants,), 99)
    assert w.done == ["said"] and w.board.wants == wants.wants and w.board.wants_since == 77


@pytest.mark.parametrize(
    ("answer", "fault", "outcome"),
    [
        ((True, value_of(view(4), roster=1)), None, Cas.DONE),
        ((False, value_of(view(4, primary=PEER), roster=1)), None, Cas.REFUSED),
        (None, Unknown("late"), Cas.UNKNOWN),
        (None, Refused("silent"), Cas.UNKNOWN),  # earlier puts of ours may still be stored
    ],
)
async def test_outcome_of_a_vote_becomes_a_fact(answer: Any, fault: Exception | None, outcome: Cas) -> None:
    executor, w = crew()
    w.answer, w.fault = answer, fault
    executor.perform((CasRegister(view=view(4)),), now_at())
    await settle(executor)
    r = w.board.register
    assert (r.cas, r.cas_epoch) == (outcome, 4) and r.cas_at is not None
    assert (r.contact_at is not None) == (answer is not None)
    if outcome is Cas.REFUSED:
        assert r.view is not None and r.view.primary == PEER


async def test_read_dates_its_contact_by_its_beginning_and_never_forgets_a_newer_view() -> None:
    executor, w = crew()
    w.board.put_register(view=view(9))
    w.answer = value_of(view(4), roster=1)
    began = now_at()
    executor.perform((ReadRegister(),), began)
    await settle(executor)
    r = w.board.register
    assert r.view == view(9) and not r.is_pending
    assert r.contact_at is not None and r.asked_at == r.contact_at == r.read_at


async def test_failed_read_is_no_contact() -> None:
    executor, w = crew()
    w.fault = Refused("silent")
    executor.perform((ReadRegister(),), now_at())
    await settle(executor)
    assert w.board.register.contact_at is None and not w.board.register.is_pending
    assert w.board.register.asked_at is not None


async def test_answer_of_a_third_vote_that_was_replaced_meanwhile_is_no_contact_with_the_next() -> None:
    executor, w = crew()
    asked = asyncio.Event()

    class Slow:
        version = 1

        async def read(self) -> Any:
            asked.set()
            await w.hold.wait()
            return value_of(view(4), roster=1)

        async def put(self, _value: Any) -> Any:
            asked.set()
            await w.hold.wait()
            return True, value_of(view(5), roster=1)

    seated: list[Any] = [Slow()]
    executor._h.jury = lambda: seated[-1]
    for order, epoch in ((ReadRegister(), 4), (CasRegister(view=view(5)), 5)):
        asked.clear()
        w.hold.clear()
        executor.perform((order,), now_at())
        await asked.wait()
        seated.append(Slow())
        w.board.put(register=Register(is_configured=True))  # as the exchange does
        w.hold.set()
        await settle(executor)
        assert w.board.register == Register(is_configured=True, view=view(epoch))


def test_every_action_has_a_group_or_is_done_on_the_spot() -> None:
    from typing import get_args

    from futago.cluster.executor import _GROUPS

    assert set(get_args(Action)) == set(_GROUPS) | {SetWants, OpDone}


async def test_answer_about_power_counts_from_when_it_was_asked() -> None:
    executor, w = crew()
    for power, has_power in ((Power.OFF, False), (Power.ON, True)):
        w.power, before = power, now_at()
        executor.perform((AskPower(),), now_at())
        await settle(executor)
        fence = w.board.fence
        assert fence.has_power is has_power and fence.power_at == fence.asked_at and not fence.is_asking
        assert before <= (fence.power_at or 0) <= now_at()
        await asyncio.sleep(0.03)


async def test_device_that_does_not_answer_leaves_the_power_unknown_and_the_last_answer_old() -> None:
    executor, w = crew()
    w.board.put_fence(has_power=False, power_at=At(1))
    w.fault = Unknown("silent")
    executor.perform((AskPower(),), now_at())
    await settle(executor)
    fence = w.board.fence
    assert fence.has_power is None and fence.power_at == 1 and (fence.asked_at or 0) > 1 and not fence.is_asking


async def test_unasked_power_on_is_counted_even_if_the_device_fails() -> None:
    executor, w = crew()
    w.fault = Unknown("silent")
    executor.perform((FenceOn(Epoch(3), is_unasked=True),), now_at())
    await settle(executor)
    assert w.done == ["on 3"] and len(w.board.power_ons) == 1
    executor.perform((FenceOn(Epoch(4)),), now_at())
    await settle(executor)
    assert len(w.board.power_ons) == 1


async def test_agreement_is_noted_only_where_the_fence_decides_and_counts_although_the_note_fails() -> None:
    executor, w = crew()
    executor.perform((NoteMet(Epoch(3)),), now_at())
    await settle(executor)
    assert w.done == [] and w.board.met_epoch == 0
    w.board.put(cfg=replace(CFG, authority="fence"))
    w.fault = OSError("no space")
    executor.perform((NoteMet(Epoch(4)),), now_at())
    await settle(executor)
    assert w.done == ["met 4"] and w.board.met_epoch == 4
    w.fault = None
    executor.perform((PersistView(view(5, both=True)),), now_at())
    await settle(executor)
    assert w.board.met_epoch == 5


def test_note_of_an_agreement_ends_with_the_boot(tmp_path: Path) -> None:
    path = tmp_path / "controller.met"
    assert MetNote(path, boot="b1").epoch == 0
    MetNote(path, boot="b1").keep(Epoch(7))
    assert MetNote(path, boot="b1").epoch == 7
    assert MetNote(path, boot="b2").epoch == 0
    path.write_text("nonsense")
    assert MetNote(path, boot="b1").epoch == 0
