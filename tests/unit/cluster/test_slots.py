"""Slots: whatever is torn, the last sworn record or the one before it is read, and a hung disk makes the member
unable."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from futago.cluster import slots
from futago.cluster.model import Epoch, Lsn, MemberName, View
from futago.cluster.slots import SLOT_BYTES, Keeper, Record, newest, pack, unpack
from futago.runtime.faults import Corrupt, Refused, Unknown


def view(epoch: int) -> View:
    return View(Epoch(epoch), MemberName("m1"), frozenset({MemberName("m1"), MemberName("m2")}), Lsn(9))


async def test_record_is_read_back_by_the_next_keeper(tmp_path: Path) -> None:
    path = tmp_path / "view.slots"
    first = Keeper(path, on_change=lambda: None)
    await first.put_intent(Epoch(4))
    await first.put_view(view(4))
    await first.put_stopped(Epoch(4))
    again = Keeper(path, on_change=lambda: None).durable
    assert again.view == view(4) and again.intent == 0 and again.stopped_epoch == 4 and again.is_able


async def test_view_keeps_an_intent_that_is_newer(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "s", on_change=lambda: None)
    await keeper.put_intent(Epoch(9))
    await keeper.put_view(view(5))
    assert keeper.durable.intent == 9


async def test_older_view_is_refused(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "s", on_change=lambda: None)
    await keeper.put_view(view(5))
    with pytest.raises(Refused):
        await keeper.put_view(view(4))
    assert keeper.durable.view == view(5)


@given(cut=st.integers(0, SLOT_BYTES), old=st.integers(0, 2**63), torn_to=st.binary(max_size=64))
def test_torn_write_leaves_the_record_before_it(cut: int, old: int, torn_to: bytes) -> None:
    before, after = Record(view(3), 0, 0), Record(view(4), 0, 0)
    half = pack(after, old + 1)[:cut] + torn_to
    page = (half + bytes(SLOT_BYTES))[:SLOT_BYTES]
    record, seq = newest(pack(before, old) + page)
    assert (record, seq) in ((before, old), (after, old + 1))
    used = slots._HEAD.size + slots._HEAD.unpack_from(pack(after, old + 1))[1]
    if page[:used] != pack(after, old + 1)[:used]:
        assert record == before


@given(st.integers(0, 8 * 160 - 1))
def test_any_flipped_bit_is_found(bit: int) -> None:
    record = Record(view(7), 8, 7)
    slot = bytearray(pack(record, 12))
    used = slots._HEAD.size + slots._HEAD.unpack_from(slot)[1]
    if bit // 8 >= used:
        return
    slot[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(Corrupt):
        unpack(bytes(slot))


async def test_file_without_a_valid_slot_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(os.urandom(2 * SLOT_BYTES))
    with pytest.raises(Corrupt):
        Keeper(path, on_change=lambda: None)


async def test_hung_write_makes_unable_and_counts_when_it_lands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "WRITE_S_MAX", 0.05)
    hang, changes = threading.Event(), []
    keeper = Keeper(tmp_path / "s", on_change=lambda: changes.append(1))
    pwrite = os.pwrite

    def stuck(fd: int, data: bytes, at: int) -> int:
        hang.wait(60)
        return pwrite(fd, data, at)

    monkeypatch.setattr(os, "pwrite", stuck)
    with pytest.raises(Unknown):
        await keeper.put_view(view(6))
    assert not keeper.durable.is_able and keeper.durable.view is None and keeper.durable.is_writing
    with pytest.raises(Unknown):
        await keeper.put_view(view(7))  # nothing piles up behind a hung disk
    hang.set()
    monkeypatch.setattr(slots, "WRITE_S_MAX", 60)
    async with asyncio.timeout(30):
        while keeper.durable.view != view(6):
            await asyncio.sleep(0.001)
    assert not keeper.durable.is_writing
    await keeper.recheck()
    assert keeper.durable.is_able and changes


async def test_failing_disk_is_refused_and_the_next_good_write_clears_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Keeper(tmp_path / "s", on_change=lambda: None)

    def fail(fd: int) -> None:
        raise OSError(5, "I/O error")

    with monkeypatch.context() as m:
        m.setattr(os, "fdatasync", fail)
        with pytest.raises(Refused):
            await keeper.put_view(view(2))
        assert not keeper.durable.is_able and keeper.durable.view is None
    assert keeper.durable.is_writing  # half of it may be on the disk
    await keeper.recheck()
    assert keeper.durable.is_able and not keeper.durable.is_writing
    again = Keeper(tmp_path / "s", on_change=lambda: None)
    assert again.durable.view is None


class Cache:
    """The page cache between a keeper and its disk. What is read comes from the cache; a power cut leaves the disk. A sync
    that fails leaves its pages clean, as Linux does: the next sync has nothing to write, and succeeds.
    """

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.disk = path, bytearray(path.read_bytes())
        self.dirty: set[int] = set()
        self.is_failing = self.is_lost = False
        self._pwrite, self._sync = os.pwrite, os.fdatasync
        monkeypatch.setattr(os, "pwrite", self._write)
        monkeypatch.setattr(os, "fdatasync", self._flush)

    def _write(self, fd: int, data: bytes, at: int) -> int:
        self.dirty.add(at)
        return self._pwrite(fd, data, at)

    def _flush(self, fd: int) -> None:
        if self.is_lost:
            raise InterruptedError(4, "killed before the sync")
        dirty, self.dirty = self.dirty, set()
        if dirty and self.is_failing:
            raise OSError(5, "I/O error")
        content = self.path.read_bytes()
        for at in dirty:
            self.disk[at : at + SLOT_BYTES] = content[at : at + SLOT_BYTES]
        self._sync(fd)

    def cut_power(self) -> None:
        self.path.write_bytes(self.disk)
        self.dirty.clear()


@pytest.mark.parametrize("end", ["its sync failed", "it was killed before the sync"])
async def test_what_a_predecessor_left_in_the_page_cache_is_on_the_disk_before_it_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    path = tmp_path / "slots"
    slots.create(path, Record())
    cache = Cache(path, monkeypatch)
    first = Keeper(path, on_change=lambda: None)
    await first.put_view(view(4))
    cache.is_failing, cache.is_lost = end == "its sync failed", end != "its sync failed"
    with pytest.raises(Refused):
        await first.put_view(view(5))
    cache.is_failing = cache.is_lost = False
    believed = Keeper(path, on_change=lambda: None).durable
    assert believed.view == view(5) and believed.is_able and not believed.is_writing
    cache.cut_power()
    assert Keeper(path, on_change=lambda: None).durable.view == view(5)


async def test_disk_that_fails_at_the_start_makes_unable_and_the_only_durable_page_is_spared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slots"
    slots.create(path, Record())
    cache = Cache(path, monkeypatch)
    first = Keeper(path, on_change=lambda: None)
    await first.put_view(view(4))
    cache.is_failing = True
    with pytest.raises(Refused):
        await first.put_view(view(5))
    again = Keeper(path, on_change=lambda: None)
    assert not again.durable.is_able and again.durable.is_writing
    await again.recheck()
    assert not again.durable.is_able and newest(bytes(cache.disk))[0].view == view(4)
    cache.is_failing = False
    await again.recheck()
    assert again.durable.is_able and not again.durable.is_writing and again.durable.view == view(5)
    cache.cut_power()
    assert Keeper(path, on_change=lambda: None).durable.view == view(5)


async def test_recheck_beside_a_write_under_way_never_puts_the_older_record_on_top(tmp_path: Path) -> None:
    """In the same turn of the loop: the write is queued, and its thread has not taken it yet."""
    path = tmp_path / "s"
    keeper = Keeper(path, on_change=lambda: None)
    await keeper.put_view(view(4))
    for epoch in range(5, 60):
        await asyncio.gather(keeper.put_view(view(epoch)), keeper.recheck(), keeper.recheck())
        assert newest(path.read_bytes())[0].view == view(epoch)
    assert keeper.durable.is_able and not keeper.durable.is_writing


async def test_second_write_beside_one_under_way_is_unknown_and_the_next_one_works(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "s", on_change=lambda: None)
    first, second = await asyncio.gather(keeper.put_view(view(4)), keeper.put_intent(Epoch(9)), return_exceptions=True)
    assert first is None and isinstance(second, Unknown)
    await keeper.put_intent(Epoch(9))
    assert (keeper.durable.view, keeper.durable.intent, keeper.durable.is_able) == (view(4), 9, True)
