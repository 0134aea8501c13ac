"""What a switch meant for job control: counted from what is known, told once, by whoever took the role."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from test_jobs_engine import World, site, world  # noqa: F401  fixtures

from futago.jobs import switch_report
from futago.jobs.model import JobState
from futago.jobs.switch_report import OpenRun, SwitchReport, event_of, is_known, judge
from futago.runtime.clock import now_utc

pytestmark = pytest.mark.asyncio(loop_scope="module")
S = JobState
RUNS = [OpenRun("1", "web1"), OpenRun("2", "web1"), OpenRun("3", "db1"), OpenRun("4", "db1"), OpenRun("5", "")]


def judged(states: Mapping[str, JobState], *connected: str) -> SwitchReport:
    return judge(RUNS, states, connected=connected, sessions=2, repeated=1)


async def test_each_run_counts_once_as_what_it_is() -> None:
    states = {"1": S.RUNNING, "2": S.ABNORMAL, "3": S.UNKNOWN, "4": S.ORDERED, "5": S.RUNNING}
    assert judged(states, "web1") == SwitchReport(
        2, going_on=2, ended=1, unknown=1, silent=1, repeated=1, silent_hosts=("db1",)
    )
    assert judged(states, "web1", "db1").silent == 0
    assert judged({}, "web1").ended == len(RUNS)  # their rows were pruned: they have ended


async def test_it_is_known_when_all_hosts_have_spoken_or_patience_has_ended() -> None:
    silent, all_there = judged({"3": S.RUNNING}, "web1"), judged({"3": S.RUNNING}, "db1")
    assert not is_known(all_there, since_s=4) and is_known(all_there, since_s=5)
    assert not is_known(silent, since_s=59) and is_known(silent, since_s=60)


async def test_what_is_told_is_a_warning_if_anything_is_in_doubt_and_nothing_if_nothing_was_open() -> None:
    told = event_of(judged({"1": S.RUNNING}, "web1"), member="m2", epoch=9, now=now_utc())
    assert told is not None and told.priority == "info" and "m2 since epoch 9" in told.message
    doubtful = event_of(judged({"3": S.RUNNING}, "web1"), member="m2", epoch=9, now=now_utc())
    assert doubtful is not None and doubtful.priority == "warning" and "(db1)" in doubtful.message
    nothing = judge([], {}, connected=(), sessions=0, repeated=0)
    assert event_of(nothing, member="m2", epoch=9, now=now_utc()) is None


async def test_who_takes_the_role_tells_once_what_became_of_what_was_open(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(switch_report, "SETTLE_S", 1.0)
    monkeypatch.setattr(switch_report, "LOOK_S", 0.1)
    flag = world.oracle.parent / "go on"
    await world.define(
        f"""
kind: JobNet
name: night
jobs:
  - {{name: long, host: h1, command: 'while [ ! -e "{flag}" ]; do sleep 0.1; done'}}
  - {{name: person, approval: {{}}}}
"""
    )
    async with world.engine("m1", epoch=1):
        await world.all_connected("m1")
        session = await world.start("night")
        async with asyncio.timeout(60):
            while (await world.states(session))["long"] != "running":
                await asyncio.sleep(0.05)
    for _ in range(2):  # the engine of an epoch may be made twice: the report is not
        async with world.engine("m2", epoch=2):
            await world.all_connected("m2")
            async with asyncio.timeout(60):
                while not await world.rows("SELECT 1 FROM job_switch_report WHERE member_name = 'm2'"):
                    await asyncio.sleep(0.05)
            await asyncio.sleep(1.5)
    flag.touch()
    async with world.engine("m2", epoch=3):
        async with asyncio.timeout(60):
            while (await world.states(session))["long"] != "normal":
                await asyncio.sleep(0.05)
    [(report, epoch)] = await world.rows(
        "SELECT report, epoch FROM job_switch_report WHERE member_name = 'm2' ORDER BY epoch LIMIT 1"
    )
    assert epoch == world.base + 2
    assert {k: report[k] for k in ("sessions", "going_on", "ended", "unknown", "silent")} == {
        "sessions": 1, "going_on": 1, "ended": 0, "unknown": 0, "silent": 0,
    }  # fmt: skip
    told = await world.rows("SELECT message FROM event WHERE detail->>'report' = 'switch' AND epoch = %s", epoch)
    assert len(told) == 1 and "1 go on" in str(told[0][0])
