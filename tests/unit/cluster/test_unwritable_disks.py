"""Members that talk but cannot write: every combination of volumes on both sides, full or hanging, with and without a
third vote, played through by the production rules.

What is asked of each: where anybody could decide and serve, commits go on within a bound; where nobody could, the pair
says why. Commits never just hang.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from test_decide_scenarios import NOW, SERVING

from futago.cluster.course import MS, Course, S, Side
from futago.cluster.foresee import sides_of
from futago.cluster.model import At, PairState, PgState, Register

VOLUMES = ("none", "system", "data", "both")
HOWS = ("full", "hung")
STALL = 2 * S
BOUND = 2 * STALL + 4 * S  # a stall until it is noticed, one until the request counts as unanswered, the switch itself
NOTICED = 500 * MS


def break_volumes(course: Course, side: Side, volumes: str, *, how: str) -> None:
    """Break them at once; the member itself notices a little later."""
    if volumes in ("system", "both"):
        side.has_system_disk = False
        course.later.append((NOW + NOTICED, lambda: side.put(durable=replace(side.facts.durable, is_able=False))))
    if volumes not in ("data", "both"):
        return
    side.has_data_disk = False

    def notice() -> None:
        is_dead = side.facts.pg.state is PgState.PRIMARY and how == "full"
        # a full volume ends a primary (PANIC); a hanging one leaves it hanging, and it cannot even be killed
        state = PgState.DIED if is_dead else PgState.HUNG if side.facts.pg.state is PgState.PRIMARY else PgState.STANDBY
        side.put_pg(is_disk_ok=False, state=state)

    side.can_be_killed = how == "full"
    course.later.append((NOW + NOTICED, notice))


def play(primary: str, standby: str, *, how: str, has_vote: bool) -> Course:
    facts = SERVING if has_vote else replace(SERVING, register=Register())
    sides = sides_of(replace(facts, peer=replace(facts.peer, heard_at=At(NOW))), NOW)
    course = Course(sides, now=NOW, register=facts.register.view)
    break_volumes(course, sides[0], primary, how=how)
    break_volumes(course, sides[1], standby, how=how)
    course.run()
    return course


def can_go_on(primary: str, standby: str, *, how: str, has_vote: bool) -> bool:
    """Is there anybody who could serve, and a vote for that?"""
    if primary in ("none", "system") and standby in ("none", "system"):
        return True  # every write is confirmed as before
    if has_vote:
        return "none" in (primary, standby)
    if primary == "none":
        return standby == "data"  # it promises
    return standby == "none" and primary == "data" and how == "full"  # handed over; one that cannot be killed is not


CASES = list(itertools.product(VOLUMES, VOLUMES, HOWS, (True, False)))


@pytest.mark.parametrize(("primary", "standby", "how", "has_vote"), CASES)
def test_commits_never_hang_unless_nobody_could_serve_and_then_it_is_said(
    primary: str, standby: str, how: str, has_vote: bool
) -> None:
    course = play(primary, standby, how=how, has_vote=has_vote)
    told = [(t.at // MS, t.member, t.rule) for t in course.turns]
    if can_go_on(primary, standby, how=how, has_vote=has_vote):
        assert course.serving() is not None and course.pause is not None, told
        assert course.pause <= BOUND, (course.pause / S, told)
        return
    assert course.serving() is None, told
    states = [s.decision.state for s in course.sides if s.decision is not None and s.is_up]
    assert PairState.BLOCKED in states, told


def test_standby_with_a_bad_data_volume_is_let_go_within_one_stall() -> None:
    for how in HOWS:
        course = play("none", "data", how=how, has_vote=False)
        assert course.pause is not None and course.pause <= STALL + 700 * MS, course.pause
