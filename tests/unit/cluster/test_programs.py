"""Whether a program lives, judged by its beats and by its use of the processor: with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from futago.cluster import observers
from futago.cluster.observers import Programs
from futago.runtime.clock import S, now_at
from futago.runtime.log import Log

T_STALL = 2 * S
LIMIT = int(observers.BEAT_SHARE * T_STALL)


class Board:
    """Takes the verdict."""

    cfg = SimpleNamespace(t_stall=T_STALL)

    def put(self, **facts: object) -> None:
        self.facts = facts


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """A process that computes and never beats."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield process
    process.kill()
    process.wait()


def programs(pid: int) -> Programs:
    made = Programs(Board(), log=Log(), names=("manager",))  # type: ignore[arg-type]
    program = made._programs["manager"]
    program.death = type("Death", (), {"pid": pid, "signal": lambda _self, number: os.kill(pid, number) is None})()
    program.started_at = now_at() - 60 * S
    program.beat_at = now_at() - 2 * LIMIT
    return made


def look_until(made: Programs, *, still_s: float = 0.0, looks: int = 0) -> None:
    """Look as the loop does, until it has stood still for so long, or so often."""
    program, end = made._programs["manager"], time.monotonic() + 30
    while program.still < still_s * S or looks > 0:
        looks -= 1
        assert time.monotonic() < end
        time.sleep(observers.PROGRAMS_S)
        program.look()


def test_a_program_that_is_late_but_at_work_is_borne(busy: subprocess.Popen[bytes]) -> None:
    made = programs(busy.pid)
    look_until(made, looks=20)
    assert made.is_ok("manager") and made._programs["manager"].still < LIMIT / 2


def test_a_program_that_is_late_and_stopped_is_not_ok_once_it_has_stood_still_for_the_limit(
    busy: subprocess.Popen[bytes],
) -> None:
    made = programs(busy.pid)
    os.kill(busy.pid, signal.SIGSTOP)
    assert made.is_ok("manager")
    look_until(made, still_s=LIMIT / S)
    assert not made.is_ok("manager")


def test_a_beat_ends_standing_still(busy: subprocess.Popen[bytes]) -> None:
    made = programs(busy.pid)
    os.kill(busy.pid, signal.SIGSTOP)
    look_until(made, still_s=LIMIT / S)
    made.beat("manager")
    assert made.is_ok("manager") and made._programs["manager"].still == 0


def test_a_program_that_computes_for_ever_without_a_beat_is_not_ok(busy: subprocess.Popen[bytes]) -> None:
    made = programs(busy.pid)
    made._programs["manager"].beat_at = now_at() - observers.BEAT_BUSY - S
    assert not made.is_ok("manager")


async def test_a_program_that_was_killed_for_standing_still_is_not_ok_until_it_beats_again(
    busy: subprocess.Popen[bytes],
) -> None:
    made = programs(busy.pid)
    program = made._programs["manager"]
    program.still = LIMIT
    await made._restart(program)
    assert busy.wait(10) == -signal.SIGKILL
    assert not made.is_ok("manager")  # also before its death is known, and while it starts
    program.death = type("Death", (), {"pid": 0, "watch": lambda _self, _pid: True})()
    program.begun(os.getpid())
    assert not made.is_ok("manager") and not program.is_stuck(LIMIT)
    made.beat("manager")
    assert made.is_ok("manager")


def test_a_fresh_process_of_a_program_that_died_has_its_time_to_begin(busy: subprocess.Popen[bytes]) -> None:
    made = programs(busy.pid)
    program = made._programs["manager"]
    program.is_dead, program.started_at = True, now_at()
    os.kill(busy.pid, signal.SIGSTOP)
    look_until(made, still_s=LIMIT / S)
    assert not program.is_stuck(LIMIT)
    program.still = observers.BEAT_FIRST
    assert program.is_stuck(LIMIT)
    program.still, program.beat_at = 0, None
    program.started_at -= observers.BEGIN_BUSY
    assert program.is_stuck(LIMIT)
