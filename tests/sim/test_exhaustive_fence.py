"""Every state of a small pair in which the fence device decides; and two shortcuts that must be found."""

from __future__ import annotations

import pytest
from fence_world import FencedSearch, search

from futago.cluster.rules import fencing
from futago.sim.exhaustive import Bounds

SMALL = Bounds(commits=1, epochs=3, crashes=0, turns=2)


def test_no_state_breaks_an_invariant_while_the_fence_decides() -> None:
    found = search(SMALL).run()
    assert found.violation == "", "\n".join(found.trace)
    assert found.is_complete and found.paired_again > 0
    assert {"F1.proved", "F2.proved", "F1.not-met", "F2.not-met", "T3.grant", "T5.publish"} <= found.rules


def test_in_sync_that_outlives_a_boot_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that was shot boots, shoots back and takes over without what was acknowledged since."""
    monkeypatch.setattr(fencing, "is_met", lambda _s: True)
    found = search(SMALL).run()
    assert found.violation.startswith(("S1", "S2", "I6")), found


def test_proof_that_outlives_being_heard_again_is_found() -> None:
    """Off was said, the member came back into the pair, and the old answer is used again."""

    class Gullible(FencedSearch):
        is_gullible = True

    found = Gullible(SMALL).run()
    assert found.violation.startswith(("S1", "S2", "I6")), found
