"""The merge against a simple reference: of each content, as many effects as the member that received more of it."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from futago.intake.merge import LATE, LATE_NS, RECENT, WINDOW_NS, Copies, Merger, StoredChunk
from futago.intake.model import Mark
from futago.intake.unmatched import CHUNK_ENTRIES_MAX
from futago.runtime.clock import S
from futago.runtime.faults import Corrupt

A, B = "m1", "m2"
SLOT_NS = 60 * S


@dataclass(frozen=True)
class Copy:
    """One received copy."""

    time_ns: int
    key: int
    is_dated: bool


class Stored:
    """Stands for the two tables."""

    def __init__(self) -> None:
        self.head = b""
        self.chunks: dict[int, StoredChunk] = {}

    def merger(self, limits: dict[str, int] | None = None) -> Merger:
        return Merger((A, B), self.head, list(self.chunks.values()), limits=limits)

    def store(self, merger: Merger) -> None:
        changes = merger.changes()
        self.head = changes.head
        for one in changes.deleted:
            self.chunks.pop(one, None)
        for chunk in changes.chunks:
            self.chunks[chunk.chunk_id] = chunk


def feed(merger: Merger, member: str, copies: list[Copy]) -> list[Copy]:
    places = merger.feed(
        member, Copies([c.key for c in copies], [c.time_ns for c in copies], [c.is_dated for c in copies])
    )
    return [copies[p] for p in places]


@dataclass(frozen=True)
class Sent:
    """One message of a device: when, what, and after how long each member received it (None: never)."""

    slot: int
    offset_ns: int
    key: int
    delays: tuple[int | None, int | None]

    @property
    def is_dated(self) -> bool:
        return self.key % 2 == 0


DELAY = st.none() | st.integers(0, 2 * S)
LONG = st.none() | st.integers(0, 3600 * S)


@st.composite
def sent(draw: st.DrawFn) -> Sent:
    key = draw(st.integers(1, 6))
    delay = DELAY if key % 2 else LONG
    return Sent(draw(st.integers(0, 5)), draw(st.integers(0, 2 * S)), key, (draw(delay), draw(delay)))


def received(messages: list[Sent], side: int) -> list[Copy]:
    copies = []
    for one in messages:
        delay = one.delays[side]
        if delay is not None:
            copies.append(Copy(one.slot * SLOT_NS + one.offset_ns + delay, one.key, one.is_dated))
    return sorted(copies, key=lambda c: c.time_ns)


def reference(messages: list[Sent]) -> dict[tuple[int, int], int]:
    """Count by key, and for undated keys by slot: repetitions of those a minute apart are other messages."""
    counts: dict[tuple[int, int], list[int]] = {}
    for one in messages:
        group = counts.setdefault((one.key, -1 if one.is_dated else one.slot), [0, 0])
        for side in (0, 1):
            group[side] += one.delays[side] is not None
    return {key: max(both) for key, both in counts.items() if max(both)}


@settings(max_examples=100, deadline=None)
@given(st.lists(sent(), max_size=40), st.randoms(use_true_random=False))
def test_every_message_has_one_effect_whatever_order_restarts_and_losses(
    messages: list[Sent], chance: random.Random
) -> None:
    streams = {A: received(messages, 0), B: received(messages, 1)}
    stored = Stored()
    merger = stored.merger()
    for member in (A, B):
        merger.pass_time(member, 0)
    stored.store(merger)
    effects: list[Copy] = []
    while streams[A] or streams[B]:
        member = chance.choice([m for m in (A, B) if streams[m]])
        count = chance.randint(1, 6)
        part, streams[member] = streams[member][:count], streams[member][count:]
        batch = feed(merger, member, part)
        merger.pass_time(member, part[-1].time_ns)
        if chance.random() < 0.2:  # the batch is not committed: the primary died, the other goes on from the rows
            streams[member] = part + streams[member]
            merger = stored.merger()
            continue
        effects += batch
        stored.store(merger)
    got: dict[tuple[int, int], int] = {}
    for one in effects:
        group = (one.key, -1 if one.is_dated else one.time_ns // SLOT_NS)
        got[group] = got.get(group, 0) + 1
    assert got == reference(messages)


def both_known() -> Merger:
    merger = Stored().merger()
    merger.pass_time(A, 0)
    merger.pass_time(B, 0)
    return merger


def test_three_genuine_repetitions_stay_three() -> None:
    merger = both_known()
    three = [Copy(S, 1, False)] * 3
    assert len(feed(merger, A, three)) == 3
    assert feed(merger, B, three) == []


def test_what_one_path_lost_is_taken_from_the_other() -> None:
    merger = both_known()
    assert len(feed(merger, A, [Copy(S, 1, False)])) == 1
    assert len(feed(merger, B, [Copy(S, 1, False), Copy(2 * S, 1, False)])) == 1


def test_a_journal_that_arrives_after_hours_still_matches() -> None:
    merger = both_known()
    cut = [Copy(n * S, n % 7 + 1000 * n, False) for n in range(1, 7200)]
    assert len(feed(merger, A, cut)) == len(cut)
    assert feed(merger, B, cut) == []
    assert merger.waiting(A) == 0


def test_an_undated_repetition_after_the_other_was_dead_is_a_new_message() -> None:
    merger = both_known()
    assert len(feed(merger, A, [Copy(n * S, 1, False) for n in range(1, 100)])) == 99
    assert len(feed(merger, B, [Copy(300 * S, 1, False)])) == 1
    merger.pass_time(B, 300 * S)
    assert merger.waiting(A) == 0


def test_a_dated_copy_that_a_sender_queued_for_hours_is_suppressed_once() -> None:
    merger = both_known()
    assert len(feed(merger, A, [Copy(S, 2, True)])) == 1
    late = [Copy(5000 * S, 2, True)] * 2
    assert len(feed(merger, B, late)) == 1


def test_waiting_copies_are_forgotten_only_by_the_progress_of_the_other() -> None:
    merger = both_known()
    feed(merger, A, [Copy(S, 1, False), Copy(S, 2, True)])
    merger.pass_time(A, LATE_NS * 2)
    assert merger.waiting(A) == 2
    merger.pass_time(B, S + WINDOW_NS)
    assert merger.waiting(A) == 2
    merger.pass_time(B, S + WINDOW_NS + 1)
    assert merger.waiting(A) == 1
    merger.pass_time(B, S + LATE_NS + 1)
    assert merger.waiting(A) == 0


def test_nothing_is_forgotten_before_the_other_stream_was_ever_seen() -> None:
    merger = Stored().merger()
    cut = [Copy(n * S, n, n % 2 == 0) for n in range(3600)]
    for one in cut:
        assert len(feed(merger, A, [one])) == 1
        merger.pass_time(A, one.time_ns)
    assert feed(merger, B, cut) == []


def test_what_came_before_the_pair_knew_its_other_member_still_matches() -> None:
    stored = Stored()
    alone = Merger((A, ""))
    early = [Copy(n * S, n, False) for n in range(100)]
    for one in early:
        feed(alone, A, [one])
        alone.pass_time(A, one.time_ns)
    stored.store(alone)
    assert feed(stored.merger(), B, early) == []


def test_a_member_without_a_peer_keeps_to_the_bound_and_the_newest() -> None:
    merger = Merger((A, ""), limits={RECENT: 2000, LATE: 2000})
    for n in range(5000):
        assert len(feed(merger, A, [Copy(n * S, n, False)])) == 1
    assert 2000 - CHUNK_ENTRIES_MAX <= merger.waiting(A) <= 2000


def test_a_member_that_has_not_read_its_settings_yet_forgets_nothing_of_the_other() -> None:
    stored = Stored()
    merger = both_known()
    assert len(feed(merger, B, [Copy(S, 1, False), Copy(S, 2, True)])) == 2
    stored.store(merger)
    unknowing = Merger((A, ""), stored.head, list(stored.chunks.values()))
    unknowing.timelines.learn(A, 100, "", Mark(peer_zero_ns=900, peer_ahead_ns=5))
    stored.store(unknowing)
    merger = stored.merger()
    assert all(one.member for one in merger.timelines.known)
    assert feed(merger, A, [Copy(S, 1, False), Copy(S, 2, True)]) == []


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 20 * S), st.integers(0, S)), max_size=60),
    st.randoms(use_true_random=False),
)
def test_undated_messages_have_one_effect_however_late_a_stream_is_consumed_and_wherever_the_role_moves(
    sending: list[tuple[int, int]], chance: random.Random
) -> None:
    """Both members get everything at nearly the same time; the engine that runs reads a stream as far as it likes, or
    does not know of the other member at all, and the role moves.
    """
    times = list(itertools.accumulate(gap for gap, _ in sending))
    streams = {A: [Copy(t, n, False) for n, t in enumerate(times)]}
    streams[B] = sorted(
        (Copy(c.time_ns + sending[c.key][1], c.key, False) for c in streams[A]), key=lambda c: c.time_ns
    )
    stored, effects = Stored(), list[Copy]()
    known: tuple[str, ...] = (A,)  # the pair begins with one member
    merger = Merger((A, ""))
    while streams[A] or streams[B]:
        member = chance.choice(known)
        count = chance.randint(1, 20)
        batch = feed(merger, member, streams[member][:count])
        if part := streams[member][:count]:
            merger.pass_time(member, part[-1].time_ns)
        if chance.random() < 0.15 or not part:  # the role moves, and what was not committed is done again
            known = chance.choice([(A, B), (B, A)])
            merger = Merger((known[0], known[1]), stored.head, list(stored.chunks.values()))
            continue
        streams[member] = streams[member][count:]
        stored.store(merger)
        effects += batch
    assert sorted(one.key for one in effects) == list(range(len(sending)))


def test_bound_drops_neither_the_newest_nor_what_lies_at_the_end_of_the_other_stream() -> None:
    merger = Stored().merger({RECENT: 5000, LATE: 5000})
    merger.pass_time(A, 0)
    merger.pass_time(B, 10 * S)
    cut = [Copy(10 * S + n * S // 10, n, False) for n in range(20_000)]
    feed(merger, A, cut)
    assert merger.waiting(A) <= 5000
    assert merger.dropped >= 15_000
    assert feed(merger, B, cut[:200]) == []
    assert feed(merger, B, cut[-200:]) == []


def test_a_flood_of_one_content_is_matched_over_chunks_and_restarts() -> None:
    stored = Stored()
    merger = both_known()
    flood = [Copy(S + n, 3, False) for n in range(3 * CHUNK_ENTRIES_MAX)]
    assert len(feed(merger, A, flood)) == len(flood)
    stored.store(merger)
    assert len(stored.chunks) == 3
    merger = stored.merger()
    assert feed(merger, B, flood[:-1]) == []
    stored.store(merger)
    assert len(stored.chunks) == 1
    merger = stored.merger()
    assert feed(merger, B, [flood[-1]]) == []
    assert len(feed(merger, B, [flood[-1]])) == 1


def test_clocks_that_differ_are_brought_together_by_measurement() -> None:
    merger = both_known()
    lines = merger.timelines
    assert lines.shift(A, 100) == 0
    lines.learn(A, 100, B, Mark())
    lines.learn(B, 900, A, Mark(peer_zero_ns=100, peer_ahead_ns=-3600 * S))
    assert lines.shift(B, 900) == 3600 * S
    lines.learn(A, 100, B, Mark(peer_zero_ns=900, peer_ahead_ns=3601 * S))
    assert (lines.shift(A, 100), lines.shift(B, 900)) == (0, 3601 * S)


def test_a_new_boot_is_tied_by_the_wall_clocks_until_it_was_measured() -> None:
    lines = both_known().timelines
    lines.learn(A, 100, B, Mark(wall_ahead_ns=7 * S))  # A's wall clock was set 7 s forward since its boot
    lines.learn(B, 900, A, Mark(wall_ahead_ns=0))
    assert lines.shift(B, 900) == 7 * S
    lines.learn(B, 900, A, Mark(peer_zero_ns=100, peer_ahead_ns=-2 * S))
    assert lines.shift(B, 900) == 2 * S


def test_a_state_that_cannot_be_read_is_told() -> None:
    with pytest.raises(Corrupt):
        Merger((A, B), b"\xc1")
    with pytest.raises(Corrupt):
        Merger((A, B), b"", [StoredChunk(1, A, RECENT, bytes(15))])
