"""Fencing against a real simulated BMC (ipmi_sim): off is believed only when the BMC says off, silence is never
success, and a second device stands in for the first.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from bmc_sim import Bmc, running_bmc

from futago.cluster.facts import Board
from futago.cluster.fence import Power
from futago.cluster.fence.device import Device
from futago.cluster.fence.ipmi import IpmiDriver
from futago.cluster.fence.kinds import open_device, open_levels
from futago.cluster.fence.worker import FenceDesk
from futago.cluster.model import At, Epoch, FenceOutcome, Peer
from futago.runtime.clock import now_at
from futago.runtime.faults import Refused, Unknown
from futago.runtime.log import Log
from futago.setup.fences import FenceDevice
from futago.setup.settings import MemberSettings, PairSettings, Settings

pytestmark = pytest.mark.skipif(
    shutil.which("ipmi_sim") is None or shutil.which("ipmitool") is None, reason="needs ipmi_sim and ipmitool"
)
ABSENT = FenceDevice("ipmi", "127.255.1.1", "admin", "/dev/null", deadline_s=1.0)  # nobody listens there


@pytest.fixture
def bmc(tmp_path: Path) -> Iterator[Bmc]:
    with running_bmc(tmp_path) as found:
        yield found


def device(bmc: Bmc, **changes: object) -> Device:
    return open_device(bmc.settings(**changes))  # type: ignore[arg-type]


async def test_off_and_on_do_what_they_say(bmc: Bmc) -> None:
    tried = device(bmc)
    assert await tried.power() is Power.ON
    await tried.off()
    assert bmc.power == "0" and await tried.power() is Power.OFF
    await tried.on()
    assert bmc.power == "1" and await tried.power() is Power.ON


async def test_off_of_a_machine_that_is_off_counts(bmc: Bmc) -> None:
    bmc.state.write_text("0\n")
    await device(bmc).off()
    assert bmc.power == "0" and "power 1" not in bmc.orders


async def test_order_that_the_bmc_refuses_counts_unless_the_machine_is_off_all_the_same(bmc: Bmc) -> None:
    tried = open_device(
        msgspec.structs.replace(bmc.settings(), options={"privilege": "USER"})
    )  # one that may ask and not order
    with pytest.raises(Refused, match="Insufficient privilege"):
        await tried.off()
    assert bmc.orders == [] and bmc.power == "1"
    bmc.state.write_text("0\n")
    await tried.off()
    assert bmc.orders == []


async def test_wrong_password_and_wrong_user_are_refused_and_told_apart_from_silence(bmc: Bmc) -> None:
    wrong = bmc.home / "wrong"
    wrong.write_text("nonsense\n")
    with pytest.raises(Refused, match="refuses the password of admin"):
        await device(bmc, password=wrong).off()
    with pytest.raises(Refused, match="no user nobody"):
        await device(bmc, user="nobody").power()
    assert bmc.orders == []


async def test_machine_that_does_not_go_off_is_never_reported_as_off(bmc: Bmc) -> None:
    bmc.stick()
    with pytest.raises(Unknown, match=r"did not confirm off within 8 s; it said that it is on"):
        await device(bmc, deadline_s=8.0).off()
    assert bmc.orders == ["power 0"]


async def test_hanging_bmc_is_unknown_within_the_deadline(bmc: Bmc) -> None:
    bmc.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(Unknown):
        await device(bmc, deadline_s=1.0).off()
    with pytest.raises(Unknown, match="it does not answer"):
        await device(bmc, deadline_s=1.0).power()
    assert time.monotonic() - began < 20
    bmc.process.send_signal(signal.SIGCONT)


async def test_bmc_that_hangs_in_the_middle_of_an_off_is_unknown_until_it_answers_again(bmc: Bmc) -> None:
    tried = device(bmc, deadline_s=60.0)
    bmc.stick()
    work = asyncio.create_task(tried.off())
    while not bmc.orders:
        await asyncio.sleep(0.02)
    bmc.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(0.3)
    bmc.state.write_text("0\n")
    bmc.process.send_signal(signal.SIGCONT)
    await work  # confirmed by the state that it told afterwards


async def test_password_is_not_in_the_arguments(bmc: Bmc) -> None:
    assert "secret1" not in " ".join(IpmiDriver(bmc.settings())._command)


async def test_second_device_confirms_where_the_first_one_is_dead_and_is_not_held_up_by_it(bmc: Bmc) -> None:
    levels = open_levels([msgspec.structs.replace(ABSENT, deadline_s=6.0), bmc.settings()])
    assert await levels.power() is Power.ON
    await levels.off()
    assert bmc.power == "0" and levels.cut_by == f"ipmi {bmc.address}"
    work = asyncio.create_task(levels.on())
    while bmc.power != "1":
        assert not work.done(), "the dead one was waited for first"
        await asyncio.sleep(0.02)
    await work


async def test_device_that_cut_the_power_must_bring_it_back(bmc: Bmc, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with running_bmc(tmp_path / "second") as second:
        levels = open_levels([bmc.settings(deadline_s=10.0), second.settings()])
        await levels.off()
        assert (bmc.power, second.power) == ("0", "1")
        bmc.stick()
        with pytest.raises(Unknown, match="did not confirm on"):
            await levels.on()


async def test_second_device_is_tried_where_the_first_one_takes_the_order_and_does_nothing(
    bmc: Bmc, tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    with running_bmc(tmp_path / "second") as second:
        bmc.stick()
        levels = open_levels([bmc.settings(attempts=2, deadline_s=8.0), second.settings()])
        await levels.off()
        assert bmc.orders == ["power 0", "power 0"], "each attempt of the first level is a new order"
        assert second.power == "0" and levels.cut_by == f"ipmi {second.address}"


async def test_levels_that_all_refuse_did_certainly_nothing_and_one_that_is_silent_makes_it_unknown(bmc: Bmc) -> None:
    with pytest.raises(Refused):
        await open_levels([bmc.settings(user="x"), bmc.settings(user="y")]).off()
    with pytest.raises(Unknown, match=r"no user x.*127\.255\.1\.1"):
        await open_levels([bmc.settings(user="x"), ABSENT]).off()
    assert bmc.orders == []


async def test_machine_that_is_harmless_by_now_is_not_shot_by_the_next_level(bmc: Bmc) -> None:
    """It was reset by its own watchdog while the first device was silent, and has learned who serves."""
    levels = open_levels([ABSENT, bmc.settings()])
    with pytest.raises(Unknown, match="not wanted any more"):
        await levels.off(lambda: False)
    assert bmc.orders == [] and bmc.power == "1"


class Pair:
    """The desk of m1, whose peer m2 has the devices under test."""

    def __init__(self, *devices: FenceDevice, own: FenceDevice | None = None) -> None:
        members = [
            MemberSettings("m1", "10.0.0.1", "10.0.1.1", "lo", [own] if own else []),
            MemberSettings("m2", "10.0.0.2", "10.0.1.2", "lo", list(devices)),
        ]
        self.settings = Settings(me="m1", pair=PairSettings("p", "id", "10.0.0.9/24"), members=members)
        self.board = Board(cfg=self.settings.config(), started_at=At(now_at()))
        self.desk = FenceDesk(self.settings, board=self.board, log=Log())

    def is_fresh(self, key: str) -> bool:
        return self.desk.tested[key].is_fresh(now_at())


async def test_outcomes_become_facts_and_the_self_test_has_an_age(bmc: Bmc) -> None:
    pair = Pair(bmc.settings(deadline_s=10.0))
    board, desk = pair.board, pair.desk
    assert board.fence.is_configured and not pair.is_fresh("m2")
    await desk.test()
    assert desk.tested["m2"].state is Power.ON and pair.is_fresh("m2")
    await desk.off(Epoch(7))
    assert board.fence.outcome is FenceOutcome.OFF and board.fence.epoch == 7 and board.fence.at is not None
    await desk.on(Epoch(7))
    assert board.fence.is_powered_on_again
    desk.forget(Epoch(7))
    assert board.fence.is_powered_on_again
    desk.forget(Epoch(8))  # the next epoch may need it again
    assert not board.fence.is_powered_on_again
    bmc.process.kill()
    bmc.process.wait()
    await desk.off(Epoch(8))
    outcome: object = board.fence.outcome
    assert outcome is FenceOutcome.UNKNOWN and board.fence.epoch == 8
    await desk.test()
    assert not pair.is_fresh("m2") and desk.tested["m2"].error


async def test_refused_off_is_a_failure_and_not_an_unknown(bmc: Bmc) -> None:
    pair = Pair(bmc.settings(user="nobody"))
    await pair.desk.off(Epoch(3))
    assert pair.board.fence.outcome is FenceOutcome.FAILED and bmc.power == "1"


async def test_each_level_is_tested_by_itself(bmc: Bmc) -> None:
    pair = Pair(ABSENT, bmc.settings())
    await pair.desk.test()
    assert not pair.is_fresh("m2") and pair.is_fresh("m2/2")
    assert pair.desk.tested["m2/2"].level == 2 and pair.desk.tested["m2"].error


async def test_device_that_calls_a_living_member_off_is_found_out(bmc: Bmc, tmp_path: Path) -> None:
    """A liar, or the device of another machine: it would confirm every off."""
    (tmp_path / "own").mkdir()
    with running_bmc(tmp_path / "own") as own:
        pair = Pair(bmc.settings(), own=own.settings())
        bmc.state.write_text("0\n")
        own.state.write_text("0\n")
        await pair.desk.test()
        assert "this machine is off, which runs" in pair.desk.tested["m1"].error
        assert pair.is_fresh("m2"), "nobody hears m2: it may well be off"
        pair.board.read_peer = lambda: replace(Peer(), heard_at=At(now_at()))  # its heartbeats go on
        await pair.desk.test()
        assert "m2 is off, which is heard to run" in pair.desk.tested["m2"].error and not pair.is_fresh("m2")
        own.state.write_text("1\n")
        await pair.desk.test("m1")
        assert pair.is_fresh("m1")


async def test_device_of_a_member_that_is_switched_on_while_it_is_tested_is_no_liar(bmc: Bmc) -> None:
    pair = Pair(bmc.settings())
    bmc.state.write_text("0\n")

    def runs() -> Peer:
        bmc.state.write_text("1\n")  # it was switched on after the device had been asked, and is heard by now
        return replace(Peer(), heard_at=At(now_at()))

    pair.board.read_peer = runs
    await pair.desk.test()
    assert pair.desk.tested["m2"].state is Power.ON and not pair.desk.tested["m2"].error and pair.is_fresh("m2")
