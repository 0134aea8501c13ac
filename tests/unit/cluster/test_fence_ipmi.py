"""Fencing against a real simulated BMC (ipmi_sim): off is believed only when the BMC says off, silence is never
success."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from futago.cluster.facts import Board
from futago.cluster.fence import Power
from futago.cluster.fence.ipmi import IpmiDevice
from futago.cluster.fence.worker import FenceDesk
from futago.cluster.model import At, Epoch, FenceOutcome
from futago.runtime.clock import now_at
from futago.runtime.faults import Refused, Unknown
from futago.runtime.log import Log
from futago.setup.settings import FenceDevice, MemberSettings, PairSettings, Settings

pytestmark = pytest.mark.skipif(
    shutil.which("ipmi_sim") is None or shutil.which("ipmitool") is None, reason="needs ipmi_sim and ipmitool"
)
CONF = """name "bmc"
set_working_mc 0x20
  startlan 1
    addr {address} 623
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcde1
  endlan
  chassis_control "{control} 0x20"
  user 2 true "admin" "secret1" admin 10 none md2 md5 straight
"""
EMU = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
sel_enable 0x20 1000 0x0a
mc_enable 0x20
"""
CONTROL = """#!/bin/sh
shift; op=$1; shift
case "$op" in
 get) for p in "$@"; do case $p in power) echo power:$(cat {state});; *) echo $p:0;; esac; done;;
 set) [ "$1" = power ] && [ ! -e {state}.stuck ] && echo $2 > {state};;
esac
exit 0
"""


class Bmc:
    """A running ipmi_sim; the power that it controls is a file."""

    def __init__(self, home: Path, address: str) -> None:
        self.home, self.address, self.state = home, address, home / "power"
        self.state.write_text("1\n")
        control = home / "control.sh"
        control.write_text(CONTROL.format(state=self.state))
        control.chmod(0o755)
        (home / "lan.conf").write_text(CONF.format(address=address, control=control))
        (home / "emu").write_text(EMU)
        (home / "state").mkdir()
        (home / "password").write_text("secret1\n")
        command = ["ipmi_sim", "-c", "lan.conf", "-f", "emu", "-s", "state", "-n"]
        self.process = subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def settings(self, *, user: str = "admin", password: Path | None = None) -> FenceDevice:
        return FenceDevice("ipmi", self.address, user, str(password or self.home / "password"))


@pytest.fixture
def bmc(tmp_path: Path) -> Iterator[Bmc]:
    address = f"127.{os.getpid() % 250 + 1}.9.{time.time_ns() % 250 + 1}"
    found = Bmc(tmp_path, address)
    ends = time.monotonic() + 5
    while time.monotonic() < ends:
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as s:
            try:
                s.bind((address, 623))
            except OSError:
                break
        time.sleep(0.05)
    yield found
    found.process.kill()
    found.process.wait()


async def test_off_and_on_do_what_they_say(bmc: Bmc) -> None:
    device = IpmiDevice(bmc.settings())
    assert await device.power() is Power.ON
    await device.off()
    assert bmc.state.read_text().strip() == "0" and await device.power() is Power.OFF
    await device.off()  # off counts without a shot
    await device.on()
    assert await device.power() is Power.ON


async def test_wrong_password_is_refused(bmc: Bmc) -> None:
    wrong = bmc.home / "wrong"
    wrong.write_text("nonsense\n")
    with pytest.raises((Refused, Unknown)):
        await IpmiDevice(bmc.settings(password=wrong)).power()


async def test_machine_that_does_not_go_off_is_never_reported_as_off(bmc: Bmc, monkeypatch: pytest.MonkeyPatch) -> None:
    from futago.cluster.fence import ipmi

    monkeypatch.setattr(ipmi, "OFF_S_MAX", 1.0)
    (bmc.home / "power.stuck").write_text("")
    with pytest.raises(Unknown):
        await IpmiDevice(bmc.settings()).off()


async def test_hanging_bmc_is_unknown_within_the_deadline(bmc: Bmc, monkeypatch: pytest.MonkeyPatch) -> None:
    from futago.cluster.fence import ipmi

    monkeypatch.setattr(ipmi, "ASK_S_MAX", 0.7)
    bmc.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(Unknown):
        await IpmiDevice(bmc.settings()).off()
    assert time.monotonic() - began < 3
    bmc.process.send_signal(signal.SIGCONT)


async def test_password_is_not_in_the_arguments(bmc: Bmc) -> None:
    assert "secret1" not in " ".join(IpmiDevice(bmc.settings())._command)


async def test_outcomes_become_facts_and_the_self_test_has_an_age(bmc: Bmc, monkeypatch: pytest.MonkeyPatch) -> None:
    from futago.cluster.fence import ipmi

    members = [
        MemberSettings("m1", "10.0.0.1", "10.0.1.1", "lo"),
        MemberSettings("m2", "10.0.0.2", "10.0.1.2", "lo", bmc.settings()),
    ]
    settings = Settings(me="m1", pair=PairSettings("p", "id", "10.0.0.9/24"), members=members)
    board = Board(cfg=settings.config(), started_at=At(now_at()))
    desk = FenceDesk(settings, board=board, log=Log())
    assert board.fence.is_configured and not desk.tested["m2"].is_fresh(now_at())
    await desk._test("m2", IpmiDevice(bmc.settings()))
    assert desk.tested["m2"].state is Power.ON and desk.tested["m2"].is_fresh(now_at())
    await desk.off(Epoch(7))
    assert board.fence.outcome is FenceOutcome.OFF and board.fence.epoch == 7 and board.fence.at is not None
    await desk.on(Epoch(7))
    assert board.fence.is_powered_on_again
    desk.forget(Epoch(7))
    assert board.fence.is_powered_on_again
    desk.forget(Epoch(8))  # the next epoch may need it again
    assert not board.fence.is_powered_on_again
    monkeypatch.setattr(ipmi, "ASK_S_MAX", 0.7)
    bmc.process.kill()
    bmc.process.wait()
    await desk.off(Epoch(8))
    outcome: object = board.fence.outcome
    assert outcome is FenceOutcome.UNKNOWN and board.fence.epoch == 8
    assert not desk.tested["m2"].is_fresh(now_at()) and desk.tested["m2"].error
