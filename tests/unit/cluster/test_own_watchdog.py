"""The guard and the machine's own watchdog: held while a controller lives or the will was performed, and in no other
case; on the lab's device, a real file with real ioctls.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from ctypes.util import find_library
from pathlib import Path

import msgspec
import pytest

from futago.cluster.facts import Board
from futago.cluster.fence.oneself import Note, OwnWatchdog, read_note
from futago.cluster.fence.worker import FenceDesk
from futago.cluster.guard import Guard, Handle, send
from futago.cluster.model import At
from futago.runtime.clock import now_at
from futago.runtime.log import Log
from futago.runtime.watchdog import KernelWatchdog
from futago.setup.settings import MemberSettings, PairSettings, Settings

needs_device = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/fuse").exists() or not (find_library("fuse") or find_library("fuse3")),
    reason="needs root, /dev/fuse and libfuse",
)


class House:
    """A guard with a watchdog device, and the hand on its handle."""

    def __init__(self, home: Path) -> None:
        self.home, self.reset, self.note = home, home / "reset", home / "watchdog.json"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.stop = asyncio.Event()
        device = KernelWatchdog(home / "dev/watchdog")
        watchdog = OwnWatchdog(device=device, note=self.note, log=Log())
        self.cgroup = home / "cgroup"  # a plain folder: the will that is performed on it is a file's content
        self.cgroup.mkdir()
        (self.cgroup / "cgroup.procs").write_text("")
        self.alive = Handle(pid=1, is_armed=True, cgroup=str(self.cgroup), watchdog_s=2)
        self.guard = Guard(path=home / "guard.sock", log=Log(), watchdog=watchdog)

    async def hold(self, seconds: float, handle: Handle) -> None:
        """Hold the handle as a controller does."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            send(self.socket, handle, self.home / "guard.sock")
            await asyncio.sleep(0.1)

    async def is_reset_within(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.reset.exists():
            await asyncio.sleep(0.05)
        return self.reset.exists()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "dev"
    mount.mkdir()
    command = [sys.executable, "-m", "futago.lab.watchdog", str(mount), "touch", str(tmp_path / "reset")]
    process = subprocess.Popen(command)
    try:
        end = time.monotonic() + 30
        while not (mount / "watchdog").exists():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False)
        process.kill()
        process.wait()


@pytest.fixture
async def house(tmp_path: Path, device: Path) -> AsyncIterator[House]:
    found = House(tmp_path)
    task = asyncio.create_task(found.guard.run(found.stop))
    yield found
    found.stop.set()
    await task
    found.socket.close()


@needs_device
async def test_watchdog_is_held_while_a_controller_lives_and_after_its_will_was_performed(house: House) -> None:
    assert read_note(house.note) is None, "nothing is armed before a controller has lived"
    await house.hold(0.5, house.alive)
    assert read_note(house.note) == Note(str(house.home / "dev/watchdog"), "lab watchdog", 2)
    assert not await house.is_reset_within(3.5), "the will is performed after one second"
    await house.hold(0.3, msgspec.structs.replace(house.alive, is_armed=False))
    assert read_note(house.note) is None, "put away with the controller"


@needs_device
async def test_last_will_that_cannot_be_performed_lets_the_machine_be_reset(house: House) -> None:
    (house.cgroup / "cgroup.procs").unlink()
    (house.cgroup / "cgroup.procs").mkdir()  # cannot be read
    await house.hold(0.3, house.alive)
    assert await house.is_reset_within(5.0)


@needs_device
async def test_guard_that_does_not_turn_lets_the_machine_be_reset(house: House) -> None:
    await house.hold(0.3, house.alive)
    end = time.monotonic() + 30
    while not house.reset.exists():  # the loop stands still, as on a machine that hangs
        assert time.monotonic() < end
        time.sleep(0.05)


def desk(mode: str, note: Note | None) -> FenceDesk:
    settings = Settings(
        me="m1",
        pair=PairSettings("p", "id", "10.0.0.9/24", watchdog=mode),
        members=[MemberSettings("m1", "10.0.0.1", "10.0.1.1", "lo")],
    )
    board = Board(cfg=settings.config(), started_at=At(now_at()))
    return FenceDesk(settings, board=board, log=Log(), read_note=lambda: note)


@pytest.mark.parametrize(
    ("mode", "note", "expected"),
    [
        ("auto", None, None),
        ("auto", Note("/dev/watchdog", "iTCO_wdt", 3), ""),
        ("auto", Note("/dev/watchdog", error="Device or resource busy"), "Device or resource busy"),
        ("required", None, "this machine has none, or the guard does not run"),
        ("off", Note("/dev/watchdog", "iTCO_wdt", 3), None),
    ],
)
async def test_status_tells_of_the_watchdog_where_there_is_one_or_must_be(
    mode: str, note: Note | None, expected: str | None
) -> None:
    found = desk(mode, note)
    await found.test()
    row = found.tested.get("m1/watchdog")
    assert (row.error if row is not None else None) == expected
    if expected == "":
        assert row is not None and row.is_fresh(now_at()) and row.level == 0 and "3 s" in row.place


@pytest.mark.parametrize(("profile", "seconds"), [("default", 3), ("fast", 2), ("vm", 5)])
def test_watchdog_fires_when_an_isolated_member_must_have_stopped_itself(profile: str, seconds: int) -> None:
    members = [MemberSettings("m1", "10.0.0.1", "10.0.1.1", "lo")]
    pair = PairSettings("p", "id", "10.0.0.9/24", profile=profile)
    assert Settings("m1", pair, members).watchdog_s == seconds
    assert Settings("m1", msgspec.structs.replace(pair, watchdog_s=30), members).watchdog_s == 30
    assert Settings("m1", msgspec.structs.replace(pair, watchdog="off"), members).watchdog_s == 0
