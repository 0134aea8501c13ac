"""A program that is ended at its deadline takes along what it has started: an order that is still under way in a child
must not be carried out later.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from futago.runtime import process
from futago.runtime.faults import Unknown


async def test_children_of_a_program_end_with_it(tmp_path: Path) -> None:
    note = tmp_path / "child"
    for deadline_s in (0.5, 5, 50):  # on a busy machine the shell may not have come so far
        with pytest.raises(Unknown):
            await process.run(["sh", "-c", f"sleep 300 & echo $! > {note}; wait"], deadline_s=deadline_s)
        if note.exists() and note.read_text().endswith("\n"):
            break
    child = Path(f"/proc/{note.read_text().strip()}/stat")
    for _ in range(1500):  # whoever adopts it reaps it a moment later
        if not child.exists() or child.read_text().rpartition(")")[2].split()[0] in "ZX":
            return
        await asyncio.sleep(0.02)
    pytest.fail("the child lives on")


async def test_program_that_ends_in_time_leaves_its_output_and_code() -> None:
    ended = await process.run(["sh", "-c", "cat; echo sorry >&2; exit 3"], deadline_s=60, stdin=b"in")
    assert (ended.code, ended.out, ended.last_words) == (3, "in", "sorry")
