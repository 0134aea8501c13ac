"""Senders whose own path to one member is dead for a while: what they had written comes late, and is no second message."""

from __future__ import annotations

import asyncio
import ctypes
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from futago.intake.listen import Counters, tcp_socket
from futago.intake.merge import Copies, Merger
from futago.intake.model import waited_flags, waited_ns
from futago.intake.silences import SILENT_NS, unheard_ns
from futago.intake.turns import Turns
from futago.runtime.clock import MS, S

A, B = "m1", "m2"
STEP_NS = 100 * MS
ASKED_NS = 2 * S  # the kernel's keepalive, as listen.py sets it
END_NS = 400 * S
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27


@dataclass(eq=False)
class Path:
    """A sender's connection to one member, as TCP makes it: in order, nothing lost, tried again at doubled intervals.

    Attributes:
        cuts: when nothing passes, in either direction; they do not overlap.
    """

    cuts: list[tuple[int, int]]
    timeout_ns: int
    source: bytes = bytes(16)
    transport: asyncio.Transport | None = None
    heard_ns: int = 0
    asked_ns: int = 0
    unsent: list[int] = field(default_factory=list)
    _again_ns: int = 0
    _interval_ns: int = 0

    def passes(self, at_ns: int) -> bool:
        return not any(low <= at_ns < high for low, high in self.cuts)

    def write(self, key: int, at_ns: int) -> None:
        if not self.unsent:
            self._again_ns, self._interval_ns = at_ns, self.timeout_ns
        self.unsent.append(key)

    def arrivals(self, now_ns: int) -> list[int]:
        """Let time go on; return what arrives now."""
        if self.asked_ns + ASKED_NS <= now_ns and self.heard_ns + ASKED_NS <= now_ns:
            self.asked_ns = now_ns
            if self.passes(now_ns):
                self.heard_ns = now_ns
        if not self.unsent or now_ns < self._again_ns:
            return []
        if not self.passes(now_ns):
            self._again_ns, self._interval_ns = now_ns + self._interval_ns, min(2 * self._interval_ns, 120 * S)
            return []
        self.heard_ns = now_ns
        came, self.unsent = self.unsent, []
        return came


Item = tuple[int, int, int] | int  # a copy: key, time, flags; or the time that a mark says has passed


def received(lines: list[tuple[int, int]], path: Path, *, hears: bool) -> list[Item]:
    """Return a member's stream; `hears`: it knows of silence."""
    turns = Turns(Counters(), opened=lambda: [path], unheard_ns=lambda _: now_ns - path.heard_ns if hears else None)
    stream: list[Item] = []
    waiting = list(lines)
    now_ns = path.heard_ns = path.asked_ns = 0
    while now_ns < END_NS:
        now_ns += STEP_NS
        while waiting and waiting[0][0] <= now_ns:
            path.write(waiting.pop(0)[1], now_ns)
        stream += [(key, now_ns, turns.flags(path, now_ns)) for key in path.arrivals(now_ns)]
        turns.turn(now_ns)
        turns.settle(now_ns)
        if now_ns % S == 0:
            since_ns = turns.unheard_since_ns
            stream.append(now_ns if since_ns is None else since_ns)
        if not waiting and not path.unsent and now_ns > (lines[-1][0] if lines else 0) + 60 * S:
            break
    assert not path.unsent
    return stream


def effects(streams: dict[str, list[Item]], chance: random.Random) -> dict[int, int]:
    """Merge both streams, read in any pieces; count by key."""
    merger, found, at = Merger((A, B)), dict[int, int](), {A: 0, B: 0}
    while any(at[m] < len(streams[m]) for m in at):
        member = chance.choice([m for m in at if at[m] < len(streams[m])])
        for item in streams[member][at[member] : at[member] + chance.choice((1, 5, 200))]:
            at[member] += 1
            if isinstance(item, int):
                merger.pass_time(member, item)
                continue
            key, time_ns, flags = item
            if merger.feed(member, Copies([key], [time_ns], [False], [waited_ns(flags)])):
                found[key] = found.get(key, 0) + 1
    return found


@st.composite
def cuts(draw: st.DrawFn) -> list[tuple[int, int]]:
    made, at = [], 0
    for _ in range(draw(st.integers(0, 2))):
        low = at + draw(st.integers(1, 40 * S))
        at = low + draw(st.integers(1, 45 * S))
        made.append((low, at))
    return made


LINES = st.lists(st.tuples(st.integers(0, 100 * S), st.integers(1, 4)), max_size=30).map(sorted)
TIMEOUTS = st.sampled_from([200 * MS, 240 * MS, 400 * MS, 700 * MS, 1100 * MS, 1500 * MS])


@settings(max_examples=40, deadline=None)
@given(LINES, cuts(), cuts(), TIMEOUTS, st.randoms(use_true_random=False))
def test_undated_lines_have_one_effect_however_long_one_path_or_both_were_dead(
    lines: list[tuple[int, int]],
    one: list[tuple[int, int]],
    other: list[tuple[int, int]],
    timeout_ns: int,
    chance: random.Random,
) -> None:
    streams = {m: received(lines, Path(c, timeout_ns), hears=True) for m, c in ((A, one), (B, other))}
    sent: dict[int, int] = {}
    for _, key in lines:
        sent[key] = sent.get(key, 0) + 1
    assert effects(streams, chance) == sent


