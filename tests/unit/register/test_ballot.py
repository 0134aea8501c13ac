"""The proposer against real acceptors over a network that loses, repeats and reorders: one history."""

import random
from collections.abc import Callable
from functools import partial

import msgspec
import pytest

from futago.register.acceptor import handle, unable
from futago.register.ballot import Juror, Outcome, Proposal, Roster, may_store, value_of, view_of
from futago.register.model import NO_BALLOT, AcceptorState, Reply, Request, Value

S = 1_000_000_000
ROSTER = Roster("p", 1, tuple(Juror(f"j{i}", f"x{i}") for i in range(3)))


def value(epoch: int, primary: str = "m1", *, roster: int = 1) -> Value:
    return Value(epoch=epoch, primary=primary, insync=(primary,), roster=roster)


class Jury:
    def __init__(self) -> None:
        self.states = {j.name: AcceptorState(pair_id="p", acceptor_id=j.acceptor_id) for j in ROSTER.jurors}
        self.writes = 0
        self.down: set[str] = set()
        self.unable: set[str] = set()

    def ask(self, juror: str, request: Request) -> Reply | None:
        if juror in self.down:
            return None
        after, reply = handle(self.states[juror], request)
        if after is not self.states[juror]:
            if juror in self.unable:
                return unable(request)
            self.writes += 1
        self.states[juror] = after
        return reply


def run(jury: Jury, *, put: Value | None = None, me: str = "m1", nonce: int = 1, start: int = 0) -> Proposal:
    p = Proposal(ROSTER, me=me, nonce=nonce, deadline_at=start + 2 * S, put=put)
    now = start
    while p.outcome is Outcome.PENDING:
        for juror, request in p.messages_to_send(now):
            reply = jury.ask(juror, request)
            if reply is not None:
                p.receive(juror, reply, now)
        now = max(p.wake_at, now + 1)
    return p


def test_empty_register_reads_as_nothing() -> None:
    p = run(Jury())
    assert p.outcome is Outcome.DONE and p.value is None


def test_put_then_read_gives_the_value_and_reading_costs_no_juror_a_disk_write() -> None:
    jury = Jury()
    assert run(jury, put=value(5)).outcome is Outcome.DONE
    writes = jury.writes
    p = run(jury, nonce=2)
    assert p.value == value(5) and jury.writes == writes


def test_lower_or_equal_epoch_is_refused_and_told_what_is_held() -> None:
    jury = Jury()
    run(jury, put=value(5, "m1"))
    p = run(jury, put=value(5, "m2"), me="m2", nonce=2)
    assert p.outcome is Outcome.REFUSED and p.value == value(5, "m1")
    assert run(jury, put=value(4, "m2"), me="m2", nonce=3).outcome is Outcome.REFUSED
    assert run(jury, put=value(6, "m2"), me="m2", nonce=4).outcome is Outcome.DONE


def test_repeating_the_very_same_put_is_done() -> None:
    jury = Jury()
    run(jury, put=value(5))
    assert run(jury, put=value(5), nonce=2).outcome is Outcome.DONE


def test_one_juror_down_does_not_matter_and_two_do() -> None:
    jury = Jury()
    jury.down = {"j1"}
    assert run(jury, put=value(5)).outcome is Outcome.DONE
    jury.down = {"j1", "j2"}
    assert run(jury, put=value(6), nonce=2).outcome is Outcome.FAILED
    assert run(jury, nonce=3).outcome is Outcome.FAILED
    jury.down = set()
    assert run(jury, nonce=4).value == value(5)


def test_put_that_reached_one_juror_only_is_unknown_and_a_later_read_settles_it() -> None:
    jury = Jury()
    p = Proposal(ROSTER, me="m1", nonce=1, deadline_at=S, put=value(5))
    for juror, request in p.messages_to_send(0):
        reply = jury.ask(juror, request)
        assert reply is not None
        p.receive(juror, reply, 0)
    juror, request = p.messages_to_send(1)[0]
    jury.ask(juror, request)  # the answer is lost, the other two never hear of it
    p.messages_to_send(2 * S)
    assert p.outcome is Outcome.UNKNOWN
    first = run(jury, nonce=2, me="m2", start=3 * S).value
    second = run(jury, nonce=3, me="m1", start=6 * S).value
    assert first == second


def test_put_that_has_ended_makes_an_earlier_lost_one_void_even_if_it_was_refused() -> None:
    jury = Jury()
    run(jury, put=value(5))
    lost = Proposal(ROSTER, me="m1", nonce=2, deadline_at=S, put=value(6))
    for juror, request in lost.messages_to_send(0):
        reply = jury.ask(juror, request)
        assert reply is not None
        lost.receive(juror, reply, 0)
    juror, request = next(m for m in lost.messages_to_send(1) if m[0] == "j2")
    jury.ask(juror, request)  # one juror of three has it
    assert jury.states["j2"].value == value(6)
    jury.down = {"j2"}
    settled = run(jury, put=msgspec.structs.replace(value(5), floor=99), nonce=3, start=2 * S)
    assert settled.outcome is Outcome.REFUSED and settled.value == value(5)
    jury.down = {"j0"}
    assert run(jury, nonce=4, start=4 * S).value == value(5)
    assert run(jury, put=value(5), nonce=5, start=6 * S).value == value(5)


