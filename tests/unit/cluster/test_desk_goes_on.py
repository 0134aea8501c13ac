"""What an operator began goes on to its end when the operator leaves; and what makes no sense is not begun."""

from __future__ import annotations

from typing import Any

import pytest

from futago.cluster.control import Message, Say
from futago.cluster.desk import ControllerDesk
from futago.runtime.faults import OperatorFault


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
