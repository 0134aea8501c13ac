"""What the process table says: is this very process alive, tell me when it ends, end everything of a run.

A process is (pid, start time): the number alone may belong to another one by now.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping

from futago.agent.model import Keeper, parse_stat

_DEAD = {"Z", "X", "x"}


def is_alive(keeper: Keeper) -> bool:
    """Tell whether this very process runs.

    Raises:
        OSError: the process table cannot be read (no descriptor is left): nobody knows.
    """
    found = _read_stat(keeper.pid)
    return found is not None and found[0] == keeper and found[1] not in _DEAD


def keeper_of(pid: int) -> Keeper | None:
    """Return the process that has this number now, dead children included; None if there is none."""
    found = _stat(pid)
    return None if found is None else found[0]


def watch(keeper: Keeper) -> int | None:
    """Return a descriptor that becomes readable when the process ends; None if it has ended already, or cannot be
    watched now.
    """
    try:
        fd = os.pidfd_open(keeper.pid)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        if is_alive(keeper):  # asked after opening: the number cannot change hands any more
            return fd
    os.close(fd)
    return None


def reap(pid: int) -> bool:
    """Take the exit status of a child, so that it leaves the process table; somebody else's child is left alone.
    Return whether there is no such child any more.
    """
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def kill(pid: int) -> None:
    """End a child of ours that has not been reaped."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def start_watching(pid: int) -> tuple[Keeper, int] | None:
    """Return a child that was just started and nobody has reaped, and a descriptor as of `watch`; None if it cannot be
    watched.
    """
    found = _stat(pid)  # an ended child is a zombie: it is found, and its number is still its own
    if found is None:
        return None
    try:
        return found[0], os.pidfd_open(pid)
    except OSError:
        return None


def signal_sessions(wanted: Mapping[int, signal.Signals]) -> dict[int, int]:
    """Send to every process of each of these sessions its signal, except to their leaders (the shims, which have to
    write the exit codes); return how many processes of each session got it. One walk through the process table,
    whatever the number of sessions.
    """
    counts = dict.fromkeys(wanted, 0)
    for name in os.listdir("/proc") if wanted else ():
        if not name.isdigit() or int(name) in wanted:
            continue
        found = _stat(int(name))
        if found is not None and found[2] in wanted and found[1] not in _DEAD:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(name), wanted[found[2]])
                counts[found[2]] += 1
    return counts


def _stat(pid: int) -> tuple[Keeper, str, int] | None:
    try:
        return _read_stat(pid)
    except OSError:
        return None


def _read_stat(pid: int) -> tuple[Keeper, str, int] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return parse_stat(f.read())
    except (FileNotFoundError, ProcessLookupError):  # the latter: it ended between opening and reading
        return None
