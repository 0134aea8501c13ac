"""The two-slot file: a torn write never costs the value before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from futago.agent.epoch import EpochFence
from futago.agent.slots import SLOT_BYTES, VALUE_BYTES_MAX, SlotFile
from futago.runtime.faults import Corrupt, Refused


def test_missing_file_has_no_value(tmp_path: Path) -> None:
    assert SlotFile(tmp_path / "f").read() is None


def test_newest_value_is_read_back_by_another_process(tmp_path: Path) -> None:
    file = SlotFile(tmp_path / "f")
    for n in range(5):
        file.write(b"value %d" % n)
        assert SlotFile(tmp_path / "f").read() == b"value %d" % n


@pytest.mark.parametrize("writes", [2, 3])
def test_torn_write_leaves_the_value_before_it(tmp_path: Path, writes: int) -> None:
    path = tmp_path / "f"
    file = SlotFile(path)
    for n in range(1, writes + 1):
        file.write(b"value %d" % n)
    content = bytearray(path.read_bytes())
    newest = writes % 2
    content[newest * SLOT_BYTES + 22] ^= 0xFF
    path.write_bytes(content)
    assert SlotFile(path).read() == b"value %d" % (writes - 1)


def test_two_bad_slots_are_corrupt_not_empty(tmp_path: Path) -> None:
    path = tmp_path / "f"
    SlotFile(path).write(b"x")
    path.write_bytes(b"\0" * 2 * SLOT_BYTES)
    with pytest.raises(Corrupt):
        SlotFile(path).read()
    path.write_bytes(b"")
    with pytest.raises(Corrupt):
        SlotFile(path).read()


def test_value_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        SlotFile(tmp_path / "f").write(b"x" * (VALUE_BYTES_MAX + 1))


async def test_highest_epoch_only_grows_and_survives(tmp_path: Path) -> None:
    fence = EpochFence(tmp_path / "e")
    fence.load()
    await fence.learn(7)
    await fence.learn(5)
    assert fence.highest == 7
    assert fence.admits(7)
    assert not fence.admits(6)
    again = EpochFence(tmp_path / "e")
    again.load()
    assert again.highest == 7


async def test_epoch_counts_only_once_it_is_on_disk(tmp_path: Path) -> None:
    fence = EpochFence(tmp_path / "missing-directory" / "e")
    with pytest.raises(Refused):
        await fence.learn(7)
    assert fence.highest == 0
