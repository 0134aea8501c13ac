"""When a sending that did not succeed is tried again: a pure function."""

from __future__ import annotations

from futago.notify.model import OutboxState, Outcome

FIRST_S, LONGEST_S = 1.0, 300.0
ATTEMPTS_MAX = 1000  # about three days; then a person must look


def after_failure(attempts: int, error: str, *, is_unknown: bool, was_possible_duplicate: bool) -> Outcome:
    """Return what becomes of an entry whose sending was refused, or ended in doubt.

    Args:
        attempts: sendings so far, this one included; at least 1.
        is_unknown: it may have reached its receiver: the next one is marked.
    """
    duplicate = is_unknown or was_possible_duplicate
    if attempts >= ATTEMPTS_MAX:
        return Outcome(OutboxState.FAILED, error, duplicate)
    return Outcome(OutboxState.WAITING, error, duplicate, min(FIRST_S * 2 ** min(attempts - 1, 20), LONGEST_S))
