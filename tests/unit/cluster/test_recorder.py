"""The flight recorder on a real disk, and the replay of what it wrote."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from futago.cluster import record
from futago.cluster.decide import decide
from futago.cluster.model import At, Decision, Facts, Lsn
from futago.cluster.record import Header, Record, Recorder, read
from futago.runtime.faults import Corrupt
from futago.runtime.worker import Worker
from futago.sim.engine import S
from futago.sim.replay import replay, replay_files
from futago.sim.world import Settings, World


def lived(seconds: int = 12) -> list[tuple[Facts, Decision, int]]:
    """What the controllers of a simulated pair knew and decided while the primary lost its power."""
    seen: list[tuple[Facts, Decision, int]] = []
    world = World(5, settings=Settings(), is_telling=True)
    world.engine.at(3 * S, world.members[0].power_off)
    b = world.members[1]
    think = b.think

    def watched() -> None:
        facts, now = b.senses.facts(), b.local()
        think()
        if b.v.decision is not None and b.is_running:
            seen.append((facts, decide(facts, now), now))

    b.think = watched  # type: ignore[method-assign]
    world.engine.run_until(seconds * S)
    return seen


async def recorded(folder: Path, seen: list[tuple[Facts, Decision, int]], *, flush_every: int = 10) -> Recorder:
    recorder = Recorder(folder, member="m2", program="1", worker=Worker("recorder"))
    for n, (facts, decision, now) in enumerate(seen):
        recorder.note(facts, decision, now)
        if n % flush_every == 0:
            await recorder.flush()
    await recorder.flush()
    return recorder


def test_what_was_recorded_comes_out_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = lived()
    asyncio.run(recorded(tmp_path, seen))
    items = list(replay(tmp_path))
    assert isinstance(items[0], Header) and items[0].member == "m2"
    again = [i for i in items if not isinstance(i, Header)]
    assert len(again) >= 8
    assert all(not i.differs for i in again)
    rules = [i.record.decided.rule for i in again]
    assert {"T2.intent", "T2.cas", "T2.adopt", "S6.promote", "S8.open"} <= set(rules)
    assert replay_files(tmp_path, as_json=False) == 0
    told = capsys.readouterr().out
    assert "m2 has the vote and all acknowledged data" in told
    assert "PostgreSQL: primary (was standby)" in told
    assert told.rstrip().endswith(f"{len(again)} decisions replayed, 0 came out otherwise")


def test_order_in_a_set_is_no_difference() -> None:
    program = (
        "from futago.cluster.record import decided_of\n"
        "from futago.cluster.model import At, Decision, Epoch, MemberName, PersistView, View\n"
        "both = frozenset(MemberName(n) for n in ('m1', 'm2'))\n"
        "view = PersistView(View(Epoch(2), MemberName('m1'), both))\n"
        "print(decided_of(Decision((view,), At(1), 'T5.publish', 'why')).actions)"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": str(n)},
            timeout=30,
        ).stdout
        for n in range(4)
    }
    assert len(told) == 1 and b"{'m1', 'm2'}" in told.pop()


def test_decision_that_comes_out_otherwise_is_named_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts, decision, now = lived()[0]
    wrong = replace(decision, rule="B6.wait-stream")
    asyncio.run(recorded(tmp_path, [(facts, wrong, now)]))
    assert replay_files(tmp_path, as_json=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["differs"] == {"rule": ["B6.wait-stream", decision.rule]}


def test_steady_pair_is_recorded_now_and_then_only(tmp_path: Path) -> None:
    facts, decision, now = lived()[0]
    seen = [(facts, decision, now + i * S // 5) for i in range(5 * 125)]
    asyncio.run(recorded(tmp_path, seen))
    assert len([r for r in read(tmp_path / record.NEWEST) if isinstance(r, Record)]) == 3


def test_record_is_bounded_and_keeps_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "FILE_BYTES_MAX", 20_000)
    facts, decision, now = lived()[0]
    seen = []
    for i in range(300):
        changed = replace(facts, pg=replace(facts.pg, flush=Lsn(i + 1)), won_at=At(i))
        seen.append((changed, replace(decision, notes=(str(i),)), now + i * S))
    asyncio.run(recorded(tmp_path, seen, flush_every=5))
    assert sorted(p.name for p in tmp_path.iterdir()) == [record.NEWEST, record.OLDER]
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) < 2 * 20_000 + 20_000
    kept = [int(r.decided.notes[0]) for p in record.files_in(tmp_path) for r in read(p) if isinstance(r, Record)]
    assert kept == list(range(kept[0], 300))
    assert all(isinstance(next(read(p)), Header) for p in tmp_path.iterdir())


def test_hanging_disk_costs_records_and_never_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    write = record.os.write

    def hang(descriptor: int, data: bytes) -> int:
        release.wait(60)
        return write(descriptor, data)

    monkeypatch.setattr(record.os, "write", hang)
    monkeypatch.setattr(record, "WRITE_S_MAX", 0.05)
    facts, decision, now = lived()[0]

    async def scene() -> int:
        recorder = Recorder(tmp_path, member="m2", program="1", worker=Worker("recorder"))
        longest = 0.0
        for i in range(2 * record.BASKET_MAX):
            began = time.perf_counter()
            recorder.note(facts, replace(decision, notes=(str(i),)), now + i)
            longest = max(longest, time.perf_counter() - began)
            if i in (0, 1, 2):
                await recorder.flush()
        assert longest < 30  # whoever waits for the disk waits for a minute
        release.set()
        monkeypatch.setattr(record, "WRITE_S_MAX", 30)
        await recorder._worker.do(bool, deadline_s=30)  # it has done what it hung in
        await recorder.flush()
        return recorder.skipped

    assert asyncio.run(scene()) == 0
    records = [r for r in read(tmp_path / record.NEWEST) if isinstance(r, Record)]
    assert sum(r.skipped for r in records) + len(records) >= 2 * record.BASKET_MAX
    assert records[-1].decided.notes == (str(2 * record.BASKET_MAX - 1),)


def test_noting_costs_the_loop_microseconds(tmp_path: Path) -> None:
    facts, decision, now = lived()[0]

    async def scene() -> float:
        recorder = Recorder(tmp_path, member="m2", program="1", worker=Worker("recorder"))
        began = time.process_time()
        for i in range(20_000):
            recorder.note(facts, decision, now + i)
        return (time.process_time() - began) / 20_000

    assert asyncio.run(scene()) < 50e-6


def test_torn_end_ends_the_record_and_another_file_is_refused(tmp_path: Path) -> None:
    asyncio.run(recorded(tmp_path, lived()))
    newest = tmp_path / record.NEWEST
    whole = len(list(read(newest)))
    os.truncate(newest, newest.stat().st_size - 7)
    assert len(list(read(newest))) == whole - 1
    other = tmp_path / "other"
    other.write_bytes(b"something else entirely, long enough")
    with pytest.raises(Corrupt):
        list(read(other))
    assert replay_files(other, as_json=False) == 2


@pytest.mark.parametrize("tail", [b"", b"\0" * 4096, b"\0\0\1\0half a frame", b"\xff" * 5])
def test_what_a_power_cut_tore_hides_nothing_of_what_the_next_controller_records(tmp_path: Path, tail: bytes) -> None:
    """On ext4 a file may have grown by bytes that never reached the disk: they are zeros."""
    seen = lived()
    asyncio.run(recorded(tmp_path, seen))
    newest = tmp_path / record.NEWEST
    before = list(read(newest))
    os.truncate(newest, newest.stat().st_size - 200)
    with newest.open("ab") as f:
        f.write(tail)
    asyncio.run(recorded(tmp_path, seen))
    items = list(read(newest))
    assert items[: len(before) - 1] == before[:-1]
    assert len(items) == 2 * len(before) - 1 and isinstance(items[len(before) - 1], Header)
    assert replay_files(tmp_path, as_json=True) == 0


def test_damaged_decision_is_passed_over_even_if_it_still_reads_as_one(tmp_path: Path) -> None:
    seen = lived()
    asyncio.run(recorded(tmp_path, seen))
    newest = tmp_path / record.NEWEST
    before = list(read(newest))
    last = before[-1]
    assert isinstance(last, Record)
    data = bytearray(newest.read_bytes())
    data[data.rindex(last.decided.reason.encode())] ^= 1  # still MessagePack, still text
    newest.write_bytes(data)
    asyncio.run(recorded(tmp_path, seen))
    items = list(read(newest))
    assert items[: len(before) - 1] == before[:-1]
    assert len(items) == 2 * len(before) - 1 and isinstance(items[len(before) - 1], Header)


def test_record_can_be_read_by_its_owner_only(tmp_path: Path) -> None:
    asyncio.run(recorded(tmp_path / "decisions", lived(4)))
    assert (tmp_path / "decisions").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "decisions" / record.NEWEST).stat().st_mode & 0o777 == 0o600
