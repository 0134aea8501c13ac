"""From a result to the next state: a pure function.

Every result votes for a status: OK for ok, FAILED for critical, IMPOSSIBLE for unknown. A vote for what is already
the status clears the counter. A vote for ok wins at once (recovery); any other vote wins when it is the n-th in a
row against the present status.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from futago.monitoring.model import Change, Check, Result, State, Status, Verdict

VOTES = {Verdict.OK: Status.OK, Verdict.FAILED: Status.CRITICAL, Verdict.IMPOSSIBLE: Status.UNKNOWN}


def advance(state: State, check: Check, result: Result, *, next_due_utc: datetime) -> tuple[State, Change | None]:
    """Return the state after a result, and the change that people should hear of.

    The first ok of a new pair changes its status but is no news, so no Change comes of it.
    """
    vote = VOTES[result.verdict]
    if vote is state.status:
        return State(state.status, state.since_utc, 0, next_due_utc), None
    failures = state.failures + 1
    if vote is not Status.OK and failures < check.failures:
        return State(state.status, state.since_utc, failures, next_due_utc), None
    after = State(vote, result.at_utc, 0, next_due_utc)
    if state.status is Status.UNKNOWN and vote is Status.OK:
        return after, None
    return after, Change(
        check.pair, state.status, vote, result.at_utc, _sentence(state, check, result, vote, failures), check.notify
    )


def _sentence(state: State, check: Check, result: Result, vote: Status, failures: int) -> str:
    who = f"{check.pair.monitor} on {check.pair.host} ({check.address})"
    if vote is Status.OK:
        return f"{who}: ok again after {_length(result.at_utc - state.since_utc)} of {state.status}; {result.text}"
    times = f", {failures} times in a row" if failures > 1 else ""
    return f"{who}: {vote}; {result.text}{times}"


def _length(length: timedelta) -> str:
    seconds = max(round(length.total_seconds()), 0)
    minutes, s = divmod(seconds, 60)
    hours, m = divmod(minutes, 60)
    return f"{hours} h {m} min" if hours else f"{m} min {s} s" if m else f"{s} s"
