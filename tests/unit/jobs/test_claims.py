"""Whatever an agent says fits into rows."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from futago.jobs.claims import CODE_MAX, is_run_id, presentable
from futago.link.orders import OUTPUT_TAIL_CHARS_MAX, Outcome, RunEnded


@given(
    code=st.one_of(st.none(), st.integers()),
    started=st.floats(),
    ended=st.floats(),
    output=st.text(st.characters()),
    count=st.integers(),
)
def test_every_claim_becomes_one_that_a_row_can_hold(
    code: int | None, started: float, ended: float, output: str, count: int
) -> None:
    told = presentable(RunEnded("x", Outcome.EXITED, code, started, ended, output, count, "\0why"))
    assert told.exit_code is None or abs(told.exit_code) <= CODE_MAX
    assert told.outcome is (Outcome.EXITED if told.exit_code == code else Outcome.UNKNOWN)
    for seconds in (told.started, told.ended):
        assert math.isfinite(seconds)
        datetime.fromtimestamp(seconds, UTC)
    assert "\0" not in told.output + told.detail and len(told.output) <= OUTPUT_TAIL_CHARS_MAX
    assert 0 <= told.output_bytes < 1 << 63


def test_honest_claim_stays_as_it_is() -> None:
    honest = RunEnded("x", Outcome.EXITED, 143, 1.7e9, 1.7e9 + 1, "out", 3, "why")
    assert presentable(honest) == honest


def test_run_ids_are_uuids() -> None:
    assert is_run_id("5e0f2d9c-6f0c-4f2f-9a39-6b1f1f2a9a11")
    assert not is_run_id("5e0f2d9c-6f0c-4f2f-9a39-6b1f1f2a9a11.bak")
