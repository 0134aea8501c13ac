"""Fencing by programs: real fence_ipmilan of ClusterLabs against a real simulated BMC, and programs of the user's own."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bmc_sim import Bmc, running_bmc

from futago.cluster.fence import Power
from futago.cluster.fence.kinds import open_device
from futago.lab import agents
from futago.runtime import process
from futago.runtime.faults import Refused, Unknown
from futago.setup.fences import FenceDevice
from futago.setup.fencing import power_state


@pytest.fixture(scope="module")
def fence_ipmilan(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The agent: the machine's own, or the one of Debian's package, unpacked."""
    if shutil.which("ipmi_sim") is None:
        pytest.skip("needs ipmi_sim")
    if installed := shutil.which("fence_ipmilan"):
        return installed
    try:
        layer = agents.ensure()
    except (Refused, Unknown, OSError) as e:
        pytest.skip(f"fence-agents cannot be fetched: {e}")
    return str(agents.runner(layer, "fence_ipmilan", tmp_path_factory.mktemp("agent") / "fence_ipmilan"))


@pytest.fixture
def bmc(tmp_path: Path) -> Iterator[Bmc]:
    with running_bmc(tmp_path) as found:
        yield found


def agent(
    bmc: Bmc, program: str, *, password: Path | None = None, deadline_s: float = 60.0, **options: str
) -> FenceDevice:
    account = bmc.settings(password=password)
    given = {"lanplus": "1", "cipher": "3", "power_wait": "0", **options}
    return FenceDevice(
        "agent", account.address, account.user, account.password_file, program, options=given, deadline_s=deadline_s
    )


async def test_fence_agent_powers_off_and_on(bmc: Bmc, fence_ipmilan: str) -> None:
    tried = open_device(agent(bmc, fence_ipmilan))
    assert await tried.power() is Power.ON
    await tried.off()
    assert bmc.power == "0" and await tried.power() is Power.OFF
    await tried.off()
    await tried.on()
    assert bmc.power == "1" and bmc.orders == ["power 0", "power 1"]


async def test_fence_agent_with_a_wrong_password_never_confirms(bmc: Bmc, fence_ipmilan: str) -> None:
    wrong = bmc.home / "wrong"
    wrong.write_text("nonsense\n")
    with pytest.raises((Refused, Unknown), match="exit code 1"):
        await open_device(agent(bmc, fence_ipmilan, password=wrong)).off()
    assert bmc.power == "1"


async def test_fence_agent_whose_device_is_dead_is_unknown_and_ended_at_the_deadline(
    bmc: Bmc, fence_ipmilan: str
) -> None:
    bmc.process.kill()
    bmc.process.wait()
    began = time.monotonic()
    with pytest.raises(Unknown):
        await open_device(agent(bmc, fence_ipmilan, deadline_s=2.0)).off()
    assert time.monotonic() - began < 15


def test_parameter_that_the_agent_does_not_know_is_found_at_set_up(bmc: Bmc, fence_ipmilan: str) -> None:
    """The agent itself would ignore it, and switch what it means without it."""
    device = agent(bmc, fence_ipmilan)
    assert power_state(device, "secret1") == "on"
    with pytest.raises(Refused, match="knows no parameter lanpuls; did you mean lanplus"):
        power_state(agent(bmc, fence_ipmilan, lanpuls="1"), "secret1")


async def test_agent_that_is_not_installed_is_refused() -> None:
    with pytest.raises(Refused, match="no program fence_nowhere"):
        await open_device(FenceDevice("agent", program="fence_nowhere")).power()


async def test_exit_code_2_without_the_word_off_is_not_off(tmp_path: Path) -> None:
    """argparse and others end so when they do not understand their input."""
    program = script(tmp_path, "echo usage: fence_x >&2; exit 2")
    with pytest.raises(Unknown, match="exit code 2"):
        await open_device(FenceDevice("agent", program=str(program))).power()


async def test_agent_gets_its_parameters_on_standard_input_and_nothing_in_its_arguments(tmp_path: Path) -> None:
    program = script(tmp_path, f'cat > {tmp_path}/in; echo "$#" > {tmp_path}/count; echo "Status: OFF"; exit 2')
    (tmp_path / "secret").write_text("s3cret\n")
    device = FenceDevice("agent", "192.0.2.1", "root", str(tmp_path / "secret"), str(program), {"plug": "7"})
    assert await open_device(device).power() is Power.OFF
    assert (tmp_path / "count").read_text() == "0\n"
    wanted = {"action=status", "ip=192.0.2.1", "username=root", "password=s3cret", "plug=7"}
    assert set((tmp_path / "in").read_text().split()) == wanted


