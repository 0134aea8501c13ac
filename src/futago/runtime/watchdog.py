"""The kernel's watchdog, /dev/watchdog: it resets the machine when even the last of our programs no longer turns.

Lives here: arming, petting, disarming, and what the device says of itself. Must not live here: when to do so (the
guard). The idea: a hand on a spring. As long as it presses, nothing happens; nobody has to notice that it is gone.

An armed device stays armed when its program dies, and the next one takes it over; only `disarm` ends it, and not even
that on a kernel with `nowayout`.

Source: Linux kernel documentation, watchdog/watchdog-api.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from futago.runtime.faults import Refused

DEVICE = Path("/dev/watchdog")
WDIOC_GETSUPPORT = 0x80285700
WDIOC_SETTIMEOUT = 0xC0045706
WDIOC_GETTIMEOUT = 0x80045707
_INFO = struct.Struct("II32s")  # options, firmware, identity
_INT = struct.Struct("i")


@dataclass(frozen=True, slots=True)
class Armed:
    """What an armed device says of itself.

    Args:
        identity: its name, such as `iTCO_wdt`.
        timeout_s: after so many seconds without a pet it resets the machine: what it took of what it was asked for;
            0 if it does not say.
    """

    identity: str
    timeout_s: int


class KernelWatchdog:
    """One watchdog device.

    Args:
        path: the device.
    """

    def __init__(self, path: Path = DEVICE) -> None:
        self.path = path
        self.armed: Armed | None = None
        self._fd = -1

    def exists(self) -> bool:
        """Return whether this machine has one."""
        return self.path.exists()

    def arm(self, timeout_s: int) -> Armed:
        """Open the device, which starts it, and ask for this timeout; does nothing if it is armed.

        Returns:
            What the device took; many take whole ranges, some only their own timeout.

        Raises:
            Refused: it cannot be opened: there is none, or another program holds it.
        """
        if self.armed is not None:
            return self.armed
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as e:
            raise Refused(f"{self.path}: {e.strerror}") from e
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._fd, WDIOC_SETTIMEOUT, bytearray(_INT.pack(timeout_s)))
        self.armed = Armed(self._identity(), self._timeout())
        return self.armed

    def pet(self) -> None:
        """Say that we turn.

        Raises:
            Refused: the device does not take it.
        """
        if self._fd < 0:
            return
        try:
            os.write(self._fd, b"\0")
        except OSError as e:
            raise Refused(f"{self.path}: {e.strerror}") from e

    def disarm(self) -> None:
        """Stop it: the magic V of the kernel's interface, then close."""
        self._close(b"V")

    def let_go(self) -> None:
        """Close it armed: whoever comes next takes it over in time, or the machine is reset."""
        self._close(b"")

    def _close(self, last: bytes) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                if last:
                    os.write(self._fd, last)
            os.close(self._fd)
        self._fd, self.armed = -1, None

    def _identity(self) -> str:
        answer = bytearray(_INFO.size)
        try:
            fcntl.ioctl(self._fd, WDIOC_GETSUPPORT, answer)
        except OSError:
            return ""
        return bytes(_INFO.unpack(answer)[2]).partition(b"\0")[0].decode("ascii", "replace")

    def _timeout(self) -> int:
        answer = bytearray(_INT.size)
        try:
            fcntl.ioctl(self._fd, WDIOC_GETTIMEOUT, answer)
        except OSError:
            return 0
        return int(_INT.unpack(answer)[0])
