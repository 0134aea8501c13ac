"""The failures that peers lose data or stand still in: a frozen primary that comes back, cables that lose one direction, a
disk that hangs.

Each is a scene of the walk (walk.py, `make faults`): under load, with the reckoning of everything that was sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from senders import ApiWriter
from shift import World
from walk import SCENES, Step, recover

from futago.lab.lab import Lab, LabHost
from futago.lab.pair import wait_for_pair, wait_protected
from futago.runtime.clock import now_at

CLIENT_PATIENCE_S = 15.0  # far above the targets: figures are the bench's business


@pytest.fixture(scope="module")
def world(pair: Lab) -> Iterator[World]:
    """The pair, configured for the scenes."""
    wait_protected(pair)
    made = World(pair)
    yield made
    made.close()


def play(world: World, name: str) -> None:
    row = Step(world, next(s for s in SCENES if s.name == name)).run()
    print(row.line())
    assert row.is_good, row.line()
    assert row.resumed_s is not None and row.resumed_s < CLIENT_PATIENCE_S, row.line()


@pytest.mark.parametrize("name", ["F04-unfenced", "F04-kernel-unfenced"])
def test_a_frozen_primary_that_nobody_could_power_off_does_no_harm_when_it_runs_on(world: World, name: str) -> None:
    play(world, name)


def test_a_primary_whose_words_are_lost_but_which_hears_everything_hands_the_service_over(world: World) -> None:
    play(world, "F05-out")


def test_a_primary_whose_database_hangs_on_its_disk_hands_the_service_over(world: World) -> None:
    play(world, "F20")


def test_a_primary_that_serves_alone_waits_for_its_disk_and_goes_on_with_the_same_database(world: World) -> None:
    """Nobody else has the data, so there is nothing that killing the database would be good for."""
    lab = world.lab
    primary = lab.host(str(wait_protected(lab)["primary"]))
    standby = next(m.name for m in lab.members if m.name != primary.name)
    lab.fault("power-cut", standby)
    wait_for_pair(lab, key="state", value="solo", deadline_s=60)
    writer = ApiWriter(lab, rate=20, threads=4)
    writer.start(prefix=f"alone{time.time_ns()}")
    try:
        writer.wait_for_write_after(now_at(), deadline_s=30)
        before = database_pid(primary)
        lab.fault("disk-hang", primary.name)
        time.sleep(5)  # four times as long as the database of a pair has
        lab.heal("disk-hang", primary.name)
        writer.wait_for_write_after(now_at(), deadline_s=30)
        assert database_pid(primary) == before > 0
    finally:
        writer.stop()
        lab.heal()
        recover(lab)
    wait_protected(lab)


def database_pid(member: LabHost) -> int:
    told = member.run(["systemctl", "show", "-p", "MainPID", "--value", "futago-postgres.service"])
    return int(told.stdout)
