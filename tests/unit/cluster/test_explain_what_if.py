"""What would happen if something failed now, played through by the production rules."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from test_decide_fence import PRIMARY as FENCE_PRIMARY
from test_decide_scenarios import ALONE, CFG, EXCLUDED, FOLLOWING, NOW, SERVING, A, B
from test_decide_table import NOW as TABLE_NOW
from test_decide_table import any_facts, near_facts

from futago.cluster.explain import Answer, Failure, Outcome, what_if, what_ifs
from futago.cluster.model import Facts, Fence, Register


def ask(facts: Facts, failure: Failure) -> Answer:
    return what_if(facts, NOW, failure)


HEALTHY = {
    Failure.PRIMARY_POWER: (Outcome.SWITCHES, B, (2000, 5000)),
    Failure.STANDBY_POWER: (Outcome.PAUSES, A, (1900, 2400)),
    Failure.PEER_NETWORK: (Outcome.PAUSES, A, (1900, 2400)),
    Failure.PRIMARY_NETWORK: (Outcome.SWITCHES, B, (2000, 5000)),
    Failure.HEARTBEAT_NETWORK: (Outcome.GOES_ON, A, (0, 0)),
    Failure.THIRD_VOTE: (Outcome.GOES_ON, A, (0, 0)),
    Failure.PRIMARY_FENCE: (Outcome.GOES_ON, A, (0, 0)),
    Failure.STANDBY_FENCE: (Outcome.GOES_ON, A, (0, 0)),
    Failure.POSTGRESQL: (Outcome.SWITCHES, B, (100, 600)),
    Failure.MANAGER: (Outcome.SWITCHES, B, (300, 700)),
    Failure.CONTROLLER: (Outcome.GOES_ON, A, (0, 0)),
    Failure.PRIMARY_DISK: (Outcome.SWITCHES, B, (600, 4000)),
    Failure.STANDBY_DISK: (Outcome.PAUSES, A, (1900, 2600)),
}


@pytest.mark.parametrize("failure", HEALTHY)
def test_healthy_pair_survives_every_single_failure_within_its_bound(failure: Failure) -> None:
    outcome, serves, (least, most) = HEALTHY[failure]
    answer = ask(SERVING, failure)
    assert (answer.outcome, answer.serves) == (outcome, serves), answer
    assert answer.pause_ms is not None and least <= answer.pause_ms <= most, answer
    assert answer.lost == "Nothing that was acknowledged is lost." and answer.lost in answer.sentences


def test_standby_foresees_the_same_as_the_primary() -> None:
    for failure in Failure:
        here, there = ask(SERVING, failure), ask(FOLLOWING, failure)
        assert here.outcome is there.outcome, failure
        swapped = {A: B, B: A, None: None}
        assert swapped[here.serves] == there.serves, failure


def test_steps_name_the_rules_that_will_fire() -> None:
    rules = [step.rule for step in ask(SERVING, Failure.PRIMARY_POWER).steps]
    assert [r for r in rules if r[0] in "TS"][:4] == ["T2.intent", "T2.cas", "T2.adopt", "S6.promote"]
    times = [step.at_ms for step in ask(SERVING, Failure.PRIMARY_POWER).steps]
    assert times == sorted(times) and len(times) <= 12


def test_pair_without_a_third_vote_says_that_it_would_stop_and_what_helps() -> None:
    answer = ask(replace(SERVING, register=Register()), Failure.PRIMARY_POWER)
    assert answer.outcome is Outcome.STOPS and answer.pause_ms is None and answer.command == "futago jury set"
    assert any("[T2.no-vote]" in x for x in answer.sentences)
    assert ask(replace(SERVING, register=Register()), Failure.POSTGRESQL).outcome is Outcome.SWITCHES


def test_both_machines_without_power_depends_on_who_comes_back() -> None:
    said = ask(SERVING, Failure.BOTH_POWER).sentences
    assert any(x.startswith("If both come back: m1 serves") for x in said)
    assert any(x.startswith("If only m2 comes back: m2 serves") for x in said)
    alone = ask(EXCLUDED, Failure.BOTH_POWER).sentences
    assert any("If only m1 comes back" in x and "[R2.alone]" in x for x in alone)


def test_fence_that_decides_needs_its_device_and_a_member_that_boots_alone_waits() -> None:
    assert ask(FENCE_PRIMARY, Failure.PRIMARY_POWER).outcome is Outcome.SWITCHES
    said = ask(FENCE_PRIMARY, Failure.PRIMARY_POWER).sentences
    assert any("futago force-primary" in x for x in said)
    said = ask(FENCE_PRIMARY, Failure.BOTH_POWER).sentences
    assert any("If both come back: m1 serves" in x for x in said)
    assert any("[F2.not-met]" in x for x in said)
    split = ask(FENCE_PRIMARY, Failure.PEER_NETWORK)
    assert split.outcome is Outcome.PAUSES and split.serves == A


def test_lone_primary_says_what_hangs_on_its_disk() -> None:
    answer = ask(ALONE, Failure.PRIMARY_DISK)
    assert answer.outcome is Outcome.STOPS and "is lost if that disk cannot be read again" in answer.lost
    assert ask(ALONE, Failure.PRIMARY_POWER).outcome is Outcome.STOPS
    assert ask(ALONE, Failure.POSTGRESQL).outcome is Outcome.PAUSES
    assert ask(ALONE, Failure.STANDBY_POWER).outcome is Outcome.DOES_NOT_APPLY


def test_maintenance_changes_the_answer() -> None:
    held = replace(SERVING, maintenance=True)
    assert ask(held, Failure.PRIMARY_POWER).outcome is Outcome.STOPS
    assert ask(held, Failure.PRIMARY_POWER).command == "futago maintenance off"
    assert ask(held, Failure.STANDBY_POWER).outcome is Outcome.PAUSES


def test_what_does_not_exist_cannot_fail() -> None:
    bare = replace(SERVING, fence=Fence(), cfg=replace(CFG, has_peer=False))
    for failure in (Failure.STANDBY_POWER, Failure.PRIMARY_FENCE, Failure.PEER_NETWORK):
        assert ask(bare, failure).outcome is Outcome.DOES_NOT_APPLY, failure


def test_any_facts_at_all_get_an_answer() -> None:
    r = random.Random(11)
    for number in range(6):
        facts = near_facts(r) if number % 2 else any_facts(r)
        for answer in what_ifs(facts, TABLE_NOW):
            assert answer.sentences and answer.lost and (answer.outcome is not Outcome.SWITCHES or answer.serves)
