"""The pair in the simulated world: seeds in a row, every invariant checked; a failing seed is printed with its story."""

import os

import pytest

from futago.sim.hunt import hunt, story
from futago.sim.world import run_seed

FIRST = int(os.environ.get("FUTAGO_SIM_SEED", "0"))


def run(first: int, seeds: int) -> None:
    for tally in hunt(first, seeds=seeds, stop_at_first=True):
        if tally.violations:
            broken = tally.violations[0]
            pytest.fail(f"seed {broken.seed}: {broken.violation}\n" + "\n".join(story(broken.seed)[-80:]))


def test_invariants_hold_in_every_schedule(request: pytest.FixtureRequest) -> None:
    run(FIRST, request.config.getoption("--sim-seeds"))


@pytest.mark.slow
def test_invariants_hold_in_many_more_schedules() -> None:
    run(FIRST + 10_000, 3000)


def test_schedule_is_long_has_faults_and_running_clients() -> None:
    for seed in range(FIRST, FIRST + 6):
        result = run_seed(seed)
        assert result.simulated_s >= 60
        assert result.faults >= 3
        assert result.acks > 20, "clients hardly wrote"


def test_one_seed_gives_one_run() -> None:
    assert story(FIRST + 7) == story(FIRST + 7)
    assert story(FIRST + 7) != story(FIRST + 8)
