"""What an operator began goes on to its end when the operator leaves; and what makes no sense is not begun."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from futago.cluster import desk as desk_room
from futago.cluster.control import Message, Say
from futago.cluster.desk import ControllerDesk
from futago.cluster.facts import Board
from futago.cluster.model import At, Config, MemberName, PgState
from futago.runtime.faults import OperatorFault, Unknown
from futago.runtime.log import Log


class Seating:
    """Seats in two steps, each of which is told."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def seat(self, _request: Message, say: Say) -> Message:
        for step in ("both members give it up", "telling the new one who serves"):
            await say(step)
            self.done.append(step)
        return {"ok": True}


@pytest.mark.parametrize("asked", ["here", "over the other member"])
async def test_seating_of_a_third_vote_goes_on_when_whoever_asked_has_left(asked: str) -> None:
    desk: Any = ControllerDesk.__new__(ControllerDesk)
    desk.seating = Seating()

    async def gone(_text: str) -> None:
        raise ConnectionResetError("the terminal was closed")

    ask = desk.operate if asked == "here" else desk.serve_peer
    assert (await ask({"op": "vote"}, gone))["ok"]
    assert len(desk.seating.done) == 2


class Recovery:
    """Notes the patience that it was asked for."""

    def __init__(self) -> None:
        self.patience: list[float] = []

    async def follow(self, _say: Say, *, patience_s: float) -> Message:
        self.patience.append(patience_s)
        return {"ok": True}


async def test_patience_of_none_or_of_nonsense_is_refused_and_not_taken_for_the_default() -> None:
    desk: Any = ControllerDesk.__new__(ControllerDesk)
    desk.recovery = Recovery()

    async def nothing(_text: str) -> None:
        pass

    for wrong in (0, -5, 1e9, "soon", True, float("nan")):
        with pytest.raises(OperatorFault, match="makes no sense"):
            await desk.operate({"op": "recover", "patience_s": wrong}, nothing)
    await desk.operate({"op": "recover"}, nothing)
    await desk.operate({"op": "recover", "patience_s": 7}, nothing)
    assert desk.recovery.patience == [300.0, 7.0]


class Replay:
    """A standby whose answers get lost: what was asked of it happens all the same."""

    def __init__(self) -> None:
        self.is_paused = False
        self.lost = 0
        self.changed = asyncio.Event()

    async def pause_own_replay(self, *, pause: bool) -> None:
        if not pause and self.lost > 0:
            self.lost -= 1
            raise Unknown("late")
        self.is_paused = pause
        self.changed.set()
        if pause and self.lost > 0:
            self.lost -= 1
            raise Unknown("late")


def pausing(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Replay]:
    monkeypatch.setattr(desk_room, "PAUSE_S_MAX", 0.02)
    desk: Any = ControllerDesk.__new__(ControllerDesk)
    desk._board = Board(
        cfg=Config(me=MemberName("m1"), peer=MemberName("m2"), h=1, k=1, bias=1, t_stall=1), started_at=At(0)
    )
    desk._board.put_pg(state=PgState.STANDBY)
    desk._sync, desk._log, desk._resume = Replay(), Log(), None
    return desk, desk._sync


@pytest.mark.parametrize("lost", [1, 3])
async def test_pause_of_replay_whose_answer_was_lost_ends_by_itself(lost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, replay = pausing(monkeypatch)
    replay.lost = lost
    with pytest.raises(Unknown):
        await desk._answer_replay({"pause": True})
    assert replay.is_paused
    replay.changed.clear()
    async with asyncio.timeout(30):
        await replay.changed.wait()
    assert not replay.is_paused


async def test_pause_of_replay_that_could_not_be_ended_on_demand_ends_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk, replay = pausing(monkeypatch)
    await desk._answer_replay({"pause": True})
    replay.lost = 1
    with pytest.raises(Unknown):
        await desk._answer_replay({"pause": False})
    replay.changed.clear()
    async with asyncio.timeout(30):
        await replay.changed.wait()
    assert not replay.is_paused
