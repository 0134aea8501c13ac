"""Powering the standby off and on for proof, on a real simulated BMC: only when the pair can bear it, and in order."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from bmc_sim import Bmc, running_bmc

from futago.cluster.facts import Board
from futago.cluster.fence import trial as room
from futago.cluster.fence.kinds import open_device
from futago.cluster.fence.trial import Trial
from futago.cluster.fence.worker import FenceDesk
from futago.cluster.model import At, Durable, Epoch, FenceOutcome, MemberName, View
from futago.cluster.orders import Orders
from futago.runtime.clock import now_at
from futago.runtime.faults import OperatorFault, Unknown
from futago.runtime.log import Log
from futago.runtime.worker import Worker
from futago.setup.settings import MemberSettings, PairSettings, Settings

pytestmark = pytest.mark.skipif(
    shutil.which("ipmi_sim") is None or shutil.which("ipmitool") is None, reason="needs ipmi_sim and ipmitool"
)


@pytest.fixture
def bmc(tmp_path: Path) -> Iterator[Bmc]:
    with running_bmc(tmp_path) as found:
        yield found


class Told:
    """What was said, and what the power was at that moment."""

    def __init__(self, bmc: Bmc) -> None:
        self.bmc = bmc
        self.lines: list[tuple[str, str]] = []

    async def __call__(self, text: str) -> None:
        self.lines.append((self.bmc.power, text))


def make(bmc: Bmc, *, why_not: str = "", reacts: bool = True, deadline_s: float = 60.0) -> Trial:
    device = open_device(bmc.settings(deadline_s=deadline_s))
    return Trial("m2", device, why_not=lambda: why_not, has_reacted=lambda: reacts and bmc.power == "0", log=Log())


async def test_trial_powers_off_waits_for_the_pair_and_powers_on(bmc: Bmc) -> None:
    told = Told(bmc)
    said = await make(bmc).run(told)
    assert bmc.orders == ["power 0", "power 1"] and bmc.power == "1"
    assert "powered m2 off in" in said and "and on in" in said
    assert [power for power, _ in told.lines] == ["1", "0", "0"]


async def test_trial_is_refused_where_the_pair_could_not_bear_it_and_switches_nothing(bmc: Bmc) -> None:
    with pytest.raises(OperatorFault, match="not protected"):
        await make(bmc, why_not="The pair is not protected: x.").run(Told(bmc))
    bmc.state.write_text("0\n")
    with pytest.raises(OperatorFault, match="does not say that m2 is on"):
        await make(bmc).run(Told(bmc))
    assert bmc.orders == []


async def test_trial_whose_device_does_not_confirm_is_unknown(bmc: Bmc) -> None:
    bmc.stick()
    with pytest.raises(Unknown, match="did not confirm off"):
        await make(bmc, deadline_s=6.0).run(Told(bmc))


async def test_pair_that_does_not_react_does_not_leave_the_standby_off(
    bmc: Bmc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "REACT_S_MAX", 0.3)
    told = Told(bmc)
    await make(bmc, reacts=False).run(told)
    assert bmc.power == "1" and any("has not gone on" in text for _, text in told.lines)


M1, M2 = MemberName("m1"), MemberName("m2")


def counter(bmc: Bmc, home: Path) -> tuple[Orders, Board]:
    """The orders of m1, which serves in a view with m2; nothing is heard of m2."""
    members = [
        MemberSettings("m1", "10.0.0.1", "10.0.1.1", "lo"),
        MemberSettings("m2", "10.0.0.2", "10.0.1.2", "lo", [bmc.settings()]),
    ]
    settings = Settings(me="m1", pair=PairSettings("lab", "id", "10.0.0.9/24"), members=members)
    board = Board(cfg=settings.config(), started_at=At(now_at()))
    board.read_durable = lambda: Durable(view=View(Epoch(2), M1, frozenset({M1, M2})))
    orders = Orders(
        board=board, peer=None, fences=FenceDesk(settings, board=board, log=Log()), system=Worker("system"),  # type: ignore[arg-type]
        settings=lambda: settings, forget_peers_sign=lambda: None, log=Log(), path=home / "sign.json",
    )  # fmt: skip
    return orders, board


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"member": "m2", "confirm": "yes"}, "not confirmed"),
        ({"member": "m2"}, "not confirmed"),
        ({"member": "m2", "confirm": "m2"}, "not protected"),
        ({"member": "m2", "confirm": "m2", "level": 2}, "no power device 2"),
        ({"member": "m1", "confirm": "m1"}, "no power device 1"),
        ({"member": "m3", "confirm": "m3"}, "no member `m3`"),
    ],
)
async def test_request_that_must_not_switch_anything_is_refused(
    bmc: Bmc, tmp_path: Path, words: dict[str, object], expected: str
) -> None:
    orders, _ = counter(bmc, tmp_path)
    with pytest.raises(OperatorFault, match=expected):
        await orders.carry_out({"op": "fence-test", "power_cycle": True, **words}, Told(bmc))
    assert bmc.orders == []


async def test_pair_has_reacted_when_there_is_a_newer_view_and_no_shot_under_way(bmc: Bmc, tmp_path: Path) -> None:
    orders, board = counter(bmc, tmp_path)
    assert not orders._has_reacted(2)
    board.read_durable = lambda: Durable(view=View(Epoch(3), M1, frozenset({M1})))
    assert orders._has_reacted(2)
    board.put_fence(outcome=FenceOutcome.PENDING)
    assert not orders._has_reacted(2)
    board.put_fence(outcome=FenceOutcome.OFF)
    assert orders._has_reacted(2)
