"""Was a process late because it stood still, or because it got no processor? What the kernel's scheduler says of it.

Lives here: reading /proc, and the arithmetic of patience. Must not live here: what follows. The idea: a referee who stops
the clock. A player who is kept from the field by others loses no time by it; one who stands about on the field does. So a
limit counts time in which the process could have run and did not answer: on a machine that is not starved that is all
the time there is, and nothing is found any later.

Source: proc(5), /proc/pid/stat fields 3, 14, 15; kernel Documentation/scheduler/sched-stats, /proc/pid/schedstat: the
nanoseconds that the first thread ran, and that it waited for a processor though it was ready. A kernel without them
says 0: then nothing is excused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
NS_PER_S = 1_000_000_000
LOOK_AGAIN_S = 0.02  # what had arrived meanwhile has been read by then: we may have been late ourselves
TICK_NS = NS_PER_S // os.sysconf("SC_CLK_TCK")
READY, ON_DISK = "R", "D"


@dataclass(frozen=True, slots=True)
class Use:
    """What a process had of the processors until one instant, in nanoseconds since it began."""

    ran: int = 0  # all its threads
    waited: int = 0  # its first thread, ready and without a processor; a wait that goes on is not in it
    state: str = ""  # of its first thread, as in ps(1); empty: there is no such process


def use_of(pid: int, *, proc: Path = PROC) -> Use:
    """Read what a process had until now; an empty Use if there is none."""
    try:
        fields = (proc / str(pid) / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return Use((int(fields[11]) + int(fields[12])) * TICK_NS, waited_ns(pid, proc=proc), fields[0])
    except (OSError, ValueError, IndexError):
        return Use()


def waited_ns(pid: int, *, proc: Path = PROC) -> int:
    """Return how long the first thread of a process has waited for a processor in all, in nanoseconds; 0: not known."""
    try:
        return int((proc / str(pid) / "schedstat").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def children_of(pid: int, *, proc: Path = PROC) -> frozenset[int]:
    """Return the children of a process; empty if they are not told."""
    try:
        text = (proc / str(pid) / "task" / str(pid) / "children").read_text(encoding="ascii")
    except OSError:
        return frozenset()
    return frozenset(int(x) for x in text.split())


def stood_still(before: Use, after: Use, *, passed: int, looks_every: int) -> int:
    """Return for how long a process stood still between two looks, in nanoseconds.

    Time in which it ran, or waited for a processor, is none; nor is an interval at whose end it is ready to run or waits
    for a disk. And an interval that is longer than it was meant to be shows that we ourselves were late: only as much as
    was meant counts.
    """
    if after.state in (READY, ON_DISK) or not after.state:
        return 0
    moved = max(0, after.ran - before.ran) + max(0, after.waited - before.waited)
    return max(0, min(passed, 2 * looks_every) - moved)


class ServerWait:
    """How long a server that forks a process for each client, and we ourselves, have been kept from a processor since a
    conversation began.

    It goes from us to the server, from there to a fresh child, and to and fro: what each of the three waited for a
    processor comes one after the other. What we wait after our last word does not count: then it is the server's turn.

    Args:
        server: the process that listens.
    """

    def __init__(self, server: int, *, proc: Path = PROC) -> None:
        self._server, self._proc = server, proc
        self._began = waited_ns(os.getpid(), proc=proc)
        self._own = self._child = 0
        self._servers = waited_ns(server, proc=proc)
        self._known = children_of(server, proc=proc)

    def asked(self, child: int) -> None:
        """Note that we have just said something to the fresh child, whose id is known now."""
        self._own, self._child = waited_ns(os.getpid(), proc=self._proc) - self._began, child

    def look(self) -> tuple[int, bool]:
        """Return the nanoseconds waited until now, and whether whoever has to answer is ready to run at this very
        instant.
        """
        server = use_of(self._server, proc=self._proc)
        pids = {self._child} if self._child else children_of(self._server, proc=self._proc) - self._known
        fresh = [use_of(pid, proc=self._proc) for pid in pids]
        waited = self._own + server.waited - self._servers + max((child.waited for child in fresh), default=0)
        states = {child.state for child in fresh} if self._child else {server.state, *(child.state for child in fresh)}
        return max(0, waited), READY in states


def has_had_time(*, passed: int, waited: int, is_ready: bool, limit: int, limit_busy: int) -> bool:
    """Has a server that has not answered had `limit` of time in which it could have? All in nanoseconds.

    Args:
        passed: since it was asked.
        waited: of that, for a processor.
        is_ready: it waits for one just now.
        limit: how long the answer may take on an idle machine.
        limit_busy: how long it may take at all.
    """
    return passed >= limit_busy or (passed - waited >= limit and not is_ready)


def is_any_on_disk(group: Path, *, proc: Path = PROC) -> bool:
    """Does any process of a control group wait for a device just now?"""
    try:
        pids = [int(x) for x in (group / "cgroup.procs").read_text(encoding="ascii").split()]
    except (OSError, ValueError):
        return False
    return any(use_of(pid, proc=proc).state == ON_DISK for pid in pids)


@contextlib.asynccontextmanager
async def patience(
    server: int, *, limit_s: float, limit_busy_s: float, is_excused: Callable[[], bool] = lambda: False
) -> AsyncIterator[ServerWait]:
    """Bear with a server while it answers what is asked inside, where `asked` is to be told; see `has_had_time`.

    Args:
        is_excused: asked when it has had `limit_s`: is what it waits for at this instant no fault of it? Not asked after
            `limit_busy_s`.

    Raises:
        TimeoutError: it has had its time, at two looks one after the other.
    """
    loop = asyncio.get_running_loop()
    began, wait, is_doubted = loop.time(), ServerWait(server), False
    handle: asyncio.TimerHandle | None = None

    def look() -> None:
        nonlocal is_doubted, handle
        passed = int((loop.time() - began) * NS_PER_S)
        waited, is_ready = wait.look()
        limit, limit_busy = int(limit_s * NS_PER_S), int(limit_busy_s * NS_PER_S)
        is_late = has_had_time(passed=passed, waited=waited, is_ready=is_ready, limit=limit, limit_busy=limit_busy)
        is_late = is_late and (passed >= limit_busy or not is_excused())
        if is_late and is_doubted:
            timeout.reschedule(loop.time())
            return
        is_doubted = is_late
        handle = loop.call_later(LOOK_AGAIN_S, look)

    handle = loop.call_later(limit_s, look)
    try:
        async with asyncio.timeout(None) as timeout:
            yield wait
    finally:
        if handle is not None:
            handle.cancel()
