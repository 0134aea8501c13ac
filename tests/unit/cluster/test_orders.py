"""Operators' short orders: the sign of maintenance on both members, the test of power devices, the confirmation of a
forced start. Two real halves talk to each other directly."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from futago.cluster import orders as room
from futago.cluster.facts import Board
from futago.cluster.fence import Power
from futago.cluster.fence.worker import Tested
from futago.cluster.model import At, Config, Durable, Epoch, Facts, MemberName, Peer, View
from futago.cluster.orders import Orders, Sign, read_sign
from futago.cluster.word import word
from futago.runtime.clock import MS, S, now_at
from futago.runtime.faults import OperatorFault, Refused
from futago.runtime.log import Log
from futago.runtime.worker import Worker
from futago.setup.settings import MemberSettings, PairSettings, Settings

NAMES = ("m1", "m2")


async def nothing(_text: str) -> None:
    pass


class Half:
    """One member's orders."""

    def __init__(self, name: str, folder: Path) -> None:
        other = next(n for n in NAMES if n != name)
        self.cfg = Config(me=MemberName(name), peer=MemberName(other), h=200 * MS, k=10, bias=300 * MS, t_stall=2 * S)
        self.board = Board(cfg=self.cfg, started_at=At(now_at()))
        view = View(Epoch(2), MemberName("m1"), frozenset(MemberName(n) for n in NAMES))
        self.board.read_durable = lambda: Durable(view=view)
        self.board.read_peer = lambda: self.peer
        self.peer = Peer(watching_since=At(now_at()))
        self.other: Half | None = None
        self.forgot = 0
        self.errors: dict[str, str] = {}
        members = [MemberSettings(n, f"10.0.0.{i}", f"10.0.1.{i}", "e") for i, n in enumerate(NAMES, 1)]
        settings = Settings(me=name, pair=PairSettings("lab", "id", "10.0.0.9/24"), members=members)
        self.path = folder / f"{name}.json"
        self.orders = Orders(
            board=self.board, peer=self, fences=self, system=Worker("system"), settings=lambda: settings,  # type: ignore[arg-type]
            forget_peers_sign=self._forget, log=Log(), path=self.path,
        )  # fmt: skip

    def _forget(self) -> None:
        self.forgot += 1

    async def test(self, member: str | None = None) -> tuple[Tested, ...]:
        """The power devices, as this member's desk would ask them."""
        names = [n for n in NAMES if member in (None, n)]
        return tuple(Tested(n, "ipmi", Power.ON, now_at(), self.errors.get(n, "")) for n in names)

    async def ask(self, op: str, *, deadline_s: float, **fields: Any) -> dict[str, Any]:
        if self.other is None:
            raise Refused("it cannot be reached")
        return await self.other.orders.carry_out({"op": op, "is_relayed": True, **fields}, nothing)

    def hear(self, other: Half) -> None:
        """The other member is heard."""
        facts = Facts(cfg=other.cfg, durable=self.board.read_durable(), maintenance=other.board.maintenance)
        self.peer = replace(self.peer, heartbeat=word(facts), heard_at=At(now_at()))


@pytest.fixture
async def pair(tmp_path: Path) -> tuple[Half, Half]:
    a, b = (Half(n, tmp_path) for n in NAMES)
    a.other, b.other = b, a
    return a, b


async def test_sign_hangs_on_both_members_and_outlives_a_restart(pair: tuple[Half, Half], tmp_path: Path) -> None:
    a, b = pair
    answer = await a.orders.carry_out({"op": "maintenance", "on": True}, nothing)
    assert answer["maintenance"] and a.board.maintenance and b.board.maintenance
    assert read_sign(b.path) == Sign(on=True, number=1)
    assert Half("m2", tmp_path).board.maintenance  # a controller that starts anew
    await b.orders.carry_out({"op": "maintenance", "on": False}, nothing)
    assert not a.board.maintenance and not b.board.maintenance


async def test_member_that_was_away_takes_the_newer_sign_when_it_is_heard(
    pair: tuple[Half, Half], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "COMPARE_S", 0.01)
    a, b = pair
    await a.orders.carry_out({"op": "maintenance", "on": True}, nothing)
    a.other = None
    answer = await a.orders.carry_out({"op": "maintenance", "on": False}, nothing)
    assert a.forgot == 1 and "could not be told" in answer["text"]  # its last word was that maintenance is on
    assert b.board.maintenance and not a.board.maintenance
    a.other = b
    a.hear(b)
    comparing = asyncio.create_task(a.orders.run())
    async with asyncio.timeout(30):
        while b.board.maintenance:
            await asyncio.sleep(0.01)
    comparing.cancel()
    assert not a.board.maintenance and read_sign(b.path).number == 2


async def test_damaged_sign_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    assert read_sign(tmp_path / "x.json") == Sign()


async def test_devices_are_asked_from_both_members(pair: tuple[Half, Half]) -> None:
    a, b = pair
    b.errors["m1"] = "it refuses the password"
    answer = await a.orders.carry_out({"op": "fence-test"}, nothing)
    assert not answer["passed"] and [(r["from"], r["member"], r["ok"]) for r in answer["tests"]] == [
        ("m1", "m1", True), ("m1", "m2", True), ("m2", "m1", False), ("m2", "m2", True),
    ]  # fmt: skip
    only = await a.orders.carry_out({"op": "fence-test", "member": "m2"}, nothing)
    assert only["passed"] and {r["member"] for r in only["tests"]} == {"m2"}
    a.other = None
    alone = await a.orders.carry_out({"op": "fence-test"}, nothing)
    assert not alone["passed"] and "could not be asked" in alone["tests"][-1]["error"]
    with pytest.raises(OperatorFault, match="no member `m9`"):
        await a.orders.carry_out({"op": "fence-test", "member": "m9"}, nothing)


@pytest.mark.parametrize("words", [{}, {"confirm": "yes"}, {"confirm": "LAB"}])
async def test_forced_start_needs_the_pairs_name(pair: tuple[Half, Half], words: dict[str, str]) -> None:
    with pytest.raises(OperatorFault) as refused:
        pair[0].orders.require_confirmation(words)
    assert refused.value.code == "pair.confirm" and "`lab`" in refused.value.hint
    pair[0].orders.require_confirmation({"confirm": "lab"})
