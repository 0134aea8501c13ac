"""The failures that peers lose data or stand still in: a frozen primary that comes back, cables that lose one direction, a
disk that hangs.

Each is a scene of the walk (walk.py, `make faults`): under load, with the reckoning of everything that was sent.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from shift import World
from walk import SCENES, Step

from futago.lab.lab import Lab
from futago.lab.pair import wait_protected

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
