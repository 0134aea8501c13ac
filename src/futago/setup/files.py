"""Writing the files of a machine: whole or not at all, with the right owner and mode from the first instant on.

A secret is never readable by others even for a moment: the new file gets its mode before its content. A crash leaves
the old file or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from futago.runtime.faults import OperatorFault
from futago.setup import paths

USER = "futago"
POSTGRES = "postgres"


@dataclass(frozen=True, slots=True)
class Owner:
    """Names, resolved when used; a name that does not exist on this machine means root where we are not on a real
    system (tests).
    """

    user: str = "root"
    group: str = "root"

    def ids(self) -> tuple[int, int]:
        """Return (uid, gid); (-1, -1), meaning unchanged, when we may not give files away."""
        if os.geteuid() != 0:
            return -1, -1
        try:
            return pwd.getpwnam(self.user).pw_uid, grp.getgrnam(self.group).gr_gid
        except KeyError as e:
            if Path("/") != paths.ROOT:
                return -1, -1
            raise OperatorFault(
                f"The user or group {self.user}:{self.group} does not exist: {e}.", code="setup.user"
            ) from e


ROOT = Owner()
SHARED = Owner("root", USER)
OURS = Owner(USER, USER)
DATABASE = Owner(POSTGRES, POSTGRES)


def write(path: Path, content: bytes | str, *, mode: int, owner: Owner = ROOT, is_durable: bool = True) -> bool:
    """Make the file hold `content`, in one step and durably; return whether anything changed.

    Args:
        is_durable: False for a file that is written anew before anybody relies on it after a power cut: no sync is waited for.
    """
    data = content.encode() if isinstance(content, str) else content
    if _holds(path, data, mode=mode, owner=owner):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    fresh = path.with_name(f".{path.name}.new-{os.getpid()}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchown(fd, *owner.ids())
        os.fchmod(fd, mode)
        with os.fdopen(fd, "wb") as f:
            f.write(data)
            f.flush()
            if is_durable:
                os.fsync(f.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    if is_durable:
        sync_directory(path.parent)
    return True


def _sweep(path: Path) -> None:
    """Remove what writers of this file left that were killed before they could rename it: it may hold a secret."""
    for left in path.parent.glob(f".{path.name}.new-*"):
        pid = left.name.rpartition("-")[2]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            left.unlink(missing_ok=True)


def _holds(path: Path, data: bytes, *, mode: int, owner: Owner) -> bool:
    try:
        found = path.lstat()
        uid, gid = owner.ids()
        is_owned = (uid in (-1, found.st_uid)) and (gid in (-1, found.st_gid))
        return is_owned and (found.st_mode & 0o7777) == mode and path.read_bytes() == data
    except FileNotFoundError:
        return False


def directory(path: Path, *, mode: int, owner: Owner = ROOT) -> None:
    """Make sure that the directory exists with this mode and owner; its parents too, with their defaults."""
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, *owner.ids())
    path.chmod(mode)


def sync_directory(path: Path) -> None:
    """Make renames inside the directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """Be the only one that changes this machine's settings; waits for the other.

    The lock ends with its process, so an interrupted command leaves none behind.
    """
    paths.ETC.mkdir(parents=True, exist_ok=True)
    with open(paths.ETC / ".lock", "w", encoding="ascii") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def fence_password_file(member: str, level: int = 1) -> Path:
    """Return where the password of a member's fence device lies, the same on both members; `level` counts its devices
    from 1.
    """
    return paths.SECRETS / (f"fence-{member}.password" if level == 1 else f"fence-{member}.{level}.password")


def read_secret(path: Path, *, option: str) -> str:
    """Return the first line of a password file. Raises OperatorFault: unreadable, empty, several lines."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise OperatorFault(
            f"{option}: {path} cannot be read: {e}.", hint="Give a file that holds the password.", code="setup.password"
        ) from e
    lines = text.splitlines()
    if len(lines) != 1 or not lines[0].strip():
        raise OperatorFault(
            f"{option}: {path} must hold the password on one line and nothing else.", code="setup.password"
        )
    return lines[0]
