"""A watchdog device of one lab host: a file that behaves as /dev/watchdog and resets the host when nobody pets it.

The kernel of a lab has no watchdog and hosts share it, so the device is a file system in user space with one file: open
arms it, a write pats it, V before the close disarms it, the ioctls of the kernel's interface work, a second open is
refused. It has power of its own, so it goes on when its host is frozen. One process a boot: a machine that is off, and
one that starts, has a watchdog that is not armed.

Source: Linux kernel documentation, watchdog/watchdog-api.
"""

from __future__ import annotations

import ctypes
import errno
import stat
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import mfusepy

from futago.lab.watchdog_power import NAME
from futago.runtime.watchdog import WDIOC_GETSUPPORT, WDIOC_GETTIMEOUT, WDIOC_SETTIMEOUT

IDENTITY = b"lab watchdog"
TIMEOUT_S = 60  # until it is told another, as common hardware
TIMEOUT_S_MAX = 3600
TICK_S = 0.02
WDIOC_KEEPALIVE = 0x80045705
WDIOC_GETTIMELEFT = 0x8004570A
_OPTIONS = 0x8180  # settimeout, magic close, keepalive


class Device(mfusepy.Operations):  # type: ignore[misc]  # the library has no types
    """The file system.

    Args:
        expired: called once when it was not petted in time.
    """

    use_ns = True

    def __init__(self, expired: list[str]) -> None:
        self._expired = expired
        self._timeout_s = TIMEOUT_S
        self._deadline: float | None = None
        self._is_open = self._has_magic = False
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(TICK_S)
            with self._lock:
                is_over = self._deadline is not None and time.monotonic() > self._deadline
                if is_over:
                    self._deadline = None
            if is_over:
                subprocess.run(self._expired, check=False)

    def _pat(self) -> None:
        with self._lock:
            self._deadline = time.monotonic() + self._timeout_s

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        """Return the folder or its one file."""
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        if path == f"/{NAME}":
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": 0}
        raise mfusepy.FuseOSError(errno.ENOENT)

    def readdir(self, path: str, fh: int) -> list[str]:
        """Return the folder's entries."""
        return [".", "..", NAME]

    def open(self, path: str, flags: int) -> int:
        """Arm it; one program at a time."""
        if self._is_open:
            raise mfusepy.FuseOSError(errno.EBUSY)
        self._is_open, self._has_magic = True, False
        self._pat()
        return 1

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        """A device has no length."""
        return 0

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        """Pat it; a V in it allows the next close to disarm."""
        self._has_magic = b"V" in data
        self._pat()
        return len(data)

    def release(self, path: str, fh: int) -> int:
        """Close it: armed still, unless the last write held a V."""
        self._is_open = False
        if self._has_magic:
            with self._lock:
                self._deadline = None
        return 0

    def ioctl(  # noqa: PLR0917  the library calls it so
        self, path: str, cmd: int, arg: Any, fh: int, flags: int, data: Any
    ) -> int:
        """Answer the kernel's interface."""
        match cmd & 0xFFFFFFFF:
            case c if c == WDIOC_SETTIMEOUT:
                wanted = struct.unpack("i", ctypes.string_at(data, 4))[0]
                if not 1 <= wanted <= TIMEOUT_S_MAX:
                    return -errno.EINVAL
                self._timeout_s = wanted
                self._pat()
            case c if c == WDIOC_GETTIMEOUT:
                ctypes.memmove(data, struct.pack("i", self._timeout_s), 4)
            case c if c == WDIOC_KEEPALIVE:
                self._pat()
            case c if c == WDIOC_GETTIMELEFT:
                left = 0 if self._deadline is None else max(0, int(self._deadline - time.monotonic()))
                ctypes.memmove(data, struct.pack("i", left), 4)
            case c if c == WDIOC_GETSUPPORT:
                ctypes.memmove(data, struct.pack("II32s", _OPTIONS, 1, IDENTITY), 40)
            case _:
                return -errno.ENOTTY
        return 0


def main(mount_point: Path, expired: list[str]) -> int:
    """Serve the device below `mount_point` until ended; run `expired` whenever it was not petted in time."""
    mfusepy.FUSE(Device(expired), str(mount_point), foreground=True, nothreads=True, allow_other=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
