"""Nets that events start: once each, whoever writes the event and whatever becomes of the manager."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from agent_world import QuietLog, pair_settings
from futago.inventory.apply import apply
from futago.inventory.definitions import parse
from futago.jobs.triggers import Triggers
from futago.runtime.engine import EngineContext, Outward
from futago.runtime.faults import OperatorFault, Unknown
from futago.store.commit import Store

NET = """
kind: Scope
name: none
hosts: []
---
{kind: Monitor, name: logs, scope: none, check: syslog, patterns: [{match: x, priority: info}]}
---
kind: JobNet
name: clean-up
parameters: {HOST: {default: nobody}, TEXT: {default: ""}, COUNT: {type: integer, default: "0"}}
jobs: [{name: a, wait: 1h}]
---
kind: Trigger
name: t
job_net: clean-up
event: {monitor: logs, priority: [critical], contains: Disk}
set: {HOST: host, TEXT: message}
"""


async def define(store: Store, text: str) -> None:
    await store.commit(lambda c: apply(c, parse(text)), name="test.apply")


async def happen(store: Store, *messages: str, monitor: str = "logs", priority: str = "critical") -> None:
    async def work(conn: object) -> None:
        async with conn.cursor() as cursor:  # type: ignore[attr-defined,no-any-return]
            await cursor.executemany(
                "INSERT INTO event (occurred_utc, priority, source, monitor_name, message, epoch)"
                " VALUES (now(), %s, 'monitor', %s, %s, 1)",
                [(priority, monitor, m) for m in messages],
            )

    await store.commit(work, name="test.event")


async def rows(store: Store, query: str) -> list[tuple[object, ...]]:
    async def read(conn: object) -> list[tuple[object, ...]]:
        return await (await conn.execute(query.encode())).fetchall()  # type: ignore[attr-defined,no-any-return]

    return await store.read(read, name="test.rows")


async def texts(store: Store) -> list[object]:
    found = await rows(store, "SELECT variables->>'TEXT' FROM job_session ORDER BY session_id")
    return [text for (text,) in found]


def triggers(store: object, fired: Callable[[], None] = lambda: None) -> Triggers:
    context = EngineContext(
        settings=pair_settings("m1"), store=store, epoch=1, outward=Outward(is_allowed=True), log=QuietLog()  # type: ignore[arg-type]
    )  # fmt: skip
    return Triggers(context, fired)


async def test_event_that_a_trigger_waits_for_starts_its_net_with_its_values(store: Store) -> None:
    await happen(store, "disk: before the trigger")
    await define(store, NET)
    await happen(store, "disk full", "cpu hot")
    await happen(store, "disk warning", priority="warning")
    await happen(store, "disk elsewhere", monitor="other")
    assert await triggers(store).round()
    assert await texts(store) == ["disk full"]
    assert await rows(store, "SELECT net_name, trigger, variables->>'HOST' FROM job_session") == [
        ("clean-up", "trigger t", "")
    ]
    assert await rows(store, "SELECT 1 FROM trigger_firing") == []


async def test_each_event_starts_one_session_however_many_managers_look(store: Store) -> None:
    await define(store, NET)
    await happen(store, *(f"disk {i}" for i in range(20)))
    await asyncio.gather(*(triggers(store).round() for _ in range(4)))
    assert sorted(map(str, await texts(store))) == sorted(f"disk {i}" for i in range(20))


async def test_commit_of_unknown_outcome_starts_nothing_twice_and_loses_nothing(store: Store) -> None:
    await define(store, NET)
    await happen(store, *(f"disk {i}" for i in range(10)))

    class Doubtful:
        """Every other commit is made, and called unknown; every third is not made, and called unknown."""

        count = 0

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        async def commit(self, work: object, *, name: str, **more: object) -> object:
            self.count += 1
            done = None
            if self.count % 3:
                done = await store.commit(work, name=name, **more)  # type: ignore[arg-type]
            if self.count % 2 and self.count % 3:
                return done
            raise Unknown("the connection was cut")

    doubtful = Doubtful()
    running = asyncio.ensure_future(triggers(doubtful).run())
    async with asyncio.timeout(30):
        while await rows(store, "SELECT 1 FROM trigger_firing"):
            await asyncio.sleep(0.02)
    running.cancel()
    assert sorted(map(str, await texts(store))) == sorted(f"disk {i}" for i in range(10))
    assert doubtful.count > 10


async def test_flood_is_one_session_at_a_time_if_the_trigger_says_so(store: Store) -> None:
    await define(store, NET + "if_open: skip\n")
    await happen(store, "disk 1", "disk 2", "disk 3")
    await triggers(store).round()
    assert await texts(store) == ["disk 1"]
    await store.commit(lambda c: c.execute("UPDATE job_session SET state = 'normal'"), name="test.end")
    await happen(store, "disk 4")
    await triggers(store).round()
    assert await texts(store) == ["disk 1", "disk 4"]


async def test_what_cannot_be_started_is_said_once_and_does_not_stop_the_others(store: Store) -> None:
    await define(store, NET.replace("set: {HOST: host, TEXT: message}", "set: {COUNT: message}"))
    await define(store, NET[NET.index("kind: Trigger") :].replace("name: t\n", "name: good\n"))
    await happen(store, "disk full")
    await triggers(store).round()
    await triggers(store).round()
    assert await texts(store) == ["disk full"]
    [(message, priority)] = await rows(store, "SELECT message, priority FROM event WHERE source = 'job'")
    assert "Trigger t could not start anything" in str(message) and priority == "critical"


async def test_trigger_that_rests_or_is_gone_starts_nothing(store: Store) -> None:
    await define(store, NET)
    await happen(store, "disk full")
    await define(store, NET[NET.index("kind: Trigger") :] + "enabled: false\n")
    await happen(store, "disk full again")
    await triggers(store).round()
    assert await texts(store) == [] and await rows(store, "SELECT 1 FROM trigger_firing") == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("event: {monitor: m}\nwebhook: {}", "one of"),
        ("set: {A: host}", "one of"),
        ("event: {monitor: m}\nset: {A: colour}", "colour"),
        ("webhook: {}\nif_open: skip", "if_open"),
    ],
)
def test_senseless_triggers_are_refused_with_a_reason(text: str, why: str) -> None:
    with pytest.raises(OperatorFault, match=why):
        parse(f"kind: Trigger\nname: t\njob_net: n\n{text}\n")
