"""From results to statuses: the pure core."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from futago.monitoring.evaluate import VOTES, advance
from futago.monitoring.model import Change, Check, Pair, Ping, Result, State, Status, Verdict

START = datetime(2026, 1, 1, tzinfo=UTC)
S = timedelta(seconds=1)


def _check(failures: int) -> Check:
    return Check(Pair("ping", "web1"), "10.0.0.1", Ping(), S, S, failures, ("ops",))


def _walk(verdicts: list[Verdict], *, failures: int, cut_at: int | None = None) -> tuple[State, list[Change]]:
    """Feed verdicts a second apart; with `cut_at`, through a copy of the row, as another member would."""
    state, changes = State(Status.UNKNOWN, START, 0, START), []
    for i, verdict in enumerate(verdicts):
        if i == cut_at:
            state = State(Status(str(state.status)), state.since_utc, state.failures, state.next_due_utc)
        at = START + i * S
        state, change = advance(state, _check(failures), Result(at, verdict, text="x"), next_due_utc=at + S)
        changes += [change] if change else []
    return state, changes


OK, BAD, CANNOT = Verdict.OK, Verdict.FAILED, Verdict.IMPOSSIBLE


def test_third_failure_in_a_row_is_critical_and_not_before() -> None:
    assert _walk([OK, BAD, BAD], failures=3)[0].status is Status.OK
    state, changes = _walk([OK, BAD, BAD, BAD], failures=3)
    assert state.status is Status.CRITICAL and state.failures == 0 and state.since_utc == START + 3 * S
    assert [(c.before, c.after, c.notify) for c in changes] == [(Status.OK, Status.CRITICAL, ("ops",))]
    assert "3 times in a row" in changes[0].text


def test_one_good_answer_starts_the_count_anew() -> None:
    assert _walk([OK, BAD, BAD, OK, BAD, BAD], failures=3)[1] == []


def test_recovery_is_told_once_with_how_long_it_lasted() -> None:
    _, changes = _walk([OK, BAD, BAD, OK, OK], failures=1)
    assert [c.after for c in changes] == [Status.CRITICAL, Status.OK]
    assert "ok again after 2 s of critical" in changes[1].text


def test_first_ok_of_a_new_pair_is_no_news() -> None:
    assert _walk([OK], failures=1) == (State(Status.OK, START, 0, START + S), [])


def test_new_pair_that_never_answers_is_critical() -> None:
    assert [c.after for c in _walk([BAD, BAD], failures=2)[1]] == [Status.CRITICAL]


def test_failing_to_ask_is_unknown_never_critical() -> None:
    state, changes = _walk([OK, CANNOT, CANNOT, CANNOT], failures=2)
    assert state.status is Status.UNKNOWN
    assert [c.after for c in changes] == [Status.UNKNOWN]


@given(st.lists(st.sampled_from(Verdict), max_size=40), st.integers(min_value=1, max_value=5), st.data())
def test_row_carries_everything_a_switch_in_between_changes_nothing(
    verdicts: list[Verdict], failures: int, data: st.DataObject
) -> None:
    cut_at = data.draw(st.integers(min_value=0, max_value=len(verdicts)))
    assert _walk(verdicts, failures=failures, cut_at=cut_at) == _walk(verdicts, failures=failures)


@given(st.lists(st.sampled_from(Verdict), max_size=40), st.integers(min_value=1, max_value=5))
def test_changes_form_a_chain_and_lead_to_the_status(verdicts: list[Verdict], failures: int) -> None:
    state, changes = _walk(verdicts, failures=failures)
    for a, b in pairwise(changes):
        assert a.after is b.before or (a.after is Status.UNKNOWN and b.before is Status.OK)
    assert all(c.before is not c.after for c in changes)
    assert 0 <= state.failures < failures or failures == 1
    last_n = [VOTES[v] for v in verdicts[-failures:]]
    if len(last_n) == failures and len(set(last_n)) == 1:
        assert state.status is last_n[0]
