"""The ledger of runs: what was acknowledged is there, whatever tore the file behind it."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from futago.agent import ledger as room
from futago.agent.ledger import End, Ledger
from futago.runtime.faults import Corrupt, Refused


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.ledger"


def opened(path: Path, *found: str) -> Ledger:
    made = Ledger(path)
    made.load()
    made.begin(found)
    return made


def end(run_id: str, code: int = 0) -> End:
    return End(run_id, code, is_timed_out=False, started=1.5, ended=2.5)


def read(path: Path) -> Ledger:
    made = Ledger(path)
    made.load()
    return made


def test_next_process_knows_what_was_taken_ended_and_forgotten(path: Path) -> None:
    first = opened(path)
    first.take(["a", "b", "c"])
    first.end([end("b", 7)])
    first.forget(["a"])
    for again in (read(path), opened(path), read(path)):
        assert sorted(again.open_ids) == ["b", "c"]
        assert again.end_of("b") == end("b", 7)
        assert again.end_of("c") is None
        assert again.gone_ids == ["a"]
        assert not again.has("a")


def test_runs_found_on_the_disk_alone_are_taken_into_it(path: Path) -> None:
    opened(path, "x", "y")
    assert read(path).open_ids == ["x", "y"]


def test_end_of_a_run_that_was_forgotten_meanwhile_does_not_bring_it_back(path: Path) -> None:
    first = opened(path)
    first.take(["a"])
    first.forget(["a"])
    first.end([end("a")])
    assert read(path).open_ids == []


def test_line_torn_at_any_byte_leaves_everything_before_it(path: Path) -> None:
    first = opened(path)
    first.take(["a"])
    first.end([end("a", 3)])
    before = path.read_bytes().rstrip(b"\0")
    first.take(["b" * 20])
    whole = path.read_bytes().rstrip(b"\0")
    for cut in range(len(before), len(whole)):
        path.write_bytes(whole[:cut].ljust(len(whole) + 100, b"\0"))
        again = read(path)
        assert again.open_ids == ["a"], cut
        assert again.end_of("a") == end("a", 3)


def test_full_file_is_written_anew_with_what_is_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LEDGER_BYTES_MIN", 4096)
    monkeypatch.setattr(room, "GONE_KEPT_MAX", 50)
    chance = random.Random(3)
    book, alive, ended = opened(path), set[str](), set[str]()
    for n in range(3_000):
        run_id = f"run-{n}"
        book.take([run_id])
        alive.add(run_id)
        if chance.random() < 0.5:
            book.end([end(run_id, n % 256)])
            ended.add(run_id)
        if len(alive) > 60:
            gone = chance.sample(sorted(alive), 30)
            book.forget(gone)
            alive -= set(gone)
        if n % 500 == 0:
            book = opened(path)
    again = read(path)
    assert set(again.open_ids) == alive
    assert {i for i in alive if again.end_of(i)} == alive & ended
    assert all((e := again.end_of(i)) and e.code == int(i.split("-")[1]) % 256 for i in alive & ended)
    assert path.stat().st_size < 64 * 1024


def test_failed_sync_refuses_and_the_next_call_writes_a_new_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = opened(path)
    book.take(["a"])
    before = path.stat().st_ino

    def fail(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", fail)
        with pytest.raises(Refused, match="Input/output"):
            book.take(["b"])
    assert not book.has("b")
    book.take(["c"])
    assert path.stat().st_ino != before
    assert read(path).open_ids == ["a", "c"]


def test_file_that_is_no_ledger_is_not_taken_for_an_empty_one(path: Path) -> None:
    path.write_bytes(b"\0" * 4096)
    with pytest.raises(Corrupt):
        read(path)


def test_orders_are_synced_before_take_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = opened(path)
    seen: list[bytes] = []
    real = os.fdatasync

    def look(fd: int) -> None:
        seen.append(os.pread(fd, 4096, 0))
        real(fd)

    monkeypatch.setattr(os, "fdatasync", look)
    book.take(["a", "b"])
    assert len(seen) == 1
    assert b"a" in seen[0]
    book.forget(["a"])
    assert len(seen) == 1  # forgetting needs none
