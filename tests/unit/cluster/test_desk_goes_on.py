"""What an operator began goes on to its end when the operator leaves."""

from __future__ import annotations

from typing import Any

import pytest

from futago.cluster.control import Message, Say
from futago.cluster.desk import ControllerDesk


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
