"""Small networks for the tests of addresses: network namespaces of our own, joined by a bridge, a thread in each.

Namespaces have no names: they live as long as the file descriptors that this process holds, and end with it. Nothing
of the machine's own network is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import pytest

from futago.cluster.address.floating import FloatingAddress
from futago.runtime.log import Log

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
IP_FREEBIND, IPV6_FREEBIND = 15, 78
FLOATING = ("192.0.2.100", "fd00:0:0:1::100")
DEADLINE_S = 30
_libc = ctypes.CDLL(None, use_errno=True)


def enter_new_namespace() -> None:
    """Give this thread a network namespace of its own."""
    if _libc.unshare(CLONE_NEWNET) != 0:
        pytest.skip("no network namespaces here")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


class Machine:
    """A thread with a loop, in a network namespace of its own."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number
        self.loop = asyncio.new_event_loop()
        self._fd: Future[int] = Future()
        threading.Thread(target=self._body, name=name, daemon=True).start()
        self.fd = self._fd.result(DEADLINE_S)

    @property
    def namespace(self) -> str:
        """A path that leads `ip` to the namespace."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def _body(self) -> None:
        try:
            enter_new_namespace()
            self._fd.set_result(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        except BaseException as e:  # noqa: BLE001  handed to the test
            self._fd.set_exception(e)
            return
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    def do(self, work: Callable[[], T]) -> T:
        """Call this in the machine."""

        async def call() -> T:
            return work()

        return self.run(call())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run this in the machine's loop to its end."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(DEADLINE_S)

    def do_elsewhere(self, work: Callable[[], T]) -> T:
        """Call this in another thread of the machine, so that its loop goes on meanwhile."""

        async def call() -> T:
            def enter() -> T:
                if _libc.setns(self.fd, CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
                return work()

            with ThreadPoolExecutor(1) as pool:
                return await asyncio.get_running_loop().run_in_executor(pool, enter)

        return self.run(call())

    def ip(self, words: str) -> None:
        self.do(lambda: ip(*words.split()))

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        os.close(self.fd)


@dataclass(slots=True)
class Lan:
    """Two members and a client behind one bridge."""

    switch: Machine
    a: Machine
    b: Machine
    client: Machine
    hands: list[FloatingAddress] = field(default_factory=list)
    keep: list[socket.socket] = field(default_factory=list)

    def floating(self, machine: Machine, *, is_announced: bool = True) -> FloatingAddress:
        """Return the floating addresses as this machine carries them."""

        def make() -> FloatingAddress:
            return FloatingAddress(
                interface="e0", addresses=FLOATING, on_change=lambda: None, log=Log(), is_announced=is_announced
            )

        made = machine.do(make)
        self.hands.append(made)
        return made


@contextlib.contextmanager
def lan() -> Iterator[Lan]:
    """Make the network; everything of it is gone afterwards."""
    names = ("switch", "a", "b", "client")
    machines = [Machine(n, i) for i, n in enumerate(names)]
    switch, *hosts = machines
    try:
        switch.ip("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
        switch.ip("link set br0 up")
        for host in hosts:
            switch.ip(f"link add p{host.number} type veth peer name e0 netns {host.namespace}")
            switch.ip(f"link set p{host.number} master br0 up")
            host.ip("link set lo up")
            host.ip(f"addr add 192.0.2.{host.number}/24 dev e0")
            host.ip(f"addr add fd00:0:0:1::{host.number}/64 dev e0 nodad")
            host.ip("link set e0 up")
        world = Lan(switch, hosts[0], hosts[1], hosts[2])
        yield world
        for hand, owner in zip(world.hands, (world.a, world.b), strict=False):
            with contextlib.suppress(Exception):
                owner.do(hand.close)
    finally:
        for machine in machines:
            machine.end()


class Answers:
    """A machine that answers each datagram to the floating addresses with its name."""

    def __init__(self, machine: Machine, addresses: Sequence[str] = FLOATING) -> None:
        self._machine, self._addresses = machine, addresses
        self._sockets: list[socket.socket] = []
        machine.do(self._open)

    def _open(self) -> None:
        for address in self._addresses:
            is_6 = ":" in address
            s = socket.socket(socket.AF_INET6 if is_6 else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            level, option = (socket.IPPROTO_IPV6, IPV6_FREEBIND) if is_6 else (socket.IPPROTO_IP, IP_FREEBIND)
            s.setsockopt(level, option, 1)
            s.bind((address, 7007))
            asyncio.get_running_loop().add_reader(s.fileno(), self._answer, s)
            self._sockets.append(s)

    def _answer(self, s: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, whence = s.recvfrom(64)
                s.sendto(data + b" " + self._machine.name.encode(), whence)


@dataclass(slots=True)
class Client:
    """Sends a datagram to one floating address each millisecond, and notes who answered, and when."""

    address: str
    heard: list[tuple[float, str]] = field(default_factory=list)

    def run(self, *, until: Callable[[Client], bool], limit_s: float = 30) -> bool:
        """Send until the condition holds; return whether it did within the limit. Runs in the client's thread."""
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        end = time.monotonic() + limit_s
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            s.connect((self.address, 7007))
            s.settimeout(0.001)
            while time.monotonic() < end:
                with contextlib.suppress(OSError):
                    s.send(b"who")
                with contextlib.suppress(OSError):
                    self.heard.append((time.monotonic(), s.recv(64).decode().split()[-1]))
                if until(self):
                    return True
        return False

    def gap_s(self) -> float:
        """Return the longest time between two answers."""
        return max(b - a for (a, _), (b, _) in pairwise(self.heard))

    def is_answered_by(self, name: str) -> bool:
        return bool(self.heard) and self.heard[-1][1] == name
