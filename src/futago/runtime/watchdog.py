"""The kernel's watchdog: it restarts the machine when even this program no longer turns.

Source: Linux kernel documentation, watchdog/watchdog-api.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from futago.runtime.clock import S, now_at
from futago.runtime.log import Log


class KernelWatchdog:
    """The kernel's watchdog, where there is one: it restarts the machine if nobody turns."""

    def __init__(self, log: Log, path: Path = Path("/dev/watchdog")) -> None:
        self._fd = -1
        self._petted_at = 0
        if path.exists():
            try:
                self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                log.event("watchdog.armed", device=str(path))
            except OSError as e:
                log.warning("watchdog.not-ours", error=str(e))

    def pet(self) -> None:
        """Say that we turn, twice a second."""
        now = now_at()
        if self._fd >= 0 and now - self._petted_at > S // 2:
            self._petted_at = now
            with contextlib.suppress(OSError):
                os.write(self._fd, b"\0")

    def close(self) -> None:
        """Disarm it: the magic V of the kernel's watchdog API."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.write(self._fd, b"V")
                os.close(self._fd)
            self._fd = -1
