"""The guard: if no controller lives, it performs the controller's last will.

Lives here: the waiting, and the will: the floating IP goes, PostgreSQL's control group is killed, the gate file is
closed. Must not live here: anything that thinks about the pair. The idea: a dead man's handle. The controller holds
it by a datagram at every turn; when the hand has been gone for a second, or a new hand comes and goes again and
again, the train stops.

Armed only by a living controller, so never at boot; disarmed by a controller that has put everything away. A
controller that was killed is back within half a second and takes the handle again. After a standstill of the whole
machine the guard gives the controller its second anew, for that one looks at the clock first.

Behind it stands the machine's own watchdog (fence/oneself.py), where there is one: it resets a machine whose guard does
not turn, or could not perform the will.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from futago.cluster.address import netlink
from futago.cluster.address.sockets import reset_connections
from futago.cluster.fence.oneself import OwnWatchdog
from futago.cluster.unit import kill_cgroup_once
from futago.runtime import service
from futago.runtime.clock import S, now_at
from futago.runtime.faults import WorldFault
from futago.runtime.log import Log
from futago.runtime.unreadable import UNREADABLE
from futago.runtime.worker import Worker
from futago.setup import files, paths

SILENCE_MAX = 1 * S
TURN_S = 0.05
LIVES_MAX = 6  # controllers within LIVES_WITHIN: it keeps dying
LIVES_WITHIN = 10 * S
DATAGRAM_BYTES_MAX = 8192
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4
PRIORITY = 10


class Handle(msgspec.Struct, frozen=True):
    """What the controller says at every turn: that it lives, and its will as things stand."""

    pid: int
    is_armed: bool
    interface: str = ""
    addresses: tuple[str, ...] = ()
    cgroup: str = ""
    gate_file: str = ""
    gate_closed: str = ""  # the file's text that lets no application in
    watchdog_s: int = 0  # the machine's own watchdog resets it after so long without us; 0: that is not wanted


def send(sock: socket.socket, handle: Handle, path: Path = paths.GUARD_SOCKET) -> None:
    """Hold the handle; a guard that is not there is none of our business."""
    with contextlib.suppress(OSError):
        sock.sendto(msgspec.json.encode(handle), str(path))


@dataclass(slots=True)
class Watch:
    """When to perform the will. Pure: the caller brings handles and instants."""

    handle: Handle | None = None
    held_at: int = 0
    turned_at: int = 0
    has_fired: bool = False
    lives: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=LIVES_MAX))

    def hold(self, handle: Handle, now: int) -> None:
        """A controller holds the handle."""
        if self.handle is None or handle.pid != self.handle.pid:
            self.lives.append((handle.pid, now))
        if handle.is_armed and not handle.cgroup and not handle.addresses:  # it has just started: the will stands
            if self.handle is None:
                return
            handle = msgspec.structs.replace(self.handle, pid=handle.pid)
        self.handle, self.held_at, self.has_fired = handle, now, False

    def turn(self, now: int) -> str:
        """Return why the will has to be performed now; empty if it has not."""
        stood_still = self.turned_at and now - self.turned_at > SILENCE_MAX // 2
        self.turned_at = now
        if self.handle is None or not self.handle.is_armed or self.has_fired:
            return ""
        if stood_still:
            self.held_at = now
            return ""
        if now - self.held_at > SILENCE_MAX:
            self.has_fired = True
            return "no controller lives"
        if len(self.lives) == LIVES_MAX and now - self.lives[0][1] < LIVES_WITHIN:
            self.has_fired = True
            self.lives.clear()
            return "the controller keeps dying"
        return ""


class Guard:
    """The program."""

    def __init__(self, *, path: Path = paths.GUARD_SOCKET, log: Log, watchdog: OwnWatchdog | None = None) -> None:
        self._path, self._log = path, log
        self._watchdog = watchdog or OwnWatchdog(log=log)
        self._watch = Watch()
        self._worker = Worker("gate-file")

    async def run(self, stop: asyncio.Event) -> None:
        """Guard until told to stop."""
        sock = self._listen()
        loop = asyncio.get_running_loop()
        loop.add_reader(sock.fileno(), self._receive, sock)
        service.notify_ready("waiting for a controller")
        try:
            while not stop.is_set():
                why = self._watch.turn(now_at())
                if why and self._watch.handle is not None and not await self._perform(self._watch.handle, why):
                    self._watchdog.forsake("the last will could not be performed")
                self._tend()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TURN_S):
                        await stop.wait()
        finally:
            loop.remove_reader(sock.fileno())
            sock.close()
            self._watchdog.release()

    def _tend(self) -> None:
        """Hold the machine's watchdog from the first controller on, until one has put everything away."""
        handle = self._watch.handle
        self._watchdog.tend(handle.watchdog_s if handle is not None and handle.is_armed else 0, now_at())

    def _listen(self) -> socket.socket:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        sock.bind(str(self._path))
        self._path.chmod(0o600)
        return sock

    def _receive(self, sock: socket.socket) -> None:
        for _ in range(64):
            try:
                data = sock.recv(DATAGRAM_BYTES_MAX)
                self._watch.hold(msgspec.json.decode(data, type=Handle), now_at())
            except BlockingIOError:
                return
            except UNREADABLE as e:
                self._log.warning("guard.nonsense", error=str(e))

    async def _perform(self, will: Handle, why: str) -> bool:
        """Address first, since it needs the kernel only; then the database; the file last, since a disk may hang. Return
        whether address and database are gone; a gate that stays open leads to nothing then.
        """
        is_done = True
        self._log.error("guard.last-will", why=why, pid=will.pid)
        for address in will.addresses:
            with contextlib.suppress(OSError, WorldFault):
                reset_connections(address)  # or clients would wait for an answer that cannot come
            try:
                netlink.remove(will.interface, address)
            except (OSError, WorldFault) as e:
                is_done = False
                self._log.error("guard.address", error=str(e))
        if will.cgroup:
            try:
                killed = kill_cgroup_once(Path(will.cgroup))
                self._log.event("guard.killed", processes=len(killed))
            except OSError as e:
                is_done = False
                self._log.error("guard.cgroup", error=str(e))
        if will.gate_file:
            owner = files.Owner("root", "postgres")
            try:
                await self._worker.do(
                    lambda: files.write(Path(will.gate_file), will.gate_closed, mode=0o640, owner=owner),
                    deadline_s=1.0,
                )
            except (OSError, WorldFault) as e:
                self._log.error("guard.gate", error=str(e))
        self._log.event("guard.performed", is_done=is_done)
        return is_done


def stay_in_memory(log: Log, *, priority: int) -> None:
    """Lock our memory and ask for real-time priority; say so where it is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0:
        log.warning("memory.not-locked", error=os.strerror(ctypes.get_errno()))
    try:  # children are ordinary again: nothing that we start may hold a processor for good
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError as e:
        log.warning("priority.not-real-time", error=str(e))


def main() -> int:
    """Run the guard; return its exit code."""
    log = Log(program="guard")
    stay_in_memory(log, priority=PRIORITY + 1)

    async def run(stop: asyncio.Event) -> int:
        await Guard(log=log).run(stop)
        return 0

    return service.run(run)
