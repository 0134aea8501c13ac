"""RELP frames and repetitions: what clients may send, and anything else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from futago.intake.model import DATA_BYTES_MAX, Position
from futago.intake.relp import (
    FRAME_BYTES_MAX,
    UNDERWAY_NS,
    Memory,
    RelpFraming,
    Repetitions,
    Sent,
    identity,
    opened,
    response,
)
from futago.runtime.faults import RemoteProtocolFault

MESSAGE = st.binary(max_size=300)


def frame(number: int, command: bytes, data: bytes) -> bytes:
    return b"%d %b %d%b\n" % (number, command, len(data), b" " + data if data else b"")


@given(st.lists(st.tuples(st.integers(1, 999_999_999), MESSAGE), max_size=12), st.lists(st.integers(1, 40)))
def test_frames_are_the_same_however_they_are_cut_on_the_way(sent: list[tuple[int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(frame(number, b"syslog", data) for number, data in sent)
    framing, found, at = RelpFraming(), [], 0
    for size in [*cuts, len(stream)]:
        found += framing.receive_data(stream[at : at + size])
        at += size
    assert [(one.number, one.data) for one in found] == sent
    assert all(one.command == b"syslog" for one in found)


@given(st.binary(max_size=400))
def test_any_bytes_are_frames_or_a_fault_of_the_client(data: bytes) -> None:
    for prefix in (b"", b"1 syslog ", b"1 open 5 "):
        framing = RelpFraming()
        with contextlib.suppress(RemoteProtocolFault):
            framing.receive_data(prefix + data)


def test_a_long_message_is_cut_and_an_endless_one_refused() -> None:
    long = b"x" * (DATA_BYTES_MAX + 10)
    (found,) = RelpFraming().receive_data(frame(1, b"syslog", long))
    assert found.is_cut
    assert found.data == long[:DATA_BYTES_MAX]
    with pytest.raises(RemoteProtocolFault):
        RelpFraming().receive_data(b"1 syslog %d x" % (FRAME_BYTES_MAX + 1))


def test_answers_are_frames_themselves() -> None:
    text = opened(1) + response(2) + response(3, b"")
    one, two, three = RelpFraming().receive_data(text)
    assert one.data.startswith(b"200 OK\nrelp_version=0")
    assert (two.number, two.command, two.data) == (2, b"rsp", b"200 OK")
    assert (three.number, three.data) == (3, b"")


def at(sequence: int) -> Position:
    return Position("i", sequence)


def feed(repetitions: Repetitions, *messages: bytes, first: int) -> list[int]:
    """Give messages as a server would; return the sequences of those that were recorded anew."""
    new = []
    for message in messages:
        this, position = repetitions.place(message)
        if position is None:
            position = at(first)
            new.append(first)
            first += 1
        repetitions.recorded(Sent(this, position))
    return new


def test_what_was_not_acknowledged_is_known_when_it_comes_again() -> None:
    memory, source = Memory(), bytes(16)
    broken = Repetitions(memory, source)
    assert feed(broken, b"a", b"b", b"b", b"c", first=1) == [1, 2, 3, 4]
    broken.acknowledged(1, 0)
    broken.broke(UNDERWAY_NS + 1)
    other = Repetitions(memory, b"y" * 16)
    assert feed(other, b"b", first=10) == [10], "of another sender"
    again = Repetitions(memory, source)
    assert feed(again, b"b", b"b", b"c", b"c", first=20) == [20]
    assert again.place(b"c") == (identity(b"c"), None)


def test_a_new_connection_that_repeats_nothing_is_new() -> None:
    memory, source = Memory(), bytes(16)
    broken = Repetitions(memory, source)
    feed(broken, b"a", b"b", first=1)
    broken.acknowledged(2, 0)
    broken.broke(UNDERWAY_NS + 1)
    assert feed(Repetitions(memory, source), b"a", b"b", first=3) == [3, 4], "acknowledged long ago: a new message"


def test_an_acknowledgement_that_may_be_lost_is_as_none() -> None:
    for now_ns, is_unheard in ((UNDERWAY_NS - 1, False), (100 * UNDERWAY_NS, True)):
        memory, source = Memory(), bytes(16)
        broken = Repetitions(memory, source)
        feed(broken, b"a", b"b", first=1)
        broken.acknowledged(2, 1)
        broken.broke(now_ns, is_unheard=is_unheard)
        assert feed(Repetitions(memory, source), b"b", b"c", first=3) == [3]


def test_a_connection_that_breaks_while_it_repeats_leaves_the_rest() -> None:
    memory, source = Memory(), bytes(16)
    first = Repetitions(memory, source)
    feed(first, b"a", b"b", b"c", first=1)
    first.broke(0)
    second = Repetitions(memory, source)
    assert feed(second, b"a", first=10) == []
    second.broke(0)
    assert feed(Repetitions(memory, source), b"a", b"b", b"c", b"d", first=10) == [10]
