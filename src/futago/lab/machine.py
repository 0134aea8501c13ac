"""The machine under the labs: its tools run as processes, its cgroup tree, its loop devices. Every call to the kernel
that the labs make is here.

Foreign exceptions end here: a tool that fails becomes Refused, with what it said.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from futago.runtime.faults import OperatorFault, Refused, Unknown

CLONE_NEWNET = 0x40000000
FS_IOC_SHUTDOWN = 0x8004587D
_SHUTDOWN_NOLOGFLUSH = 2  # the journal in memory is not written either: what was not synced is gone

CLEAN_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
}


def require_root() -> None:
    """Refuse to go on unless this process is root on Linux."""
    if os.geteuid() != 0:
        raise OperatorFault(
            "The lab needs root: it makes namespaces, mounts and cgroups.", hint="Run this as root.", code="lab.root"
        )


def tool(
    *args: str,
    stdin: str | None = None,
    deadline_s: float = 60,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run one of the system's tools and return its standard output.

    Raises:
        Refused: it ended with an error; Unknown: it did not end by the deadline (and was killed).
    """
    try:
        done = subprocess.run(
            args,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=deadline_s,
            env=env,
            cwd=cwd,
            check=False,
            errors="replace",
            stdin=subprocess.DEVNULL if stdin is None else None,
        )
    except subprocess.TimeoutExpired as e:
        raise Unknown(f"`{' '.join(args)}` did not end within {deadline_s:.0f} s") from e
    except OSError as e:
        raise Refused(f"`{args[0]}` cannot be started: {e}") from e
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise Refused(f"`{' '.join(args)[:300]}` ended with {done.returncode}: {said}")
    return done.stdout


def succeeds(*args: str, stdin: str | None = None, deadline_s: float = 60) -> bool:
    """Return whether a tool ended without error."""
    try:
        tool(*args, stdin=stdin, deadline_s=deadline_s)
    except (Refused, Unknown):
        return False
    return True


def cgroup_mount() -> Path:
    """Return where the cgroup2 tree is mounted; mounts it at a place of our own if it is not mounted at all."""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if fields[2] == "cgroup2":
            return Path(fields[1])
    own = Path("/run/futago-lab/cgroup2")
    own.mkdir(parents=True, exist_ok=True)
    tool("mount", "-t", "cgroup2", "cgroup2", str(own))
    return own


class Cgroup:
    """One cgroup of the version 2 tree, and all below it.

    Args:
        path: its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    @property
    def procs(self) -> Path:
        return self.path / "cgroup.procs"

    def exists(self) -> bool:
        return self.path.is_dir()

    def _event(self, key: str) -> bool:
        try:
            text = (self.path / "cgroup.events").read_text(encoding="ascii")
        except FileNotFoundError:
            return False
        return f"{key} 1" in text

    def is_populated(self) -> bool:
        """Return whether any process lives in it or below."""
        return self._event("populated")

    def freeze(self, *, frozen: bool, wait_s: float = 0.5) -> None:
        """Freeze or thaw it, and wait until that is so."""
        (self.path / "cgroup.freeze").write_text("1" if frozen else "0", encoding="ascii")
        end = time.monotonic() + wait_s
        while self._event("frozen") != frozen and time.monotonic() < end:
            time.sleep(0.0002)

    def kill(self, *, wait_s: float = 10) -> None:
        """Kill every process in it and below, frozen or not, and wait until none is left."""
        if not self.exists():
            return
        (self.path / "cgroup.kill").write_text("1", encoding="ascii")
        end = time.monotonic() + wait_s
        while self.is_populated():
            if time.monotonic() > end:
                raise Unknown(f"processes in {self.path} do not die")
            time.sleep(0.001)

    def pids(self) -> list[int]:
        """Return the processes in it and below."""
        found: list[int] = []
        for file in self.path.rglob("cgroup.procs"):
            found += [int(p) for p in file.read_text(encoding="ascii").split()]
        return found

    def remove(self, *, children_only: bool = False) -> None:
        """Remove the empty cgroups below it, and itself."""
        if not self.exists():
            return
        for folder, _, _ in sorted(os.walk(self.path, topdown=False), key=lambda w: -len(w[0])):
            if children_only and folder == str(self.path):
                continue
            end = time.monotonic() + 5
            while True:
                try:
                    os.rmdir(folder)
                    break
                except FileNotFoundError:
                    break
                except OSError as e:
                    if time.monotonic() > end:
                        raise Refused(f"{folder} cannot be removed: {e}") from e
                    time.sleep(0.005)


def lab_cgroup(name: str) -> Cgroup:
    """Return the cgroup that holds everything of the lab `name`."""
    return Cgroup(cgroup_mount() / "futago-lab" / name)


def drop_unsynced(mount_point: Path) -> None:
    """Shut the file system at `mount_point` down at once: what was not synced is lost, every later access fails."""
    fd = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", _SHUTDOWN_NOLOGFLUSH))
    finally:
        os.close(fd)


def loops_below(folder: Path) -> list[str]:
    """Return the loop devices whose image lies below `folder`."""
    found = []
    for line in tool("losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE").splitlines():
        device, _, image = line.strip().partition(" ")
        if image.strip().removesuffix(" (deleted)").startswith(f"{folder}/"):
            found.append(device)
    return found


def mounts_below(folder: Path) -> list[str]:
    """Return the mount points of this mount namespace below `folder`, deepest first."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    return sorted((p for p in points if p.startswith(f"{folder}/")), key=len, reverse=True)


def unmount(point: Path, *, wait_s: float = 10) -> None:
    """Unmount, waiting for the last users to go."""
    end = time.monotonic() + wait_s
    while os.path.ismount(point):
        try:
            tool("umount", str(point))
        except Refused:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


_libc = ctypes.CDLL(None, use_errno=True)


def set_netns(fd: int) -> None:
    """Move the calling thread into the network namespace that `fd` stands for."""
    if _libc.setns(fd, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise Refused(f"cannot enter a network namespace: {os.strerror(number)}")


def children(pid: int) -> list[int]:
    """Return the direct children of a process; empty if it is gone."""
    try:
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def parent(pid: int) -> int:
    """Return the parent of a process; 0 if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat.rsplit(")", 1)[1].split()[1])


def started_ticks(pid: int) -> int:
    """Return when a process started, in ticks since boot; 0 if there is none, or only what is left of it.

    With the pid it names one process for good.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = stat.rsplit(")", 1)[1].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def within(cgroup: Cgroup, command: Sequence[str]) -> list[str]:
    """Return the command line that moves itself into `cgroup`, then becomes `command`.

    So no process of it is ever outside.
    """
    return ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(cgroup.procs), *command]