def test_juror_that_cannot_write_does_not_count_for_a_put() -> None:
    jury = Jury()
    jury.unable = {"j0", "j1"}
    p = run(jury, put=value(5))
    assert p.outcome is Outcome.FAILED and p.heard["j0"] == "unable"


def test_retired_roster_can_no_longer_be_written() -> None:
    jury = Jury()
    run(jury, put=value(5))
    assert run(jury, put=value(5, roster=2), nonce=2).outcome is Outcome.DONE
    p = run(jury, put=value(6, "m2"), me="m2", nonce=3)
    assert p.outcome is Outcome.FAILED and set(p.heard.values()) == {"old-roster"}


@pytest.mark.parametrize(
    ("held", "new", "expected"),
    [
        (None, value(1), True),
        (value(3), value(4), True),
        (value(3), value(3), False),
        (value(3), value(2), False),
        (value(3), value(3, roster=2), True),
        (value(3), value(2, roster=2), False),
        (value(3, roster=2), value(9), False),
    ],
)
def test_compare_of_the_compare_and_set(held: Value | None, new: Value, expected: bool) -> None:
    assert may_store(held, new) is expected


def test_view_survives_the_way_through_the_register() -> None:
    v = Value(epoch=9, primary="m2", insync=("m1", "m2"), floor=77)
    assert value_of(view_of(v), roster=1) == v


def test_wire_messages_survive_encoding() -> None:
    p = Proposal(ROSTER, me="m1", nonce=1, deadline_at=S, put=value(5))
    decoder = msgspec.msgpack.Decoder(Request)
    for _, request in p.messages_to_send(0):
        assert decoder.decode(msgspec.msgpack.encode(request)) == request


class Chaos:
    """Many proposals at once; messages are lost, doubled or late; jurors stop and return with what was durable."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.jury = Jury()
        self.now = 0
        self.queue: list[tuple[int, int, Callable[[], None]]] = []
        self.order = 0
        self.done: list[tuple[int, int, str, Value | None]] = []  # (began, ended, kind, value)

    def later(self, act: Callable[[], None]) -> None:
        if self.random.random() < 0.15:
            return
        for _ in range(2 if self.random.random() < 0.1 else 1):
            self.order += 1
            delay = self.random.choice((1, 5, 30, 400)) * 1_000_000
            self.queue.append((self.now + self.random.randrange(delay) + 1, self.order, act))

    def pump(self, p: Proposal) -> None:
        for juror, request in p.messages_to_send(self.now):
            self.later(partial(self.serve, p, juror, request))

    def serve(self, p: Proposal, juror: str, request: Request) -> None:
        reply = self.jury.ask(juror, request)
        if reply is not None:
            self.later(lambda: p.receive(juror, reply, self.now))

    def go(self) -> None:
        running: list[tuple[int, str, Proposal]] = []
        for step in range(400):
            self.now += 5_000_000
            if step % 25 == 0 and step < 300:
                put = value(step // 50 + 1, self.random.choice(("m1", "m2"))) if self.random.random() < 0.7 else None
                me = self.random.choice(("m1", "m2"))
                p = Proposal(ROSTER, me=me, nonce=step, deadline_at=self.now + S, put=put)
                running.append((self.now, "put" if put else "read", p))
            self.jury.down = {j for j in self.jury.states if self.random.random() < 0.1}
            for item in sorted(q for q in self.queue if q[0] <= self.now):
                self.queue.remove(item)
                item[2]()
            for began, kind, p in list(running):
                self.pump(p)
                if p.outcome is not Outcome.PENDING:
                    running.remove((began, kind, p))
                    if p.outcome in (Outcome.DONE, Outcome.REFUSED):
                        self.done.append((began, self.now, kind, p.value))


@pytest.mark.parametrize("seed", range(120))
def test_register_is_one_history_whatever_the_network_does(seed: int) -> None:
    chaos = Chaos(seed)
    chaos.go()
    by_epoch: dict[int, Value] = {}
    for _, _, _, held in chaos.done:
        if held is not None:
            assert by_epoch.setdefault(held.epoch, held) == held, "two values in one epoch"
    for _, ended, _, earlier in chaos.done:
        for began, _, _, later in chaos.done:
            if began > ended:  # what began after an answer must not know less than that answer
                assert (later.epoch if later else 0) >= (earlier.epoch if earlier else 0)


def test_highest_ballot_seen_saves_the_next_put_a_round_trip() -> None:
    jury = Jury()
    first = run(jury, put=value(5), me="m2", nonce=1)
    assert first.highest == NO_BALLOT  # nobody told it of another one
    reader = run(jury, nonce=2)
    p = Proposal(ROSTER, me="m1", nonce=3, deadline_at=S, put=value(6), seen=reader.highest)
    rounds = 0
    while p.outcome is Outcome.PENDING:
        rounds += 1
        for juror, request in p.messages_to_send(0):
            reply = jury.ask(juror, request)
            assert reply is not None
            p.receive(juror, reply, 0)
    assert rounds == 2
