"""Every state of a small pair without a third vote, one of whose members loses its memory, or memory and data."""

from __future__ import annotations

from memory_world import MemorySearch

from futago.sim.exhaustive import Bounds

SMALL = Bounds(commits=1, epochs=3, crashes=0, turns=2)


def test_no_state_breaks_an_invariant_when_a_member_loses_its_memory() -> None:
    found = MemorySearch(SMALL).run()
    assert found.violation == "", "\n".join(found.trace)
    assert found.is_complete and found.paired_again > 0
    assert {"T3.ask", "B8.ask", "M5.grant", "M3.amnesia", "R8.rejoin"} <= found.rules


def test_question_beside_a_promise_that_is_being_written_is_found() -> None:
    """The promise of the asker and that of the member without memory would have the same epoch."""

    class Hasty(MemorySearch):
        is_hasty = True

    assert Hasty(SMALL).run().violation
