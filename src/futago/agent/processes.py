"""What the process table says: is this very process alive, tell me when it ends, end everything of a run.

A process is (pid, start time): the number alone may belong to another one by now.
"""

from __future__ import annotations

import contextlib
import os
import signal

from futago.agent.model import Keeper, parse_stat

_DEAD = {"Z", "X", "x"}


def is_alive(keeper: Keeper) -> bool:
    """Tell whether this very process runs."""
    found = _stat(keeper.pid)
    return found is not None and found[0] == keeper and found[1] not in _DEAD


def keeper_of(pid: int) -> Keeper | None:
    """Return the process that has this number now, dead children included; None if there is none."""
    found = _stat(pid)
    return None if found is None else found[0]


def watch(keeper: Keeper) -> int | None:
    """Return a descriptor that becomes readable when the process ends; None if it has ended already."""
    try:
        fd = os.pidfd_open(keeper.pid)
    except OSError:
        return None
    if not is_alive(keeper):  # asked after opening: the number cannot change hands any more
        os.close(fd)
        return None
    return fd


def reap(pid: int) -> None:
    """Take the exit status of a child, so that it leaves the process table; somebody else's child is left alone."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def signal_session(session: int, number: signal.Signals) -> int:
    """Send a signal to every process of a session except its leader (the shim, which has to write the exit code);
    return how many.
    """
    count = 0
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == session:
            continue
        found = _stat(int(name))
        if found is not None and found[2] == session and found[1] not in _DEAD:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(name), number)
                count += 1
    return count


def _stat(pid: int) -> tuple[Keeper, str, int] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return parse_stat(f.read())
    except OSError:
        return None
