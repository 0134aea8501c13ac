"""Calendars in what a job waits for: read, decided as soon as the session begins, and of the day that the session has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date

import pytest
from test_advance import NOW, ended, job

from futago.inventory.apply import apply
from futago.inventory.definitions import parse
from futago.inventory.model import Kind
from futago.jobs.advance import advance, after
from futago.jobs.conditions import why_not
from futago.jobs.definitions import JobNet
from futago.jobs.model import JobName, JobState, SessionId, SessionState, Started, Tree, make_tree
from futago.jobs.plan import AllOf, AnyOf, DayIs, EndIs, Unit, make_net
from futago.jobs.sessions import open_session
from futago.runtime.faults import OperatorFault
from futago.store.commit import Connection, Store

S = JobState
A, B = JobName("a"), JobName("b")
OPEN, CLOSED = DayIs("bank", is_open=True), DayIs("bank", is_open=False)
TEXT = """\
kind: Calendar
name: bank
closed: ['2026-12-31']
---
kind: Calendar
name: plant
---
kind: Host
name: h
address: 10.0.0.1
---
kind: JobNet
name: night
jobs:
  - {name: a, host: h, command: x}
  - {name: b, host: h, command: x, after: [a, {any: [{calendar: bank}, {calendar: plant, is: closed}]}]}
"""


def begun(*units: Unit, shut: set[str]) -> Tree:
    net = make_net("n", units)
    tree = make_tree(
        SessionId(1), net, SessionState.STARTING, dict.fromkeys(net.units, S.WAITING), day=date(2026, 12, 31)
    )
    tree.shut = frozenset(shut)
    return after(tree, advance(tree, Started(), NOW))


def test_a_day_that_does_not_fit_is_certain_at_once_and_one_that_fits_waits_for_the_rest() -> None:
    both = replace(job("b"), start=AllOf((EndIs(A, frozenset({S.NORMAL})), OPEN)))
    assert begun(job("a"), both, shut={"bank"}).states == {A: S.ORDERED, B: S.NOT_RUN}
    waits = begun(job("a"), both, shut={"plant"})
    assert waits.states == {A: S.ORDERED, B: S.WAITING}
    assert after(waits, advance(waits, ended("a"), NOW)).states[B] is S.ORDERED


def test_a_closed_day_lets_a_job_begin_without_what_it_would_wait_for() -> None:
    either = replace(job("b"), start=AnyOf((EndIs(A, frozenset({S.NORMAL})), CLOSED)))
    assert begun(job("a"), either, shut={"bank"}).states[B] is S.ORDERED
    assert begun(job("a"), either, shut=set()).states[B] is S.WAITING


@pytest.mark.parametrize("is_shut", [True, False])
def test_of_exclusive_branches_the_calendar_chooses_one(is_shut: bool) -> None:
    branches = replace(job("a"), start=OPEN), replace(job("b"), start=AllOf(), above=(A,))
    tree = begun(*branches, shut={"bank"} if is_shut else set())
    assert (tree.states[A], tree.states[B]) == ((S.NOT_RUN, S.ORDERED) if is_shut else (S.ORDERED, S.NOT_RUN))


def test_people_are_told_which_calendar_stands_against_it() -> None:
    tree = begun(replace(job("a"), start=OPEN, if_unmet=None), shut={"bank"})
    assert tree.states[A] is S.WAITING
    assert why_not(OPEN, tree, NOW) == "calendar `bank` is closed on 2026-12-31"


def test_a_calendar_in_a_condition_is_read_referred_to_and_written_back() -> None:
    found = next(o.object for o in parse(TEXT) if isinstance(o.object, JobNet))
    any_day = AnyOf((OPEN, DayIs("plant", is_open=False)))
    assert found.net().units[B].start == AllOf((EndIs(A, frozenset({S.NORMAL, S.WARNING, S.SKIPPED})), any_day))
    asked = [(r.name, r.path) for r in found.references() if r.kind is Kind.CALENDAR]
    assert asked == [
        ("bank", ("jobs", 1, "after", 1, "any", 0, "calendar")),
        ("plant", ("jobs", 1, "after", 1, "any", 1, "calendar")),
    ]
    assert JobNet.model_validate(found.model_dump(mode="json", exclude_defaults=True)).net() == found.net()
    with pytest.raises(OperatorFault, match=r":16: .*after\[1\]\.any\[1\]"):
        parse(TEXT.replace("is: closed", "is: shut"))


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    opened = await Store.open(conninfo=database, application_name="test")
    yield opened
    await opened.close()


async def test_a_session_keeps_how_its_day_stands_in_every_calendar_that_its_conditions_ask(store: Store) -> None:
    async def make(conn: Connection) -> list[list[str]]:
        await apply(conn, parse(TEXT))
        for day in (date(2026, 12, 30), date(2026, 12, 31)):
            await open_session(conn, "night", trigger="test", business_date=day)
        found = await conn.execute(b"SELECT shut FROM job_session ORDER BY session_id")
        return [row[0] for row in await found.fetchall()]

    assert await store.commit(make, name="test.sessions") == [[], ["bank"]]


async def test_a_condition_on_a_calendar_that_is_not_there_is_refused(store: Store) -> None:
    async def make(conn: Connection) -> None:
        await apply(conn, parse(TEXT.replace("{calendar: bank}", "{calendar: none}")))

    with pytest.raises(OperatorFault, match="none"):
        await store.commit(make, name="test.apply")
