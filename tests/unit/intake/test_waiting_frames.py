"""Frames that waited in a connection which was not read: what is said of them, and how the merge finds their twins."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from receivers import Controller, ReceiverProcess, everything, make_pki

from free_ports import free_port
from futago.intake.listen import Counters
from futago.intake.merge import WAITED_NS_MAX, WINDOW_NS, Copies, Merger
from futago.intake.model import Flag, Mark, Protocol, waited_flags, waited_ns
from futago.intake.turns import Turns
from futago.runtime.clock import S

A, B = "m1", "m2"
KEY = 7


def feed(merger: Merger, member: str, at_ns: int, *, waited: int = 0) -> bool:
    """Return whether a copy took effect."""
    return bool(merger.feed(member, Copies([KEY], [at_ns], [False], [waited] if waited else [])))


@pytest.mark.parametrize("seconds", [0.001, 1, 1.5, 2, 3, 12.1, 4000, 86_400])
def test_the_length_is_kept_as_the_next_power_of_two_beside_the_other_flags(seconds: float) -> None:
    length_ns = int(seconds * S)
    flags = waited_flags(length_ns) | Flag.CUT
    assert length_ns <= waited_ns(flags) <= max(2 * length_ns, S)
    assert flags < 256 and flags & Flag.CUT
    assert waited_ns(Flag.CUT) == waited_ns(0) == 0


@pytest.mark.parametrize("is_late_first", [False, True])
def test_a_copy_that_waited_and_its_twin_are_one_message_in_either_order(is_late_first: bool) -> None:
    merger = Merger((A, B))
    first, second = [(A, 100 * S, 0), (B, 160 * S, 64 * S)][:: -1 if is_late_first else 1]
    assert feed(merger, first[0], first[1], waited=first[2])
    assert not feed(merger, second[0], second[1], waited=second[2])
    assert merger.waiting(A) == merger.waiting(B) == 0


def test_two_copies_that_waited_both_are_one_message() -> None:
    merger = Merger((A, B))
    assert feed(merger, A, 160 * S, waited=64 * S)
    assert not feed(merger, B, 130 * S, waited=32 * S)


def test_what_was_received_after_the_wait_is_another_message() -> None:
    merger = Merger((A, B))
    assert feed(merger, B, 160 * S, waited=64 * S)  # its twin was lost
    assert feed(merger, A, 160 * S + WINDOW_NS + 1)


def test_what_was_received_before_the_wait_is_another_message() -> None:
    merger = Merger((A, B))
    assert feed(merger, A, 20 * S)
    assert feed(merger, B, 160 * S, waited=64 * S)


def test_a_repetition_within_the_wait_is_matched_one_by_one() -> None:
    merger = Merger((A, B))
    assert [feed(merger, A, at * S) for at in (100, 110, 130)] == [True] * 3
    assert [feed(merger, B, 160 * S, waited=64 * S) for _ in range(4)] == [False, False, False, True]


def test_a_wait_beyond_the_bound_is_not_believed() -> None:
    merger = Merger((A, B))
    assert feed(merger, A, 0)
    assert feed(merger, B, 3 * WAITED_NS_MAX, waited=4 * WAITED_NS_MAX)


def test_a_copy_that_waited_a_moment_does_not_swallow_what_came_an_hour_earlier() -> None:
    """The other member's journal is read late, after a cut; of a copy here it is only known that it waited a second."""
    merger = Merger((A, B))
    assert feed(merger, A, 7200 * S, waited=1 * S)
    assert feed(merger, B, 3600 * S)
    assert not feed(merger, B, 7199 * S)


SPANS = st.sampled_from([0, *(1 << n for n in range(30, 42))])  # powers of two in nanoseconds: 1 s to an hour


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 8000), SPANS, st.integers(0, 8000), SPANS)
def test_two_copies_are_one_message_exactly_if_they_can_have_come_within_the_window(
    one: int, one_waited: int, other: int, other_waited: int
) -> None:
    at, other_at = one * S, other * S
    merger = Merger((A, B))
    assert feed(merger, A, at, waited=one_waited)
    can_be = at - one_waited <= other_at + WINDOW_NS and other_at - other_waited <= at + WINDOW_NS
    edge = min(abs(at - one_waited - other_at - WINDOW_NS), abs(other_at - other_waited - at - WINDOW_NS))
    assume(edge > 63)  # what a stored time is rounded by
    assert feed(merger, B, other_at, waited=other_waited) is not can_be


def test_the_twin_is_found_among_thousands_of_the_same_content_that_waited() -> None:
    merger, count = Merger((A, B)), 6000
    for n in range(count):
        assert feed(merger, A, 5000 * S + n, waited=1 << 36)
    assert feed(merger, B, 4000 * S)
    assert not any(feed(merger, B, 4990 * S + n) for n in range(count))
    assert merger.waiting(A) == 0


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[ReceiverProcess]:
    pki = make_pki(tmp_path / "pki", "m1", "m2")
    one = ReceiverProcess("m1", tmp_path / "m1", pki, peer="m2", peer_port=free_port(), journal_port=free_port())
    one.start()
    yield one
    one.stop()


