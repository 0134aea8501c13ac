"""When pairs are due: the pure calculators."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from futago.monitoring.model import Pair
from futago.monitoring.schedule import OVERDUE_PER_S, due, next_on_grid, phase, spread

NOW = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
pairs = st.builds(Pair, st.text(max_size=8), st.text(max_size=8))
intervals = st.integers(min_value=100, max_value=86_400_000).map(lambda ms: timedelta(milliseconds=ms))
instants = st.datetimes(datetime(2021, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC))


@given(pairs, intervals, instants)
def test_next_instant_is_later_and_at_most_one_interval_away(pair: Pair, interval: timedelta, now: datetime) -> None:
    following = next_on_grid(pair, interval, now)
    assert now < following <= now + interval


@given(pairs, intervals, instants)
def test_grid_is_even_whoever_walks_it(pair: Pair, interval: timedelta, now: datetime) -> None:
    first = next_on_grid(pair, interval, now)
    assert next_on_grid(pair, interval, first) == first + interval
    between = now + (first - now) / 2
    assert next_on_grid(pair, interval, between) in (first, first + interval)


@given(pairs, intervals, instants, st.timedeltas(timedelta(days=-400), timedelta(days=400)))
def test_pair_is_due_within_one_interval_whatever_the_clock_did(
    pair: Pair, interval: timedelta, now: datetime, shift: timedelta
) -> None:
    assert due(pair, interval, row_due=now + shift, now=now) <= now + interval


def test_phases_are_spread_over_the_interval() -> None:
    minute = timedelta(minutes=1)
    tenths = [int(phase(Pair("ping", f"host{i}"), minute) / minute * 10) for i in range(2000)]
    assert min(tenths.count(t) for t in range(10)) > 150


def test_after_a_pause_each_overdue_pair_begins_once_in_a_queue() -> None:
    second = timedelta(seconds=1)
    late = [(Pair("m", f"h{i}"), second, NOW - timedelta(seconds=3)) for i in range(500)]
    plan = spread([*late, (Pair("m", "later"), second, NOW + second / 2)], now=NOW)
    assert len(plan) == 501
    assert plan[Pair("m", "later")] == NOW + second / 2
    begins = sorted(plan.values())[:500]
    assert begins[0] == NOW
    assert begins[-1] - NOW == timedelta(seconds=499 / OVERDUE_PER_S)


@given(st.lists(st.tuples(pairs, intervals, instants), max_size=30), instants)
def test_spread_never_forgets_and_never_delays_by_more_than_half_an_interval(
    waiting: list[tuple[Pair, timedelta, datetime]], now: datetime
) -> None:
    plan = spread(waiting, now=now)
    assert plan.keys() == {pair for pair, _, _ in waiting}
    longest = {pair: max(i for p, i, _ in waiting if p == pair) for pair in plan}
    for pair, at in plan.items():
        assert at >= now or at in [d for p, _, d in waiting if p == pair]
        assert at > now + longest[pair] / 2 or at <= max(
            [now + longest[pair] / 2, *[d for p, _, d in waiting if p == pair]]
        )
