"""Every state of a small abstract pair, with the production rules."""

import pytest

from futago.sim.exhaustive import Bounds, Found, search


def assert_holds(found: Found) -> None:
    assert not found.violation, "\n".join((found.violation, *found.trace))


def test_every_state_without_crashes_is_safe_and_the_pair_finds_together_again() -> None:
    found = search(Bounds(commits=0, epochs=3, crashes=0, turns=2))
    assert_holds(found)
    assert found.is_complete
    assert found.states > 40_000
    assert found.paired_again > 500


def test_states_with_a_commit_and_a_crash_are_safe() -> None:
    found = search(Bounds(commits=1, epochs=3, crashes=1, turns=1, states=200_000))
    assert_holds(found)
    assert found.states > 80_000
    assert "T7s.cas" in found.rules


def test_from_every_state_the_pair_can_be_paired_again() -> None:
    found = search(Bounds(commits=0, epochs=5, crashes=1, turns=0, is_return_checked=True))
    assert_holds(found)
    assert found.is_complete
    assert not found.dead_ends, "\n".join(found.dead_end)


@pytest.mark.slow
@pytest.mark.parametrize(
    "bounds",
    [
        Bounds(commits=1, epochs=3, crashes=0, turns=2),
        Bounds(commits=0, epochs=3, crashes=0, turns=3),
        Bounds(commits=1, epochs=4, crashes=1, turns=2, seconds=1200),
        Bounds(commits=1, epochs=5, crashes=2, turns=2, seconds=1200),
        Bounds(commits=0, epochs=5, crashes=0, turns=2, is_return_checked=True),
        Bounds(commits=0, epochs=5, crashes=1, turns=1, is_return_checked=True),
    ],
)
def test_larger_spaces_are_safe(bounds: Bounds) -> None:
    found = search(bounds)
    assert_holds(found)
    assert not found.dead_ends, "\n".join(found.dead_end)
