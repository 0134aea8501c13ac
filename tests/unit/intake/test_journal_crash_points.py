"""Every point at which writing, rotating, repairing and pruning a journal can break: killed, or without power.

After each system call of the real code: what was said to be durable is there, what is there is what was handed over,
in order, without a gap and once; and the journal goes on, as one's own with a new life and as a copy with the rest.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from shadow_disk import Picture, ShadowDisk, Tree, lay_out
from test_journal_files import batch, read_all, wait_for, wait_synced, write

from futago.intake.journal import folders, new_incarnation, prune, repair
from futago.intake.model import Incarnation, Position
from futago.intake.reader import JournalReader
from futago.intake.segment import SEGMENT_HEAD_BYTES
from futago.intake.writer import JournalWriter

SEGMENT_BYTES = 250  # a new one after every second batch
A, B = (Incarnation(new_incarnation(None).id, 1, bytes(16)) for _ in range(2))
HANDED = [(inc.id, n) for inc in (A, B) for n in range(1, 11)]  # two lives of ten messages, two a batch
Found = list[tuple[str, int]]


def found_in(root: Path, after: dict[str, int] | None = None) -> Found:
    reader, found = JournalReader(root, after or {}), Found()
    while (read := reader.read()) is not None:
        found += [(read.incarnation.id, record.sequence) for record in read.records]
    reader.close()
    return found


def written(root: Path, patch: pytest.MonkeyPatch) -> list[Picture]:
    """Write everything; return a picture after each call."""
    root.mkdir()
    disk = ShadowDisk(root)
    with patch.context() as watching:
        disk.watch(watching)
        writer = JournalWriter(root, segment_bytes=SEGMENT_BYTES, interval_s=0)
        disk.said = lambda: writer.synced
        for inc in (A, B):
            for first in range(1, 11, 2):
                writer.append(batch(inc, first, 2))
                wait_for(writer, Position(inc.id, first + 1))
        writer.close()
    return disk.pictures


def states(picture: Picture) -> Iterator[tuple[str, Tree]]:
    """Yield what may be left: all of it, the least, and the least with half of what was under way."""
    yield f"{picture.after}, killed", picture.killed
    yield f"{picture.after}, without power", picture.powerless
    torn = dict(picture.powerless)
    for name, content in picture.killed.items():
        durable = torn.get(name)
        if content is not None and durable is not None and len(content) > len(durable):
            torn[name] = content[: (len(content) + len(durable)) // 2 + 7]  # in the middle of a record
    if torn != picture.powerless:
        yield f"{picture.after}, torn", torn


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """Names of folders that are not there yet."""
    numbers = itertools.count()
    return lambda: tmp_path / f"state{next(numbers)}"


def said_index(said: Position | None) -> int:
    return 0 if said is None else HANDED.index((said.incarnation, said.sequence)) + 1


def test_a_crash_after_any_call_of_the_writer_loses_nothing_that_was_said_to_be_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: Callable[[], Path]
) -> None:
    pictures = written(tmp_path / "journal", monkeypatch)
    assert len({picture.after.split()[0] for picture in pictures}) >= 6
    for picture in pictures:
        for where, tree in states(picture):
            as_own(lay_out(tree, fresh()), said_index(picture.said), where)
            as_copy(lay_out(tree, fresh()), said_index(picture.said), where)


def as_own(root: Path, durable: int, where: str) -> None:
    """The receiver begins a new life behind what is there."""
    repaired = repair(root, are_all_ended=True)
    found = found_in(root)
    assert durable <= len(found), f"{where}: {durable} were said to be durable, {len(found)} are there"
    assert found == HANDED[: len(found)], where
    assert repaired.damaged == 0, where
    last = {inc: max(n for i, n in found if i == inc) for inc in dict.fromkeys(i for i, _ in found)}
    assert {inc: n for inc, n in repaired.last.items() if n} == last, where
    later = new_incarnation(repaired.newest)
    write(root, batch(later, 1, 2))
    with closing(JournalReader(root, {})) as reader:
        assert [record.sequence for record in read_all(reader)] == [n for _, n in found] + [1, 2], where
        assert reader.damaged == 0, where
    assert found_in(root, last) == [(later.id, 1), (later.id, 2)], where


def as_copy(root: Path, durable: int, where: str) -> None:
    """The other member sends on from what the copy says that it has."""
    last = repair(root, are_all_ended=False).last
    assert sum(last.values()) >= durable, where
    writer = JournalWriter(root, segment_bytes=SEGMENT_BYTES, interval_s=0)
    for inc in (A, B):
        known = last.get(inc.id, 0)
        if known < 10:
            writer.append(batch(inc, known + 1, 10 - known))
            wait_synced_of(writer, inc)
    writer.close()
    with closing(JournalReader(root, {})) as reader:
        assert [record.sequence for record in read_all(reader)] == [n for _, n in HANDED], where
        assert reader.damaged == 0, where
    assert found_in(root) == HANDED, where


def wait_synced_of(writer: JournalWriter, inc: Incarnation) -> None:
    wait_for(writer, Position(inc.id, 10))


def test_a_crash_while_a_torn_journal_is_repaired_loses_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: Callable[[], Path]
) -> None:
    pictures = written(tmp_path / "journal", monkeypatch)
    calls = 0
    for picture in pictures:
        for where, tree in list(states(picture))[2:]:
            root = lay_out(tree, fresh())
            disk = ShadowDisk(root)
            with monkeypatch.context() as watching:
                disk.watch(watching)
                repair(root, are_all_ended=True)
            calls += len(disk.pictures)
            for again in disk.pictures:
                for what, left in states(again):
                    as_own(lay_out(left, fresh()), said_index(picture.said), f"{where}; repair: {what}")
    assert calls > 20


@pytest.mark.parametrize("is_short", [False, True])
def test_a_crash_after_any_call_of_pruning_loses_nothing_that_had_no_effect_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: Callable[[], Path], is_short: bool
) -> None:
    whole = tmp_path / "journal"
    writer = JournalWriter(whole, segment_bytes=SEGMENT_BYTES, interval_s=0)
    for inc in (A, B):
        for first in range(1, 11, 2):
            writer.append(batch(inc, first, 2))
            wait_for(writer, Position(inc.id, first + 1))
    writer.close()
    unlinked = 0
    for done in range(len(HANDED) + 1):
        consumed = {inc.id: sum(i == inc.id for i, _ in HANDED[:done]) for inc in (A, B)}
        root = fresh()
        shutil.copytree(whole, root)
        disk = ShadowDisk(root)
        with monkeypatch.context() as watching:
            disk.watch(watching)
            prune(root, consumed, keep_s=0, is_short=is_short)
        unlinked += len(disk.pictures)
        for picture in disk.pictures:
            for where, tree in states(picture):
                left = lay_out(tree, fresh())
                repair(left, are_all_ended=True)
                assert found_in(left, consumed) == HANDED[done:], f"{done} consumed: {where}"
    assert unlinked > 10


def test_a_journal_that_ends_at_any_byte_of_its_last_record_goes_on(tmp_path: Path, fresh: Callable[[], Path]) -> None:
    write(tmp_path / "journal", batch(A, 1, 3))
    (segment,) = folders(tmp_path / "journal")[0].path.glob("*.seg")
    whole = segment.read_bytes()
    size = (len(whole) - SEGMENT_HEAD_BYTES) // 3
    for length in range(len(whole) - size, len(whole) + 1):
        root = fresh()
        shutil.copytree(tmp_path / "journal", root)
        (torn,) = folders(root)[0].path.glob("*.seg")
        torn.write_bytes(whole[:length])
        last = repair(root, are_all_ended=False).last[A.id]
        assert last == (3 if length == len(whole) else 2)
        writer = JournalWriter(root, interval_s=0)
        writer.append(batch(A, last + 1, 5 - last))
        wait_synced(writer, 5)
        writer.close()
        assert found_in(root) == [(A.id, n) for n in range(1, 6)], length
