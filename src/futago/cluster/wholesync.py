"""Making a whole data directory durable with one call to the kernel instead of one for each of its files.

Lives here: whether that may be relied upon for a directory, and the call. Must not live here: when (recover.py), or what
PostgreSQL does by itself (pgconf.py tells it). The idea: one lorry for the whole house instead of a thousand parcels. A
database has more than a thousand files, nearly all of them clean; `fsync` of each still waits for the disk, which on a
remote volume takes longer than everything else together.

Only where it is known to hold: syncfs(2) reports write errors since Linux 5.8, and on some file systems (FUSE, overlay)
it does not reach the disk below. Elsewhere the programs sync file by file, as they always did.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

LOCAL = frozenset({"ext3", "ext4", "xfs", "btrfs"})
REPORTS_ERRORS = (5, 8)
MOUNTS = Path("/proc/self/mountinfo")
_RELEASE = re.compile(r"(\d+)\.(\d+)")
_libc = ctypes.CDLL(None, use_errno=True)


def kind_of(path: Path, mounts: str) -> str:
    """Return the type of the file system that `path` lies on; empty if unknown.

    Args:
        path: absolute, without symbolic links. mounts: text of /proc/self/mountinfo, see proc(5).
    """
    best, kind = -1, ""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        words = left.split()
        if len(words) < 5 or not right:
            continue
        point = words[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        if len(point) >= best and path.is_relative_to(point):  # of two on one place the later one is on top
            best, kind = len(point), right.split()[0]
    return kind


def is_enough(data: Path) -> bool:
    """Does one call make everything below a data directory durable, and tell if it could not? Touches the disk.

    Returns:
        False for anything that is not known for sure: a directory of which parts (the log, a tablespace) lie elsewhere
        is synced file by file.
    """
    release = _RELEASE.match(os.uname().release)
    if release is None or (int(release[1]), int(release[2])) < REPORTS_ERRORS:
        return False
    try:
        if kind_of(data.resolve(), MOUNTS.read_text(encoding="utf-8", errors="replace")) not in LOCAL:
            return False
        spaces = data / "pg_tblspc"
        return not (data / "pg_wal").is_symlink() and not (spaces.is_dir() and any(spaces.iterdir()))
    except OSError:
        return False


class WholeSync:
    """Syncs the file system under a place, and tells of every write error since it was opened, whoever else syncs it.

    Args:
        place: a directory; opened at once. Raises OSError.
    """

    def __init__(self, place: Path) -> None:
        self._place = str(place)
        self._fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def sync(self) -> None:
        """Write everything to the disk; return when it is there. Raises OSError, once for each failure."""
        if _libc.syncfs(self._fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), self._place)

    def close(self) -> None:
        os.close(self._fd)
