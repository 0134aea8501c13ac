"""Whose the events of job control are: each has the owner role of the net that it tells of, its own or its unit's."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from agent_world import QuietLog, pair_settings
from futago.inventory.apply import apply
from futago.inventory.definitions import parse
from futago.jobs.board import Board
from futago.jobs.definitions import JobNet
from futago.jobs.model import JobName, JobState, SessionState, Standing
from futago.jobs.schedules import Scheduler
from futago.jobs.store import RunRow, SessionRow, net_owner
from futago.jobs.triggers import Triggers
from futago.link.orders import Outcome, RunEnded
from futago.runtime.engine import EngineContext, Outward
from futago.store.commit import Store

NOW = datetime(2026, 1, 1, 12, 59, 59, tzinfo=UTC)
NETS = """
{kind: Scope, name: none, hosts: []}
---
{kind: Monitor, name: logs, scope: none, check: syslog, patterns: [{match: x, priority: info}]}
---
{kind: JobUnit, name: bank, owner: night}
---
kind: JobNet
name: of-its-unit
unit: bank
parameters: {COUNT: {type: integer, default: "0"}}
jobs: [{name: a, wait: 1h}]
---
{kind: JobNet, name: its-own, unit: bank, owner: day, jobs: [{name: a, wait: 1h}]}
---
{kind: JobNet, name: everybodys, jobs: [{name: a, wait: 1h}]}
---
{kind: Schedule, name: hourly, job_net: of-its-unit, cron: "0 * * * *"}
---
{kind: Trigger, name: wrong, job_net: of-its-unit, event: {monitor: logs}, set: {COUNT: message}}
"""


def test_what_becomes_of_a_session_is_told_to_the_owner_of_its_net() -> None:
    written = {
        "name": "n",
        "owner": "night",
        "jobs": [
            {"name": "ask", "approval": {}},
            {"name": "bad", "host": "h1", "command": "exit 1", "owner": "heads"},
        ],
    }
    net = JobNet.model_validate(written).net()
    board = Board()
    runs = [RunRow(f"run-{name}", 1, JobName(name), "h1", 1, Standing(JobState.WAITING)) for name in net.units]
    board.add(SessionRow(1, "n", "digest", SessionState.STARTING, None, date(2026, 1, 1)), net, runs)
    board.start(1, NOW)
    board.end(RunEnded("run-bad", Outcome.EXITED, exit_code=1), NOW)
    board.end(RunEnded("run-ask", Outcome.EXITED, exit_code=1), NOW)
    told = {event.message: event.owner for event in board.take().moves.events}
    assert set(told.values()) == {"night"} and len(told) == 4, told


def engine(store: Store) -> EngineContext:
    return EngineContext(
        settings=pair_settings(), store=store, epoch=1, outward=Outward(is_allowed=True), log=QuietLog()
    )


async def owners(store: Store) -> list[tuple[object, ...]]:
    async def read(conn: object) -> list[tuple[object, ...]]:
        query = "SELECT priority, owner_role FROM event WHERE source = 'job' ORDER BY event_id"
        return await (await conn.execute(query)).fetchall()  # type: ignore[attr-defined,no-any-return]

    return await store.read(read, name="test.rows")


async def test_what_schedules_and_triggers_say_is_of_the_owner_of_the_net_that_they_start(store: Store) -> None:
    await store.commit(lambda c: apply(c, parse(NETS)), name="test.apply")
    nets = ("of-its-unit", "its-own", "everybodys", "none")
    found = [await store.read(lambda c, net=net: net_owner(c, net), name="test.owner") for net in nets]  # type: ignore[misc]
    assert found == ["night", "day", "", None]

    await store.commit(lambda c: c.execute(b"ALTER TABLE schedule DISABLE TRIGGER USER"), name="test.trigger")
    await store.commit(lambda c: c.execute("UPDATE schedule SET changed_utc = %s", (NOW,)), name="test.since")
    await Scheduler(engine(store), lambda: None, now=lambda: NOW + timedelta(minutes=1)).round()
    assert await owners(store) == [("info", "night")]  # it starts late

    happens = b"INSERT INTO event (occurred_utc, priority, source, monitor_name, message, epoch) VALUES (now(), 'critical', 'monitor', 'logs', 'x', 1)"
    await store.commit(lambda c: c.execute(happens), name="test.event")
    await Triggers(engine(store), lambda: None).round()
    assert await owners(store) == [("info", "night"), ("critical", "night")]  # `x` is no number