def script(home: Path, body: str, *, mode: int = 0o755) -> Path:
    """Write a program."""
    where = home / "program"
    where.write_text(f"#!/bin/sh\n{body}\n")
    where.chmod(mode)
    return where


SWITCH = """echo "$@" >> {home}/calls
case "$1" in
 status) [ -e {home}/off ] && exit 2; exit 0;;
 off) : > {home}/off;;
 on) rm -f {home}/off;;
esac
"""


async def test_command_powers_off_and_on(tmp_path: Path) -> None:
    tried = open_device(
        FenceDevice("command", "192.0.2.7", program=str(script(tmp_path, SWITCH.format(home=tmp_path))))
    )
    assert await tried.power() is Power.ON
    await tried.off()
    await tried.on()
    calls = (tmp_path / "calls").read_text().split("\n")[:-1]
    verbs = ["status", "status", "off", "status", "status", "on", "status"]
    assert calls == [f"{verb} 192.0.2.7" for verb in verbs]


@pytest.mark.parametrize("code", [1, 3])
async def test_device_that_does_not_take_an_order_and_then_says_off_has_proved_that_the_machine_is_off(
    tmp_path: Path, code: int
) -> None:
    body = f"[ $1 = off ] && {{ : > {tmp_path}/off; exit {code}; }}; [ -e {tmp_path}/off ] && exit 2; exit 0"
    program = script(tmp_path, body)
    await open_device(FenceDevice("command", program=str(program))).off()


async def test_refusal_counts_where_the_device_then_says_that_the_machine_is_on_or_says_nothing(tmp_path: Path) -> None:
    for then in (0, 3):
        body = f"[ $1 = off ] && {{ : > {tmp_path}/off; echo no such outlet >&2; exit 1; }}; [ -e {tmp_path}/off ] && exit {then}"
        with pytest.raises(Refused, match="no such outlet"):
            await open_device(FenceDevice("command", program=str(script(tmp_path, f"{body}; exit 0")))).off()
        (tmp_path / "off").unlink()


@pytest.mark.parametrize(("code", "kind"), [(1, Refused), (3, Unknown), (126, Unknown)])
async def test_exit_code_of_a_command_tells_refused_from_unknown(
    tmp_path: Path, code: int, kind: type[Exception]
) -> None:
    program = script(tmp_path, f"echo sorry >&2; exit {code}")
    with pytest.raises(kind, match=f"exit code {code}: sorry"):
        await open_device(FenceDevice("command", program=str(program))).off()


@pytest.mark.parametrize(("deadline_s", "patience_s"), [(2, 2), (10, 5), (40, 20), (300, 30)])
async def test_slow_device_is_given_a_part_of_its_deadline_to_say_its_state(
    deadline_s: float, patience_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    async def run(_command: object, *, deadline_s: float, **_more: object) -> process.Ended:
        given.append(deadline_s)
        return process.Ended(0, "", "")

    monkeypatch.setattr(process, "run", run)
    device = FenceDevice("command", program="/bin/true", deadline_s=deadline_s)
    assert await open_device(device).power() is Power.ON
    assert given == [patience_s]


async def test_command_that_hangs_is_ended_and_unknown(tmp_path: Path) -> None:
    program = script(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60")
    began = time.monotonic()
    with pytest.raises(Unknown):
        await open_device(FenceDevice("command", program=str(program), deadline_s=3.0)).off()
    assert time.monotonic() - began < 15
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


async def test_password_of_a_command_is_its_standard_input(tmp_path: Path) -> None:
    program = script(tmp_path, f'cat > {tmp_path}/in; echo "$*" > {tmp_path}/words')
    (tmp_path / "secret").write_text("s3cret\n")
    device = FenceDevice("command", "pdu", "x", password_file=str(tmp_path / "secret"), program=str(program))
    assert await open_device(device).power() is Power.ON
    assert (tmp_path / "in").read_text() == "s3cret" and (tmp_path / "words").read_text() == "status pdu x\n"


async def test_program_that_others_may_change_is_not_run_as_root(tmp_path: Path) -> None:
    for driver in ("command", "agent"):
        program = script(tmp_path, f": > {tmp_path}/ran", mode=0o777)
        with pytest.raises(Refused, match="can be changed by others"):
            await open_device(FenceDevice(driver, program=str(program))).off()
    if os.geteuid() == 0:
        os.chown(script(tmp_path, ":"), 65534, 65534)
        with pytest.raises(Refused, match="can be changed by others"):
            await open_device(FenceDevice("command", program=str(tmp_path / "program"))).off()
    with pytest.raises(Refused, match="not an absolute path"):
        await open_device(FenceDevice("command", program="reboot")).off()
    assert not (tmp_path / "ran").exists()
