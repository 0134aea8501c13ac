"""The watchdog of the machine itself, held by the guard: it resets a member that hangs with its kernel, on which no
program can perform a last will any more.

Lives here: when the device is armed, petted, disarmed and forsaken, and the note that says so. Must not live here: the
guard's own judgement. The idea: two dead man's handles, one behind the other. The controller holds the guard's; the
guard holds the machine's, for as long as its controller lives or its last will could be performed. A will that could
not be performed is the one case in which the guard lets the machine be reset on purpose.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from futago.runtime.clock import MS, S
from futago.runtime.faults import Refused
from futago.runtime.log import Log
from futago.runtime.unreadable import UNREADABLE
from futago.runtime.watchdog import KernelWatchdog
from futago.setup import paths

NOTE = paths.RUN / "watchdog.json"  # on tmpfs: the guard touches no disk
PET_EVERY = 200 * MS
AGAIN = 10 * S  # a device that could not be armed is tried again after this


class Note(msgspec.Struct, frozen=True):
    """What the guard says of the device; `error` is empty while it is armed and petted."""

    device: str
    identity: str = ""
    timeout_s: int = 0
    error: str = ""


def read_note(path: Path = NOTE) -> Note | None:
    """Return what the guard said last; None if it holds no device."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Note)
    except (OSError, *UNREADABLE):
        return None


class OwnWatchdog:
    """The device, and whether it is ours to pet.

    Args:
        device: the machine's watchdog.
        note: the file that tells the controller of it.
        log: where arming and forsaking are told.
    """

    def __init__(self, *, log: Log, device: KernelWatchdog | None = None, note: Path = NOTE) -> None:
        self._device = device or KernelWatchdog()
        self._note, self._log = note, log
        self._asked_s = 0
        self._next_at = 0
        self._is_forsaken = False
        self._said: Note | None = None

    def tend(self, wanted_s: int, now: int) -> None:
        """Arm it with `wanted_s` seconds or, armed, pet it; 0 disarms it. To be called at every turn."""
        if wanted_s != self._asked_s:
            self.release()
            self._asked_s, self._next_at = wanted_s, 0
        if not wanted_s or self._is_forsaken or now < self._next_at:
            return
        try:
            if self._device.armed is None:
                if not self._device.exists():
                    self._next_at = now + AGAIN
                    return
                armed = self._device.arm(wanted_s)
                self._log.event("watchdog.armed", device=str(self._device.path), timeout_s=armed.timeout_s)
                self._say(Note(str(self._device.path), armed.identity, armed.timeout_s))
            self._device.pet()
            self._next_at = now + PET_EVERY
        except Refused as e:
            self._next_at = now + AGAIN
            if self._say(Note(str(self._device.path), error=str(e))):
                self._log.warning("watchdog.not-ours", error=str(e))

    def forsake(self, why: str) -> None:
        """Pet it no more: the machine is to be reset."""
        if self._device.armed is not None and not self._is_forsaken:
            self._log.error("watchdog.forsaken", why=why)
        self._is_forsaken = True

    def release(self) -> None:
        """Disarm it, in good order."""
        self._device.disarm()
        self._asked_s, self._is_forsaken, self._said = 0, False, None
        with contextlib.suppress(OSError):
            self._note.unlink(missing_ok=True)

    def _say(self, note: Note) -> bool:
        """Tell the controller; return whether it is news."""
        if note == self._said:
            return False
        self._said = note
        with contextlib.suppress(OSError):
            fresh = self._note.with_suffix(".new")
            fresh.write_bytes(msgspec.json.encode(note))
            fresh.chmod(0o644)
            fresh.rename(self._note)
        return True
