"""The journal on disk: written by the real writer, cut, damaged, pruned, and read back."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from futago.intake.journal import folders, new_incarnation, prune, repair, segments
from futago.intake.model import Incarnation, Position, Record
from futago.intake.reader import JournalReader
from futago.intake.segment import SEGMENT_HEAD_BYTES, pack_record, scan
from futago.intake.writer import Batch, JournalWriter

SOURCE = bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 1])


def packed(sequence: int, data: bytes) -> bytes:
    return pack_record(
        sequence=sequence, time_ns=sequence * 1000, protocol=1, flags=0, source=SOURCE, port=514, data=data
    )


def batch(incarnation: Incarnation, first: int, count: int, size: int = 20) -> Batch:
    data = [packed(n, b"%06d" % n + b"x" * (size - 6)) for n in range(first, first + count)]
    return Batch(incarnation, first, first + count - 1, sum(map(len, data)), data)


def write(root: Path, *batches: Batch, segment_bytes: int = 64 << 20) -> None:
    writer = JournalWriter(root, segment_bytes=segment_bytes, interval_s=0)
    for one in batches:
        writer.append(one)
        wait_synced(writer, one.last)
    writer.close()


def wait_synced(writer: JournalWriter, sequence: int) -> None:
    limit = time.monotonic() + 30
    while writer.synced is None or writer.synced.sequence < sequence:
        assert time.monotonic() < limit, writer.fault
        time.sleep(0.001)


def read_all(reader: JournalReader) -> list[Record]:
    records: list[Record] = []
    while (found := reader.read()) is not None:
        records += found.records
    return records


def sequences(root: Path, after: dict[str, int] | None = None) -> list[int]:
    with closing(JournalReader(root, after or {})) as reader:
        return [r.sequence for r in read_all(reader)]


def only_segment(root: Path) -> Path:
    return segments(folders(root)[-1].path)[-1].path


def test_what_was_synced_is_read_back_in_order(tmp_path: Path) -> None:
    inc = new_incarnation(None)
    write(tmp_path, batch(inc, 1, 300), batch(inc, 301, 5))
    records = read_all(JournalReader(tmp_path, {}))
    assert [r.sequence for r in records] == list(range(1, 306))
    assert records[41].data.startswith(b"000042")
    assert records[41].source == SOURCE
    assert sequences(tmp_path, {inc.id: 300}) == [301, 302, 303, 304, 305]


def test_segments_follow_each_other_without_gap(tmp_path: Path) -> None:
    inc = new_incarnation(None)
    write(tmp_path, *(batch(inc, 1 + 10 * i, 10) for i in range(20)), segment_bytes=2000)
    assert len(segments(folders(tmp_path)[0].path)) > 5
    assert sequences(tmp_path) == list(range(1, 201))
    for start in range(0, 200, 7):
        assert sequences(tmp_path, {inc.id: start}) == list(range(start + 1, 201))


def test_reader_follows_a_growing_journal_over_segments_and_incarnations(tmp_path: Path) -> None:
    a, b = new_incarnation(None), new_incarnation(None)
    reader = JournalReader(tmp_path, {})
    assert reader.read() is None
    writer = JournalWriter(tmp_path, segment_bytes=500, interval_s=0)
    got: list[tuple[str, int]] = []
    for inc in (a, b):
        for first in range(1, 101, 10):
            writer.append(batch(inc, first, 10))
            wait_for(writer, Position(inc.id, first + 9))
            while (found := reader.read()) is not None:
                got += [(found.incarnation.id, r.sequence) for r in found.records]
    writer.close()
    assert got == [(inc.id, n) for inc in (a, b) for n in range(1, 101)]
    assert reader.damaged == 0


def wait_for(writer: JournalWriter, position: Position) -> None:
    limit = time.monotonic() + 30
    while writer.synced != position:
        assert time.monotonic() < limit, writer.fault
        time.sleep(0.001)


def test_a_tail_torn_at_any_byte_loses_only_the_torn_record(tmp_path: Path) -> None:
    inc = new_incarnation(None)
    write(tmp_path, batch(inc, 1, 3))
    path = only_segment(tmp_path)
    whole = path.read_bytes()
    size = (len(whole) - SEGMENT_HEAD_BYTES) // 3
    for length in range(SEGMENT_HEAD_BYTES, len(whole) + 1):
        path.write_bytes(whole[:length])
        sound = (length - SEGMENT_HEAD_BYTES) // size
        assert sequences(tmp_path) == list(range(1, sound + 1))
        result = repair(tmp_path, are_all_ended=False)
        assert result.last == {inc.id: sound}
        assert result.cut_bytes == (length - SEGMENT_HEAD_BYTES) % size
        assert path.stat().st_size == SEGMENT_HEAD_BYTES + sound * size
        assert sequences(tmp_path) == list(range(1, sound + 1))


def test_a_tail_of_zeros_or_garbage_is_cut(tmp_path: Path) -> None:
    inc = new_incarnation(None)
    write(tmp_path, batch(inc, 1, 3))
    path = only_segment(tmp_path)
    whole = path.read_bytes()
    for tail in (bytes(5000), os.urandom(5000), whole[64:100]):
        path.write_bytes(whole + tail)
        assert repair(tmp_path, are_all_ended=False).cut_bytes == len(tail)
        assert path.read_bytes() == whole


def test_a_torn_segment_head_is_removed_and_nothing_else(tmp_path: Path) -> None:
    inc = new_incarnation(None)
    write(tmp_path, batch(inc, 1, 3))
    torn = folders(tmp_path)[0].path / f"{4:020d}.seg"
    for length in range(SEGMENT_HEAD_BYTES):
        torn.write_bytes(only_segment(tmp_path).read_bytes()[:length] if length else b"")
        assert repair(tmp_path, are_all_ended=False).last == {inc.id: 3}
        assert not torn.exists()


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_segment_whose_head_is_damaged_keeps_its_records(tmp_path: Path, which: int) -> None:
    inc = new_incarnation(None)
    write(tmp_path, batch(inc, 1, 10), batch(inc, 11, 10), batch(inc, 21, 10), segment_bytes=1)
    files = segments(folders(tmp_path)[0].path)
    assert len(files) == 3
    raw = bytearray(files[which].path.read_bytes())
    raw[20] ^= 0x55
    files[which].path.write_bytes(raw)
    result = repair(tmp_path, are_all_ended=True)
    assert (result.last, result.damaged) == ({inc.id: 30}, 1 if which == 2 else 0)
    reader = JournalReader(tmp_path, {})
    assert [r.sequence for r in read_all(reader)] == list(range(1, 31))
    assert reader.damaged == 1


def test_the_only_segment_with_a_damaged_head_is_reported_and_not_deleted(tmp_path: Path) -> None:
    inc = new_incarnation(None)
    write(tmp_path, batch(inc, 1, 10))
    path = only_segment(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[20] ^= 0x55
    path.write_bytes(raw)
    result = repair(tmp_path, are_all_ended=True)
    assert (result.last, result.damaged, path.read_bytes()) == ({inc.id: 10}, 1, bytes(raw))
    reader = JournalReader(tmp_path, {})
    assert (read_all(reader), reader.damaged) == ([], 1)


@pytest.mark.parametrize("where", [0, 2, 5, 9, 20, 40, 50, 60])
def test_a_damaged_record_is_isolated_and_counted(tmp_path: Path, where: int) -> None:
    inc, later = new_incarnation(None), new_incarnation(None)
    write(tmp_path, batch(inc, 1, 10), batch(later, 1, 1))
    path = segments(folders(tmp_path)[0].path)[0].path
    raw = bytearray(path.read_bytes())
    size = (len(raw) - SEGMENT_HEAD_BYTES) // 10
    raw[SEGMENT_HEAD_BYTES + 4 * size + where] ^= 0x55
    path.write_bytes(raw)
    reader = JournalReader(tmp_path, {})
    assert [r.sequence for r in read_all(reader)] == [1, 2, 3, 4, 6, 7, 8, 9, 10, 1]
    assert reader.damaged == 1


def test_reader_waits_at_a_torn_tail_until_an_incarnation_follows(tmp_path: Path) -> None:
    inc, later = new_incarnation(None), new_incarnation(None)
    write(tmp_path, batch(inc, 1, 5))
    path = only_segment(tmp_path)
    path.write_bytes(path.read_bytes()[:-7])
    reader = JournalReader(tmp_path, {})
    assert [r.sequence for r in read_all(reader)] == [1, 2, 3, 4]
    assert reader.damaged == 0
    repair(tmp_path, are_all_ended=True)
    write(tmp_path, batch(later, 1, 2))
    assert [r.sequence for r in read_all(reader)] == [1, 2]


def test_a_copy_that_begins_later_has_a_gap_and_is_read_over_it(tmp_path: Path) -> None:
    inc = new_incarnation(None)
    write(tmp_path, batch(inc, 1, 5))
    write(tmp_path, batch(inc, 100, 5))
    assert sequences(tmp_path) == [1, 2, 3, 4, 5, 100, 101, 102, 103, 104]
    assert sequences(tmp_path, {inc.id: 50}) == [100, 101, 102, 103, 104]


def test_prune_deletes_only_what_had_its_effect_and_never_the_newest_segment(tmp_path: Path) -> None:
    inc = new_incarnation(None)
    write(tmp_path, *(batch(inc, 1 + 10 * i, 10) for i in range(10)), segment_bytes=700)
    folder = folders(tmp_path)[0].path
    firsts = [s.first_sequence for s in segments(folder)]
    prune(tmp_path, {inc.id: 45}, keep_s=0)
    kept = [s.first_sequence for s in segments(folder)]
    assert sequences(tmp_path, {inc.id: 45}) == list(range(46, 101))
    assert len(kept) < len(firsts)
    prune(tmp_path, {inc.id: 100}, keep_s=0)
    assert [s.first_sequence for s in segments(folder)] == firsts[-1:]


def test_prune_keeps_a_margin_unless_the_disk_is_short(tmp_path: Path) -> None:
    inc, later = new_incarnation(None), new_incarnation(None)
    write(tmp_path, *(batch(inc, 1 + 10 * i, 10) for i in range(10)), batch(later, 1, 1), segment_bytes=700)
    before = prune(tmp_path, {inc.id: 100, later.id: 1})
    assert before == prune(tmp_path, {inc.id: 100, later.id: 1})
    after = prune(tmp_path, {inc.id: 100, later.id: 1}, is_short=True)
    assert after < before
    assert sequences(tmp_path, {inc.id: 100}) == [1]


def test_an_incarnation_that_was_pruned_is_still_remembered(tmp_path: Path) -> None:
    inc, later = new_incarnation(None), new_incarnation(None)
    write(tmp_path, batch(inc, 1, 10), batch(later, 1, 1))
    prune(tmp_path, {inc.id: 10}, keep_s=0)
    assert not segments(folders(tmp_path)[0].path)
    assert repair(tmp_path, are_all_ended=False).last == {inc.id: 10, later.id: 1}


def test_steady_clock_goes_on_within_one_boot(tmp_path: Path) -> None:
    first = new_incarnation(None)
    write(tmp_path, batch(first, 1, 1))
    second = new_incarnation(repair(tmp_path, are_all_ended=True).newest)
    assert second.id != first.id
    assert second.zero_ns == first.zero_ns


def test_writer_goes_on_after_a_failed_write_and_nothing_is_lost(tmp_path: Path) -> None:
    inc = new_incarnation(None)
    writer = JournalWriter(tmp_path, interval_s=0)
    writer.append(batch(inc, 1, 10))
    wait_synced(writer, 10)
    real = writer._fd
    writer._fd = os.open(only_segment(tmp_path), os.O_RDONLY)  # writing to it fails with EBADF
    os.close(real)
    writer.append(batch(inc, 11, 10))
    wait_synced(writer, 20)
    writer.close()
    assert sequences(tmp_path) == list(range(1, 21))


def test_writer_waits_for_a_disk_that_is_away(tmp_path: Path) -> None:
    inc = new_incarnation(None)
    root = tmp_path / "journal"
    root.write_text("in the way")
    writer = JournalWriter(root, interval_s=0)
    writer.append(batch(inc, 1, 10))
    limit = time.monotonic() + 30
    while not writer.fault and time.monotonic() < limit:
        time.sleep(0.01)
    assert "NotADirectory" in writer.fault or "FileExists" in writer.fault
    assert writer.pending_bytes > 0
    root.unlink()
    wait_synced(writer, 10)
    writer.close()
    assert writer.fault == ""
    assert sequences(root) == list(range(1, 11))


def test_scan_never_raises_on_any_bytes() -> None:
    for _ in range(300):
        raw = os.urandom(200)
        assert scan(raw).records == []
