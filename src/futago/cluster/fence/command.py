"""A program of the user's that switches the power: for everything that nobody has written a driver for.

    PROGRAM status|off|on [ADDRESS [USER]]      the user's password, where there is one, is its standard input

| Exit code | after `status` | after `off` and `on` |
|---|---|---|
| 0 | the machine is on | the device has taken the order |
| 1 | the device refuses (account, name) | it was certainly not done |
| 2 | the machine is off | the device has taken the order |
| any other, a signal, no end in time | not known | not known |

So the answers of `status` are those of the fence agents. Whether it was done is found out by `status` afterwards. The
program is ended at the deadline; it must not leave a process behind. It runs as root, so it must be root's and writable
by nobody else: a program that others can change is refused, each time.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from futago.cluster.fence import Power
from futago.runtime import process
from futago.runtime.faults import Refused, Unknown
from futago.setup.fences import FenceDevice as FenceSettings

_STATES = {0: Power.ON, 2: Power.OFF}
_REFUSED = 1


class CommandDriver:
    """One program."""

    has_sessions = False

    def __init__(self, settings: FenceSettings) -> None:
        self._program = settings.program
        self._words = (
            [settings.address, settings.user] if settings.user else [settings.address] * bool(settings.address)
        )
        self._password_file = settings.password_file

    async def status(self, *, deadline_s: float) -> Power:
        """Run `PROGRAM status`."""
        ended = await self._run("status", deadline_s=deadline_s)
        if ended.code in _STATES:
            return _STATES[ended.code]
        raise _fault(ended)

    async def order(self, wanted: Power, *, deadline_s: float) -> None:
        """Run `PROGRAM off` or `PROGRAM on`."""
        ended = await self._run(wanted.value, deadline_s=deadline_s)
        if ended.code not in _STATES:
            raise _fault(ended)

    async def _run(self, verb: str, *, deadline_s: float) -> process.Ended:
        require_trusted(Path(self._program))
        secret = password(self._password_file)
        return await process.run([self._program, verb, *self._words], deadline_s=deadline_s, stdin=secret.encode())


def _fault(ended: process.Ended) -> Refused | Unknown:
    kind = Refused if ended.code == _REFUSED else Unknown
    return kind(f"it ended with exit code {ended.code}: {ended.last_words}")


def password(file: str) -> str:
    """Return what a password file holds, without the end of its line; empty if there is no file to read.

    Raises:
        Refused: it cannot be read.
    """
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\n") if file else ""
    except (OSError, UnicodeDecodeError) as e:
        raise Refused(f"the password file cannot be read: {e}") from e


def require_trusted(program: Path) -> None:
    """Refuse to run, as root, what somebody else could have changed.

    Raises:
        Refused: no absolute path, no such file, another owner than root and us, or writable by group or others.
    """
    if not program.is_absolute():
        raise Refused(f"{program} is not an absolute path")
    try:
        found = program.stat()
    except OSError as e:
        raise Refused(f"{program} cannot be run: {e}") from e
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Refused(f"{program} can be changed by others than root; give it to root, mode 0755")