@pytest.mark.parametrize(("hears", "told"), [(True, 1), (False, 2)])
def test_a_line_that_only_one_path_kept_is_told_once_because_its_silence_is_heard(hears: bool, told: int) -> None:
    lines, dead = [(20 * S, 1)], [(19 * S, 31 * S)]
    streams = {
        A: received(lines, Path([], 200 * MS), hears=hears),
        B: received(lines, Path(dead, 200 * MS), hears=hears),
    }
    merger, count = Merger((A, B)), 0
    for one in zip(streams[A], streams[B], strict=False):  # side by side, as they come
        for member, item in zip((A, B), one, strict=True):
            if isinstance(item, int):
                merger.pass_time(member, item)
            else:
                count += len(merger.feed(member, Copies([item[0]], [item[1]], [False], [waited_ns(item[2])])))
    assert count == told


class World:
    """Two connections and how long nothing was heard of them."""

    def __init__(self) -> None:
        self.unheard: dict[Path, int] = {}
        self.turns = Turns(Counters(), opened=lambda: list(self.unheard), unheard_ns=lambda c: self.unheard[c])  # type: ignore[index]

    def at(self, now_ns: int) -> Turns:
        self.turns.settle(now_ns)
        return self.turns


def test_only_the_silent_connection_is_late_and_only_as_long_as_its_silence_may_last_on() -> None:
    world, dead, well = World(), Path([], 0), Path([], 0, source=b"\1" * 16)
    world.unheard = {dead: 4 * S, well: S}
    turns = world.at(100 * S)
    assert waited_ns(turns.flags(dead, 104 * S)) >= 8 * S and turns.flags(well, 104 * S) == 0
    assert turns.unheard_since_ns == 96 * S and turns.open_since_ns is None
    world.unheard[dead] = 0
    world.at(106 * S)  # heard again, after 10 s
    world.at(116 * S)
    assert turns.flags(dead, 116 * S) == waited_flags(20 * S)
    world.at(118 * S)
    assert turns.flags(dead, 118 * S) == 0 and turns.unheard_since_ns is None


def test_a_second_silence_before_the_first_was_made_up_for_counts_from_the_first() -> None:
    world, dead = World(), Path([], 0)
    world.unheard = {dead: SILENT_NS}
    world.at(100 * S)
    world.unheard[dead] = 0
    world.at(107 * S)
    world.unheard[dead] = SILENT_NS
    world.at(112 * S)
    world.unheard[dead] = 0
    turns = world.at(117 * S)
    world.at(137 * S)
    assert turns.unheard_since_ns == 97 * S
    world.at(139 * S)
    assert turns.unheard_since_ns is None


def test_a_connection_in_place_of_a_silent_one_may_bring_what_is_as_old() -> None:
    world, dead, anew, other = World(), Path([], 0), Path([], 0), Path([], 0, source=b"\1" * 16)
    world.unheard = {dead: 5 * S}
    turns = world.at(100 * S)
    for one in (anew, other):
        world.unheard[one] = 0
        turns.meet(one, 103 * S)
    assert waited_ns(turns.flags(anew, 103 * S)) >= 8 * S and turns.flags(other, 103 * S) == 0
    turns.forget(dead)
    del world.unheard[dead]
    world.at(113 * S)
    assert turns.flags(anew, 113 * S) == 0 and turns.unheard_since_ns is None


class Held(asyncio.Transport):
    """A connection, and its transport as far as it is asked for its socket."""

    source = bytes(16)

    def __init__(self, sock: socket.socket) -> None:
        super().__init__({"socket": sock})

    @property
    def transport(self) -> asyncio.Transport:
        return self


@contextmanager
def deaf(*socks: socket.socket) -> Iterator[None]:
    """Let the kernel drop every packet that comes for these sockets."""
    nothing = ctypes.create_string_buffer(b"\x06\0\0\0\0\0\0\0")  # BPF: return 0

    class Program(ctypes.Structure):
        _fields_ = (("count", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, bytes(Program(1, ctypes.addressof(nothing))))
    try:
        yield
    finally:
        for sock in socks:
            sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, bytes(4))


def until(holds: Callable[[], bool], *, limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_kernel_tells_which_sender_cannot_be_reached() -> None:
    with tcp_socket("127.0.0.1", 0) as server:
        server.listen()
        address = server.getsockname()
        with socket.create_connection(address) as dead, socket.create_connection(address):
            at_dead, at_well = server.accept()[0], server.accept()[0]
            with at_dead, at_well:
                lost, there = Held(at_dead), Held(at_well)
                with deaf(dead, at_dead):
                    until(lambda: (unheard_ns(lost) or 0) > SILENT_NS + 2 * S)
                    until(lambda: (unheard_ns(there) or 0) < SILENT_NS)
                    dead.sendall(b"late\n")
                until(lambda: (unheard_ns(lost) or 0) < SILENT_NS)
                at_dead.settimeout(60)
                assert at_dead.recv(10) == b"late\n"
            assert unheard_ns(lost) is None
