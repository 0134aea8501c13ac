"""The juror's rules, one sentence each."""

from futago.register.acceptor import handle, unable
from futago.register.model import (
    Accept,
    Accepted,
    AcceptorState,
    Address,
    Ballot,
    Held,
    Prepare,
    Promise,
    Query,
    Reject,
    RejectReason,
    Value,
)

STATE = AcceptorState(pair_id="p", acceptor_id="x1")
TO = Address(pair_id="p", acceptor_id="x1", roster=1)
V7 = Value(epoch=7, primary="m1", insync=("m1",))
B1, B2 = Ballot(1, "m1", 5), Ballot(2, "m2", 6)


def test_promise_is_kept_and_a_lower_ballot_is_refused() -> None:
    state, reply = handle(STATE, Prepare(to=TO, serial=1, ballot=B2))
    assert isinstance(reply, Promise) and state.promised == B2
    after, refusal = handle(state, Prepare(to=TO, serial=2, ballot=B1))
    assert refusal == Reject(serial=2, reason=RejectReason.BALLOT, promised=B2)
    assert after is state
    after, refusal = handle(state, Accept(to=TO, serial=3, ballot=B1, value=V7))
    assert isinstance(refusal, Reject) and after is state


def test_accepted_value_is_told_to_the_next_ballot() -> None:
    state, reply = handle(STATE, Accept(to=TO, serial=1, ballot=B1, value=V7))
    assert isinstance(reply, Accepted)
    state, promise = handle(state, Prepare(to=TO, serial=2, ballot=B2))
    assert promise == Promise(serial=2, ballot=B2, accepted=B1, value=V7)
    assert state.value == V7 and state.promised == B2


def test_query_changes_nothing_and_needs_no_disk_write() -> None:
    state, _ = handle(STATE, Accept(to=TO, serial=1, ballot=B1, value=V7))
    after, reply = handle(state, Query(to=TO, serial=9))
    assert after is state
    assert reply == Held(serial=9, promised=B1, accepted=B1, value=V7)


def test_repeated_accept_of_the_same_ballot_needs_no_disk_write() -> None:
    state, _ = handle(STATE, Accept(to=TO, serial=1, ballot=B1, value=V7))
    after, reply = handle(state, Accept(to=TO, serial=2, ballot=B1, value=V7))
    assert after is state and isinstance(reply, Accepted)


def test_juror_that_was_enrolled_anew_has_no_vote() -> None:
    stale = Address(pair_id="p", acceptor_id="before-it-lost-its-file", roster=1)
    after, reply = handle(STATE, Prepare(to=stale, serial=1, ballot=B1))
    assert after is STATE and isinstance(reply, Reject) and reply.reason is RejectReason.WRONG_ACCEPTOR


def test_another_pair_is_refused() -> None:
    other = Address(pair_id="q", acceptor_id="x1", roster=1)
    _, reply = handle(STATE, Query(to=other, serial=1))
    assert isinstance(reply, Reject) and reply.reason is RejectReason.WRONG_PAIR


def test_juror_that_holds_a_newer_roster_refuses_the_old_one() -> None:
    retire = Value(epoch=7, primary="m1", insync=("m1", "m2"), roster=2)
    state, reply = handle(STATE, Accept(to=TO, serial=1, ballot=B1, value=retire))
    assert isinstance(reply, Accepted)
    _, reply = handle(state, Prepare(to=TO, serial=2, ballot=B2))
    assert reply == Reject(serial=2, reason=RejectReason.OLD_ROSTER, roster=2)


def test_juror_with_a_failed_disk_says_so() -> None:
    assert unable(Query(to=TO, serial=3)) == Reject(serial=3, reason=RejectReason.UNABLE)
