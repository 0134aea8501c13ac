"""When a run started and ended, by stamps that the kernel put on files with a clock that is behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent_world import order
from futago.agent.model import Record
from futago.agent.records import Records
from futago.link.orders import Outcome

TAKEN = 1_800_000_000.5
SHIM = b"42 (sh) S 1 42 42 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0\n"


@pytest.fixture
def records(tmp_path: Path) -> Records:
    made = Records(tmp_path, boot="b1")
    made.prepare()
    assert made.add([Record(order=order("r1", ":"), boot="b1", taken=TAKEN)]) == [None]
    return made


def stamp(records: Records, name: str, content: bytes, at: float) -> None:
    path = records.where("r1") / name
    path.write_bytes(content)
    os.utime(path, (at, at))


@pytest.mark.parametrize(
    ("stamps", "told"),
    [
        ((-0.004, -0.004), (0, 0)),
        ((0.25, 0.125), (0.25, 0.25)),
        ((-0.004, 0.125), (0, 0.125)),
        ((0.125, 0.25), (0.125, 0.25)),
    ],
)
def test_a_run_neither_starts_before_its_order_nor_ends_before_its_start(
    records: Records, tmp_path: Path, stamps: tuple[float, float], told: tuple[float, float]
) -> None:
    stamp(records, "started", SHIM, TAKEN + stamps[0])
    stamp(records, "exit", b"0 end\n", TAKEN + stamps[1])
    result = records.result("r1")
    assert (result.started, result.ended) == (TAKEN + told[0], TAKEN + told[1])
    records.keep_ends(["r1"])
    (records.where("r1") / "exit").unlink()
    records.close()
    later = Records(tmp_path, boot="b2")
    later.prepare()
    assert later.result("r1") == result  # as the ledger holds it
    later.close()


def test_the_agents_own_word_about_a_run_is_not_earlier_than_its_order(records: Records) -> None:
    stamp(records, "started", SHIM, TAKEN + 0.125)
    records.give_verdict("r1", Outcome.UNKNOWN, "the clock was set back", ended=TAKEN - 3600)
    result = records.result("r1")
    assert (result.started, result.ended) == (TAKEN + 0.125, TAKEN + 0.125)
    records.close()


def test_what_somebody_else_put_beside_the_runs_is_none(tmp_path: Path) -> None:
    for name in ("lost+found", "backup", "00000000-0000-0000-0000-00000000000g"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert Records(tmp_path, boot="b1").prepare() == []
    assert (tmp_path / "runs/lost+found").is_dir()
