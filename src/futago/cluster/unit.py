"""The systemd unit that PostgreSQL runs in, and the control group by which it can be killed whole.

Lives here: start, kill, find. Must not live here: when. The idea: a kennel with one door. A single dog can be slow to
obey (a busy backend outlives its killed postmaster by seconds), so the kennel is emptied, and looked into afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from futago.cluster.starved import ON_DISK, PROC, use_of
from futago.runtime import process
from futago.runtime.faults import Refused, Unknown

SYSTEMCTL_S_MAX = 5.0
EMPTY_S_MAX = 3.0
STUCK_S = 0.1  # killed, and in a device's hands for so long at every look: it will not die before the device answers
POLL_S = 0.005
Told = Callable[[], None]


class PgUnit(Protocol):
    """What the controller needs of whatever PostgreSQL runs in."""

    async def start(self) -> int:
        """Start it; return the main process' id. Raises Refused or Unknown."""

    async def find(self) -> int:
        """Return the main process' id, 0 if it does not run. Raises Refused or Unknown."""

    async def kill(self, on_stuck: Told | None = None) -> None:
        """Kill every process of it, and return when none is left. Raises Unknown if some remain.

        Args:
            on_stuck: called once as soon as it is clear that a device keeps them from dying, long before `Unknown`.
        """

    @property
    def cgroup(self) -> Path | None:
        """The control group's folder, for the guard; None if there is none."""


def cgroup_mount() -> Path | None:
    """Return where the unified control group hierarchy is mounted."""
    with open("/proc/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, where, kind, *_ = line.split()
            if kind == "cgroup2":
                return Path(where)
    return None


class SystemdUnit:
    """A unit of systemd."""

    def __init__(self, name: str) -> None:
        self.name = name
        mount = cgroup_mount()
        self._mount = mount
        self._cgroup = mount / "system.slice" / name if mount else None

    @property
    def cgroup(self) -> Path | None:
        return self._cgroup

    async def start(self) -> int:
        ended = await process.run(["systemctl", "start", self.name], deadline_s=SYSTEMCTL_S_MAX)
        if ended.code != 0:  # too many starts in a short time, or a failed one before
            await process.run(["systemctl", "reset-failed", self.name], deadline_s=SYSTEMCTL_S_MAX)
            ended = await process.run(["systemctl", "start", self.name], deadline_s=SYSTEMCTL_S_MAX)
        if ended.code != 0:
            raise Refused(f"{self.name} did not start: {ended.last_words}")
        return await self.find()

    async def find(self) -> int:
        ended = await process.run(
            ["systemctl", "show", "-p", "MainPID", "-p", "ControlGroup", self.name], deadline_s=SYSTEMCTL_S_MAX
        )
        if ended.code != 0:
            raise Unknown(f"systemd does not tell about {self.name}: {ended.last_words}")
        found = dict(line.partition("=")[::2] for line in ended.out.splitlines())
        if found.get("ControlGroup") and self._mount is not None:
            self._cgroup = self._mount / found["ControlGroup"].lstrip("/")
        return int(found.get("MainPID") or 0)

    async def kill(self, on_stuck: Told | None = None) -> None:
        if self._cgroup is None:
            await process.run(["systemctl", "kill", "-s", "KILL", self.name], deadline_s=SYSTEMCTL_S_MAX)
            return
        await kill_cgroup(self._cgroup, on_stuck=on_stuck)


async def kill_cgroup(folder: Path, *, on_stuck: Told | None = None, proc: Path = PROC) -> None:
    """Kill every process in the control group; return when it is empty or gone.

    Raises:
        Unknown: processes are left (hung in the kernel).
    """
    loop = asyncio.get_running_loop()
    stuck_since = began = loop.time()
    while True:
        left = kill_cgroup_once(folder)
        if not left:
            return
        now = loop.time()
        if now - began > EMPTY_S_MAX:
            raise Unknown(f"{len(left)} processes of {folder.name} do not die")
        if on_stuck is not None:
            if not is_stuck(left, proc=proc):
                stuck_since = now
            elif now - stuck_since >= STUCK_S:
                on_stuck()
                on_stuck = None
        await asyncio.sleep(POLL_S)


def is_stuck(pids: list[int], *, proc: Path = PROC) -> bool:
    """Does any of these wait for a device, and none for anything else? One that is dying wants a processor instead."""
    states = {use_of(pid, proc=proc).state for pid in pids} - {"", "Z", "X"}
    return states == {ON_DISK}


def kill_cgroup_once(folder: Path) -> list[int]:
    """Order the death of every process in the control group; return those that were in it."""
    try:
        left = [int(x) for x in (folder / "cgroup.procs").read_text(encoding="ascii").split()]
        if left:
            try:
                (folder / "cgroup.kill").write_text("1", encoding="ascii")
            except (FileNotFoundError, PermissionError):  # before Linux 5.14
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENODEV):  # the group ended with its last process
            return []
        raise
    return left


def is_cgroup_empty(folder: Path) -> bool:
    """Is nothing left in a control group? Unknown counts as no."""
    try:
        return not (folder / "cgroup.procs").read_text(encoding="ascii").split()
    except FileNotFoundError:
        return True
    except OSError as e:
        return e.errno == errno.ENODEV


class DeathWatch:
    """Calls back at the very instant a process ends (pidfd)."""

    def __init__(self, on_death: Callable[[int], None]) -> None:
        self._on_death = on_death
        self._fd = -1
        self.pid = 0

    def watch(self, pid: int) -> bool:
        """Watch this process instead of the present one; return False if it is already gone."""
        self.forget()
        try:
            self._fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        self.pid = pid
        asyncio.get_running_loop().add_reader(self._fd, self._died)
        return True

    def forget(self) -> None:
        """Watch nothing."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
        self._fd, self.pid = -1, 0

    def signal(self, number: int) -> bool:
        """Send a signal to the watched process, and to no other; return whether there is one."""
        if self._fd < 0:
            return False
        try:
            signal.pidfd_send_signal(self._fd, number)
        except ProcessLookupError:
            return False
        return True

    def _died(self) -> None:
        pid = self.pid
        self.forget()
        self._on_death(pid)
