"""Whether a program lives, judged by its beats and by its use of the processor: with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from futago.cluster import observers
from futago.cluster.observers import Programs
from futago.runtime.clock import S, now_at
from futago.runtime.log import Log


class Board:
    """Takes the verdict."""

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
    program.death = type("Death", (), {"pid": pid})()
    program.started_at = now_at() - 60 * S
    program.beat_at = now_at() - observers.BEAT_LATE - S
    return made


def watch(made: Programs, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        made._programs["manager"].look()
        time.sleep(0.1)
    return made.is_ok("manager")


def test_a_program_that_is_late_but_at_work_is_borne(busy: subprocess.Popen[bytes]) -> None:
    assert watch(programs(busy.pid), 0.5)


def test_a_program_that_is_late_and_stopped_is_not_ok(busy: subprocess.Popen[bytes]) -> None:
    made = programs(busy.pid)
    os.kill(busy.pid, signal.SIGSTOP)
    assert not watch(made, observers.MOVED / S + 0.5)


def test_a_program_that_computes_for_ever_without_a_beat_is_not_ok(busy: subprocess.Popen[bytes]) -> None:
    made = programs(busy.pid)
    made._programs["manager"].beat_at = now_at() - observers.BEAT_BUSY - S
    assert not watch(made, 0.3)
