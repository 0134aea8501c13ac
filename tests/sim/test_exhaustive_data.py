"""Every state of a small pair, one of whose members loses its data."""

from __future__ import annotations

from data_world import DataSearch

from futago.sim.exhaustive import Bounds


def test_no_state_breaks_an_invariant_when_a_member_loses_its_data_and_the_pair_finds_together_again() -> None:
    found = DataSearch(Bounds(commits=0, epochs=6, crashes=0, turns=1, is_return_checked=True)).run()
    assert found.violation == "", "\n".join(found.trace)
    assert found.is_complete and found.paired_again > 0
    assert not found.dead_ends, "\n".join(found.dead_end)
    assert {"T4.return", "B2.no-data", "R8.rejoin"} <= found.rules
