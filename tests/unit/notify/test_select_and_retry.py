"""The pure parts of notification."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from futago.notify.model import OutboxState
from futago.notify.retry import ATTEMPTS_MAX, LONGEST_S, after_failure
from futago.notify.select import select


@given(st.lists(st.text(max_size=3)), st.sets(st.text(max_size=3)))
def test_every_named_notification_is_told_or_missing_exactly_once(named: list[str], declared: set[str]) -> None:
    selection = select(named, declared=declared)
    assert sorted(selection.told + selection.missing) == sorted(set(named))
    assert set(selection.told) <= declared and not set(selection.missing) & declared


@given(st.integers(min_value=1, max_value=ATTEMPTS_MAX - 1), st.booleans(), st.booleans())
def test_failed_sending_is_tried_again_after_a_bounded_pause(attempts: int, unknown: bool, before: bool) -> None:
    outcome = after_failure(attempts, "x", is_unknown=unknown, was_possible_duplicate=before)
    assert outcome.state is OutboxState.WAITING and 0 < outcome.again_after_s <= LONGEST_S
    assert outcome.possible_duplicate is (unknown or before)


def test_pauses_grow_and_the_last_attempt_is_a_visible_failure() -> None:
    pauses = [after_failure(n, "x", is_unknown=False, was_possible_duplicate=False).again_after_s for n in range(1, 12)]
    assert pauses == sorted(pauses) and pauses[0] == 1
    assert after_failure(ATTEMPTS_MAX, "x", is_unknown=False, was_possible_duplicate=False).state is OutboxState.FAILED