def frames(receiver: ReceiverProcess, count: int) -> list[tuple[bytes, int]]:
    """Return data and flags, when `count` frames have come."""
    receiver.wait(lambda s: s["counters"]["syslog_tcp"] == count and s["own"]["last"] == s["own"]["synced"])
    return [(r.data, r.flags) for r in everything(receiver.root / "own") if r.protocol == Protocol.SYSLOG_TCP]


def marks(receiver: ReceiverProcess) -> list[tuple[int, Mark]]:
    found = [r for r in everything(receiver.root / "own") if r.protocol == Protocol.CONTROL]
    return [(r.time_ns, msgspec.msgpack.decode(r.data, type=Mark)) for r in found]


def send_until_dated(receiver: ReceiverProcess, line: socket.socket, word: bytes, *, sent: int) -> int:
    """Send lines until one is dated by its arrival; return how many have been sent in all. Of those that come just after this
    machine halted for a second the receiver says, rightly, that they may have waited.
    """
    for _ in range(30):
        line.sendall(b"<13>%s %d\n" % (word, sent))
        sent += 1
        if dict(frames(receiver, sent))[b"<13>%s %d" % (word, sent - 1)] == 0:
            return sent
        time.sleep(1)
    raise AssertionError("each line is said to have waited")


def test_frames_that_waited_while_the_program_was_stopped_say_so_until_the_connection_is_read_to_its_end(
    receiver: ReceiverProcess,
) -> None:
    process = receiver.process
    assert process is not None
    with socket.create_connection(("127.0.0.1", receiver.syslog_tcp)) as old:
        sent = send_until_dated(receiver, old, b"before", sent=0)
        process.send_signal(signal.SIGSTOP)
        stopped_s = time.monotonic()
        old.sendall(b"<13>waits\n")
        with socket.create_connection(("127.0.0.1", receiver.syslog_tcp)) as new:
            new.sendall(b"<13>waits to be let in\n")
            time.sleep(2.2)
            process.send_signal(signal.SIGCONT)
            length_ns = int((time.monotonic() - stopped_s) * S)
            found = dict(frames(receiver, sent + 2))
        assert waited_ns(found[b"<13>waits"]) >= length_ns - S // 5
        assert waited_ns(found[b"<13>waits to be let in"]) >= length_ns - S // 5
        send_until_dated(receiver, old, b"after", sent=sent + 2)
    said = [at - mark.open_since_ns for at, mark in marks(receiver) if mark.open_since_ns is not None]
    assert max(said) >= length_ns - S // 5
    until(receiver, lambda mark: mark.open_since_ns is None)


class Line:
    """A connection of which the kernel holds nothing."""

    transport, source = None, bytes(16)


def test_what_a_cut_network_kept_with_its_sender_may_come_as_long_after_the_cut_as_it_lasted() -> None:
    line = Line()
    turns = Turns(Counters(), opened=lambda: [line])
    turns.reach(100 * S, is_cut=False)
    assert turns.flags(line, 100 * S) == 0 and turns.open_since_ns is None
    turns.reach(101 * S, is_cut=True)
    turns.reach(113 * S, is_cut=False)
    later = Line()
    turns.meet(later, 124 * S)
    turns.settle(125 * S)
    assert all(waited_ns(turns.flags(x, 125 * S)) >= 24 * S for x in (line, later)) and turns.open_since_ns == 101 * S
    turns.settle(126 * S)
    assert turns.flags(line, 126 * S) == turns.flags(later, 126 * S) == 0 and turns.open_since_ns is None


def test_copies_that_a_cut_kept_with_their_sender_for_longer_than_the_window_have_no_second_effect() -> None:
    """The sender's kernel tried again 12.6 s after its first attempt; the other member had them at once."""
    merger = Merger((A, B))
    assert feed(merger, B, 100 * S)
    merger.pass_time(A, 101 * S)  # as the mark says: what is older may still come
    assert not feed(merger, A, 100 * S + 12_600_000_000, waited=waited_ns(waited_flags(11_600_000_000)))


def test_frames_that_come_while_the_network_was_cut_or_soon_after_say_so(receiver: ReceiverProcess) -> None:
    with (
        Controller(receiver, role="standby", cut=False) as controller,
        socket.create_connection(("127.0.0.1", receiver.syslog_tcp)) as line,
    ):
        sent = send_until_dated(receiver, line, b"before", sent=0)
        controller.line |= {"cut": True}
        until(receiver, lambda mark: mark.open_since_ns is not None)
        line.sendall(b"<13>late\n")
        assert waited_ns(dict(frames(receiver, sent + 1))[b"<13>late"]) > 0
        controller.line |= {"cut": False}
        until(receiver, lambda mark: mark.open_since_ns is None)
        send_until_dated(receiver, line, b"after", sent=sent + 1)


def until(receiver: ReceiverProcess, is_so: Callable[[Mark], bool]) -> None:
    """Wait until the newest mark is so."""
    end = time.monotonic() + 60
    while not is_so(marks(receiver)[-1][1]):
        assert time.monotonic() < end
        time.sleep(0.1)
