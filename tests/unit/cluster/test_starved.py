"""Late or hung: the arithmetic of patience, and what the kernel says of real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from futago.cluster import starved, unit
from futago.cluster.starved import Use, has_had_time, stood_still

MS = 1_000_000
LIMIT, BUSY = 1200 * MS, 12_000 * MS


def had_time(passed: int, waited: int = 0, *, is_ready: bool = False) -> bool:
    return has_had_time(passed=passed * MS, waited=waited * MS, is_ready=is_ready, limit=LIMIT, limit_busy=BUSY)


def still(before: Use, after: Use, passed: int) -> int:
    return stood_still(before, after, passed=passed * MS, looks_every=100 * MS) // MS


def test_on_an_idle_machine_the_limit_is_the_limit() -> None:
    assert not had_time(1199)
    assert had_time(1200)


def test_what_was_waited_for_a_processor_does_not_count() -> None:
    assert not had_time(2000, 801)
    assert had_time(2000, 800)


def test_a_server_that_is_ready_at_this_instant_may_still_answer_but_not_for_ever() -> None:
    assert not had_time(11_999, is_ready=True)
    assert had_time(12_000, 12_000, is_ready=True)


def test_a_process_that_neither_ran_nor_waited_stood_still() -> None:
    assert still(Use(5, 5, "S"), Use(5, 5, "S"), 100) == 100
    assert still(Use(5, 5, "R"), Use(5, 5, "T"), 100) == 100


def test_running_waiting_for_a_processor_and_waiting_for_a_disk_are_no_standing_still() -> None:
    assert still(Use(0, 0, "S"), Use(30 * MS, 50 * MS, "S"), 100) == 20
    assert still(Use(0, 0, "S"), Use(0, 0, "R"), 100) == 0
    assert still(Use(0, 0, "S"), Use(0, 0, "D"), 100) == 0


def test_where_nobody_is_nobody_stands_still() -> None:
    assert still(Use(), Use(), 100) == 0


def test_our_own_lateness_is_not_held_against_it() -> None:
    assert still(Use(5, 5, "S"), Use(5, 5, "S"), 5000) == 200


def test_a_process_without_a_processor_is_seen_to_wait() -> None:
    command = [sys.executable, "-c", "while True: pass"]
    cpu = min(os.sched_getaffinity(0))
    both = [subprocess.Popen(command, preexec_fn=lambda: os.sched_setaffinity(0, {cpu})) for _ in range(2)]  # noqa: PLW1509
    try:
        end = time.monotonic() + 30
        while starved.waited_ns(both[0].pid) < 100 * MS:
            assert time.monotonic() < end, "two on one processor, and none waits"
            time.sleep(0.05)
        assert starved.use_of(both[0].pid).state == "R"
    finally:
        for one in both:
            one.kill()
            one.wait()


def test_a_process_that_is_gone_is_told_by_no_state() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert starved.use_of(gone.pid) == Use()
    assert starved.children_of(gone.pid) == frozenset()


def test_the_fresh_child_of_a_server_counts_and_its_old_ones_do_not(tmp_path: Path) -> None:
    def put(pid: int, *, waited: int, state: str = "S", children: str = "") -> None:
        folder = tmp_path / str(pid)
        (folder / "task" / str(pid)).mkdir(parents=True, exist_ok=True)
        (folder / "stat").write_text(f"{pid} (post gres) {state} " + "0 " * 10 + "1 2 " + "0 " * 20)
        (folder / "schedstat").write_text(f"1 {waited * MS} 1")
        (folder / "task" / str(pid) / "children").write_text(children)

    put(os.getpid(), waited=100)
    put(7, waited=1000, children="8")
    put(8, waited=0)
    wait = starved.ServerWait(7, proc=tmp_path)
    assert wait.look() == (0, False)
    put(os.getpid(), waited=110)  # it is the server's turn since the beginning
    put(7, waited=1200, children="8 9")
    put(8, waited=5000)  # somebody else's session
    put(9, waited=40)
    assert wait.look() == (240 * MS, False)
    put(9, waited=40, state="R")
    assert wait.look() == (240 * MS, True)


def test_our_own_wait_counts_until_our_last_word_and_then_only_who_answers(tmp_path: Path) -> None:
    def put(pid: int, *, waited: int, state: str = "S", children: str = "") -> None:
        _process(tmp_path, pid, state)
        (tmp_path / str(pid) / "schedstat").write_text(f"1 {waited * MS} 1")
        (tmp_path / str(pid) / "task" / str(pid)).mkdir(parents=True, exist_ok=True)
        (tmp_path / str(pid) / "task" / str(pid) / "children").write_text(children)

    put(os.getpid(), waited=100)
    put(7, waited=0, children="8 9")
    wait = starved.ServerWait(7, proc=tmp_path)
    put(8, waited=30)
    put(9, waited=900, state="R")
    put(os.getpid(), waited=150)
    wait.asked(8)
    put(os.getpid(), waited=800)
    put(7, waited=0, state="R", children="8 9")
    assert wait.look() == (80 * MS, False)
    put(8, waited=30, state="R")
    assert wait.look() == (80 * MS, True)


async def test_patience_ends_for_a_server_that_stands_still() -> None:
    server = subprocess.Popen(["sleep", "600"])
    try:
        with pytest.raises(TimeoutError):
            async with starved.patience(server.pid, limit_s=0.05, limit_busy_s=60):
                await asyncio.Event().wait()
    finally:
        server.kill()
        server.wait()


async def test_patience_lasts_while_the_server_is_ready_to_run() -> None:
    server = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        async with starved.patience(server.pid, limit_s=0.01, limit_busy_s=600):
            await asyncio.sleep(0.3)
        os.kill(server.pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            async with starved.patience(server.pid, limit_s=0.01, limit_busy_s=600):
                await asyncio.Event().wait()
    finally:
        server.kill()
        server.wait()


async def test_an_answer_in_time_is_an_answer_and_its_faults_are_its_own() -> None:
    async with starved.patience(os.getpid(), limit_s=60, limit_busy_s=600):
        pass
    with pytest.raises(ValueError, match="own"):
        async with starved.patience(os.getpid(), limit_s=60, limit_busy_s=600):
            raise ValueError("own")


async def test_what_a_server_is_excused_for_ends_with_the_long_limit_or_when_it_is_over() -> None:
    server, is_excused = subprocess.Popen(["sleep", "600"]), True
    try:
        async with starved.patience(server.pid, limit_s=0.01, limit_busy_s=600, is_excused=lambda: is_excused):
            await asyncio.sleep(0.3)
        with pytest.raises(TimeoutError):
            async with starved.patience(server.pid, limit_s=0.01, limit_busy_s=600, is_excused=lambda: is_excused):
                await asyncio.sleep(0.1)
                is_excused = False
                await asyncio.Event().wait()
        with pytest.raises(TimeoutError):
            async with starved.patience(server.pid, limit_s=0.01, limit_busy_s=0.1, is_excused=lambda: True):
                await asyncio.Event().wait()
    finally:
        server.kill()
        server.wait()


def test_a_group_waits_for_a_device_if_one_of_its_processes_does(tmp_path: Path) -> None:
    for pid, state in enumerate("SRDZ", start=1):
        _process(tmp_path, pid, state)
    procs = tmp_path / "cgroup.procs"
    assert not starved.is_any_on_disk(tmp_path, proc=tmp_path)
    procs.write_text("1\n2\n4\n5\n")
    assert not starved.is_any_on_disk(tmp_path, proc=tmp_path)
    procs.write_text("1\n2\n3\n4\n")
    assert starved.is_any_on_disk(tmp_path, proc=tmp_path)


def _process(proc: Path, pid: int, state: str) -> None:
    (proc / str(pid)).mkdir(exist_ok=True)
    (proc / str(pid) / "stat").write_text(f"{pid} (postgres) {state} " + "0 " * 32)


def test_killed_processes_are_stuck_only_while_all_that_is_left_waits_for_a_device(tmp_path: Path) -> None:
    for pid, state in enumerate("DDRZ", start=1):
        _process(tmp_path, pid, state)
    assert unit.is_stuck([1, 2, 4], proc=tmp_path)
    assert not unit.is_stuck([1, 2, 3], proc=tmp_path)
    assert not unit.is_stuck([4], proc=tmp_path)
    assert not unit.is_stuck([5], proc=tmp_path)


async def test_a_kill_that_a_device_holds_up_is_told_once_and_long_before_it_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit, "kill_cgroup_once", lambda _folder: left)
    _process(tmp_path, 1, "D")
    left, told = [1], []
    killing = asyncio.create_task(unit.kill_cgroup(tmp_path, on_stuck=lambda: told.append(left), proc=tmp_path))
    async with asyncio.timeout(30):
        while not told and not killing.done():
            await asyncio.sleep(0.01)
    assert told and not killing.done()
    await asyncio.sleep(2 * unit.STUCK_S)
    left = []
    await killing
    assert len(told) == 1
