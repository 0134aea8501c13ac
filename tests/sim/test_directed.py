"""Rare situations, one by one: each names the rules that must decide in it; the rest of the table is met by chance."""

import pytest

from futago.sim.directed import SCENARIOS, Scenario, play
from futago.sim.hunt import Tally, every_rule, hunt, story_lines


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_rules_of_the_scenario_decide_and_every_invariant_holds(scenario: Scenario) -> None:
    result = play(scenario, is_telling=True)
    assert not result.violation, "\n".join(story_lines(result))


def test_no_rule_of_the_table_is_out_of_reach_of_scenarios_and_chance() -> None:
    *_, tally = hunt(0, seeds=700)
    tally.play_directed()
    assert not tally.violations
    never = [r for r in every_rule() if r not in tally.rules and r not in tally.directed]
    assert not never, f"no schedule and no scenario has met {never}: give it a scenario"


def test_rule_that_never_fires_fails_a_long_run() -> None:
    tally = Tally(schedules=10_000, rules=dict.fromkeys(every_rule(), 1))
    assert tally.is_covered
    del tally.rules["T2.cas"]
    assert tally.unfired == ["T2.cas"]
    assert not tally.is_covered
