"""Arming, petting and disarming a watchdog device that behaves as the kernel's: the lab's, a real file with real ioctls."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from ctypes.util import find_library
from dataclasses import dataclass
from pathlib import Path

import pytest

from futago.runtime.faults import Refused
from futago.runtime.watchdog import KernelWatchdog

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/fuse").exists() or not (find_library("fuse") or find_library("fuse3")),
    reason="needs root, /dev/fuse and libfuse",
)


@dataclass(frozen=True)
class Machine:
    """A machine with a watchdog; `reset` exists once the device has reset it."""

    device: Path
    reset: Path

    def is_reset_within(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.reset.exists():
            time.sleep(0.02)
        return self.reset.exists()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    mount, reset = tmp_path / "dev", tmp_path / "reset"
    mount.mkdir()
    process = subprocess.Popen([sys.executable, "-m", "futago.lab.watchdog", str(mount), "touch", str(reset)])
    try:
        end = time.monotonic() + 30
        while not (mount / "watchdog").exists():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        yield Machine(mount / "watchdog", reset)
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False)
        process.kill()
        process.wait()


def test_device_that_is_petted_does_nothing_and_resets_soon_after_the_last_pet(machine: Machine) -> None:
    dog = KernelWatchdog(machine.device)
    armed = dog.arm(2)
    assert (armed.identity, armed.timeout_s) == ("lab watchdog", 2)
    for _ in range(12):
        time.sleep(0.2)
        began = time.monotonic()
        dog.pet()
    assert not machine.reset.exists()
    assert machine.is_reset_within(20) and time.monotonic() - began > 1.9
    dog.let_go()


def test_disarmed_device_never_resets(machine: Machine) -> None:
    dog = KernelWatchdog(machine.device)
    dog.arm(1)
    dog.disarm()
    assert not machine.is_reset_within(1.6)


def test_device_whose_program_died_stays_armed_and_the_next_one_takes_it_over(machine: Machine) -> None:
    first, second = KernelWatchdog(machine.device), KernelWatchdog(machine.device)
    first.arm(3)
    with pytest.raises(Refused, match="busy"):
        second.arm(3)
    first.let_go()
    time.sleep(1.7)
    second.arm(3)
    time.sleep(1.7)
    assert not machine.reset.exists()
    second.let_go()
    assert machine.is_reset_within(20)


def test_timeout_that_the_device_does_not_take_leaves_its_own(machine: Machine) -> None:
    dog = KernelWatchdog(machine.device)
    assert dog.arm(100_000).timeout_s == 60
    dog.disarm()


def test_machine_without_a_device_refuses(tmp_path: Path) -> None:
    dog = KernelWatchdog(tmp_path / "none")
    assert not dog.exists()
    with pytest.raises(Refused, match="No such file"):
        dog.arm(3)
    dog.pet()
    dog.disarm()
