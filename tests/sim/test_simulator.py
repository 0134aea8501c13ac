"""The pair in the simulated world: seeds in a row, every invariant checked; a failing seed is printed with its story."""

import os
import subprocess
import sys

import pytest

from futago.sim.hunt import hunt, story, story_lines
from futago.sim.world import Result, World, run_seed

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


BROKE = (
    *(3_042_979, 3_052_248, 3_302_858, 3_303_284, 3_322_760),
    *(5_027_686, 5_048_762, 5_055_190, 5_132_762, 5_204_784),
    *(7_160_726, 7_183_706),
)


@pytest.mark.parametrize("seed", BROKE)
def test_seed_of_the_long_run_that_broke_an_invariant_breaks_it_no_more(seed: int) -> None:
    result = run_seed(seed)
    assert not result.violation, f"{result.violation}\n" + "\n".join(story(seed)[-80:])


def test_one_seed_gives_one_run() -> None:
    assert story(FIRST + 7) == story(FIRST + 7)
    assert story(FIRST + 7) != story(FIRST + 8)


def test_told_run_is_the_run_itself() -> None:
    for seed in range(FIRST, FIRST + 20):
        quiet, told = run_seed(seed), run_seed(seed, is_telling=True)
        assert told.story and not quiet.story
        assert (quiet.rules, quiet.acks, quiet.simulated_s) == (told.rules, told.acks, told.simulated_s)


def test_story_says_who_did_what_when_and_by_which_rule() -> None:
    lines = story(FIRST + 3)
    assert lines[-1].endswith("every invariant held")
    words = [line.split(maxsplit=3) for line in lines if not line.endswith("times more)")]
    times = [float(w[0]) for w in words]
    assert times == sorted(times)
    assert {"FAULT", "WORLD", "m1", "m2", "CHECK"} <= {w[1] for w in words}
    assert any(w[1] in ("m1", "m2") and w[2].endswith(":") and "." in w[2] for w in words), "no rule is named"


def test_what_is_done_again_and_again_is_counted() -> None:
    told = [(i, "m1", "  does FenceOff(epoch=2)") for i in range(9)]
    result = Result(1, story=[(0, "m1", "S10.peer-silent: why"), *told, (20, "m1", "S11.serve: why")])
    lines = story_lines(result)
    assert len(lines) == 6
    assert lines[3].endswith("does FenceOff(epoch=2) (7 times more)") and "S11.serve" in lines[4]


def test_same_story_in_another_process() -> None:
    command = [sys.executable, "-m", "futago", "simulate", "--seed", str(FIRST + 11)]
    told = {
        subprocess.run(
            command, check=False, capture_output=True, env={**os.environ, "PYTHONHASHSEED": number}, timeout=60
        ).stdout
        for number in ("1", "2", "3")
    }
    assert len(told) == 1
    assert told.pop().decode().splitlines() == story(FIRST + 11)


def test_several_processes_run_the_same_seeds() -> None:
    alone, together = list(hunt(FIRST, seeds=110))[-1], list(hunt(FIRST, seeds=110, jobs=2))[-1]
    assert (alone.schedules, alone.rules, alone.acks) == (together.schedules, together.rules, together.acks)
