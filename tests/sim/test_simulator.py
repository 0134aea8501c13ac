"""The pair in the simulated world: seeds in a row, every invariant checked; a failing seed is printed with its story."""

import os

import pytest

from futago.sim.hunt import hunt, story
from futago.sim.world import World, run_seed

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


def test_schedules_have_faults_healing_running_clients_and_messages() -> None:
    results = [run_seed(seed) for seed in range(FIRST, FIRST + 40)]
    assert all(r.simulated_s >= 8 and r.faults >= 2 for r in results)
    assert sum(r.simulated_s for r in results) / len(results) > 15
    assert sum(r.acks for r in results) / len(results) > 15, "clients hardly wrote"
    assert sum(r.messages for r in results) / len(results) > 10, "devices hardly sent"
    assert len({r.core for r in results}) == 4
    assert len({kind for r in results for kind in r.kinds}) > 25


def test_short_ways_through_a_quiet_pair_give_what_the_rules_say() -> None:
    for seed in range(FIRST, FIRST + 40):
        world = World(seed)
        world.is_checking = True  # an assertion compares every short way with the production decision
        assert not world.run().violation


def test_one_seed_gives_one_run() -> None:
    assert story(FIRST + 7) == story(FIRST + 7)
    assert story(FIRST + 7) != story(FIRST + 8)
