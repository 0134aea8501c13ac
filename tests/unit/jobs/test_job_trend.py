"""Durations and their trend; which jobs decided the end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from futago.jobs.trend import FEWEST, critical_path, through_nets, trend

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


def test_no_durations_have_no_trend() -> None:
    assert trend([]) is None


def test_steady_durations_do_not_change() -> None:
    found = trend([10.0, 11.0] * 20)
    assert found is not None
    assert (found.count, found.last_s, found.median_s, found.p95_s, found.max_s) == (40, 11.0, 10.5, 11.0, 11.0)
    assert found.change == 0.0


def test_newest_quarter_is_held_against_the_rest() -> None:
    found = trend([10.0] * 30 + [15.0] * 10)
    assert found is not None
    assert found.change == pytest.approx(0.5)


@pytest.mark.parametrize("seconds", [[1.0] * (FEWEST - 1), [0.0] * 10])
def test_too_few_or_no_time_at_all_is_no_change(seconds: list[float]) -> None:
    found = trend(seconds)
    assert found is not None
    assert found.change is None


def test_critical_path_goes_back_along_whichever_predecessor_ended_last() -> None:
    waits_for = {"a": [], "b": [], "c": ["a", "b"], "d": ["c"], "e": ["a"], "never": ["d"]}
    ended = {n: BEGIN + timedelta(seconds=s) for n, s in {"a": 5, "b": 9, "c": 12, "d": 20, "e": 6}.items()}
    assert critical_path(waits_for, ended) == ["b", "c", "d"]
    assert critical_path(waits_for, ended, "e") == ["a", "e"]
    assert critical_path(waits_for, {}) == []


def test_critical_path_goes_through_nets() -> None:
    waits_for = {"load": ["extract"], "load/b": ["load/a"], "after": ["load"]}
    children = {"load": ["load/a", "load/b", "load/x"]}
    ends = {"extract": 5, "load/a": 8, "load/b": 12, "load/x": 9, "load": 12, "after": 15}
    ended = {n: BEGIN + timedelta(seconds=s) for n, s in ends.items()}
    assert critical_path(through_nets(waits_for, children), ended) == ["extract", "load/a", "load/b", "load", "after"]
