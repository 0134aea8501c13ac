"""Where a lab keeps its things on the machine. Nothing outside these folders, the lab's own cgroup and its own
namespaces is ever touched.

A lab is known by its name; two labs share only the cache (golden root, product layers), which is read-only once built.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from futago.runtime.faults import OperatorFault

LOCKS = Path("/run/futago-lab")
LABS = Path(os.environ.get("FUTAGO_LAB_STATE", "/var/lib/futago-lab"))
CACHE = Path(os.environ.get("FUTAGO_LAB_CACHE", "/var/cache/futago-lab"))
SOURCE = Path(__file__).resolve().parents[3]  # the source tree that this file belongs to

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}\Z")


@dataclass(frozen=True, slots=True)
class Places:
    """The files of one lab."""

    name: str

    @property
    def home(self) -> Path:
        return LABS / self.name

    @property
    def state(self) -> Path:
        return self.home / "state.json"

    @property
    def socket(self) -> Path:
        return self.home / "control.sock"

    @property
    def daemon_log(self) -> Path:
        return self.home / "daemon.log"

    @property
    def admin_password(self) -> Path:
        return self.home / "admin.password"

    def host(self, host: str) -> Path:
        """Return the folder of one lab host: its disks, its mount points, its console log."""
        return self.home / "hosts" / host

    def bmc(self, member: str) -> Path:
        """Return the folder of a member's BMC."""
        return self.home / "bmc" / member

    def bmc_password(self, member: str) -> Path:
        return self.bmc(member) / "password"


def places(name: str) -> Places:
    """Return the places of the lab `name`. Raises OperatorFault if that cannot be a lab's name."""
    if not _NAME.match(name):
        raise OperatorFault(
            f"`{name}` cannot be a lab's name.",
            hint="Use a lower-case letter, then letters, digits and hyphens.",
            code="lab.name",
        )
    return Places(name)


@contextmanager
def locked(path: Path, *, wait: bool, busy: str) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`.

    Args:
        path: the lock file; made if missing, left in place.
        wait: wait for the other holder, or refuse at once.
        busy: the sentence of the refusal.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as e:
            raise OperatorFault(busy, hint="Wait for it, or use another --name.", code="lab.busy") from e
        yield
    finally:
        os.close(fd)


@contextmanager
def lab_lock(name: str) -> Iterator[None]:
    """Hold the lock of the lab `name` for the length of an `up` or a `down`."""
    with locked(LOCKS / f"{name}.lock", wait=False, busy=f"Another command is bringing the lab `{name}` up or down."):
        yield
