"""What people ask of runs on the page: offered as the run stands, done by a real engine, refused with the reason."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_world import Keys, QuietLog, active, loopback, make_hub, pair_settings
from futago.jobs.engine import JobsEngine
from futago.jobs.store import fetch
from futago.runtime.engine import EngineContext, Outward
from futago.store.commit import Connection
from web_bench import Bench, NewClient

EPOCH = 7
NETS = """
kind: JobUnit
name: billing
owner: night-shift
---
kind: JobNet
name: closing
unit: billing
jobs:
  - {name: look, wait: 1h}
  - {name: ask, approval: {text: go on?}}
  - {name: load, wait: 1h, after: [look]}
  - name: rest
    after: [load]
    jobs: [{name: last, wait: 1h}]
"""


@pytest.fixture
async def engine(bench: Bench, tmp_path: Path) -> AsyncIterator[None]:
    """The engine of the member, at work; no agent is there."""
    hub = make_hub(Keys(tmp_path / "keys"), loopback())
    hub.set_role(active(EPOCH))
    context = EngineContext(pair_settings(), bench.store, EPOCH, Outward(is_allowed=True), QuietLog())
    task = asyncio.create_task(JobsEngine(context, hub).run())
    yield
    task.cancel()
    await asyncio.wait({task})


@pytest.fixture
async def run(engine: None, person: httpx.AsyncClient) -> int:
    """A run that has begun."""
    answer = await person.post("/api/v1/apply", content=NETS, headers={"Content-Type": "text/yaml"})
    assert answer.status_code == 200, answer.text
    session_id = int((await person.post("/api/v1/job-nets/closing/runs")).json()["session_id"])
    await _until_state(person, session_id, "look", "running")
    return session_id


async def _until_state(person: httpx.AsyncClient, run: int, job: str, state: str) -> None:
    end = time.monotonic() + 60
    while True:
        found = (await person.get(f"/api/v1/runs/{run}")).json()
        states = {j["job_name"]: j["state"] for j in found["jobs"]}
        if states[job] == state:
            return
        assert time.monotonic() < end, states
        await asyncio.sleep(0.05)


async def _acts(client: httpx.AsyncClient, run: int, job: str = "") -> str:
    answer = await client.get(f"/parts/runs/{run}/acts", params={"job": job})
    assert answer.status_code == 200, answer.text
    return answer.text


async def _ask(client: httpx.AsyncClient, run: int, operation: str, job: str = "", **more: Any) -> str:
    values = {"operation": operation, "job": job, **more}
    answer = await client.post(f"/parts/runs/{run}/operations", data=values)
    assert answer.status_code == 200, answer.text
    return answer.text


async def test_what_the_page_offers_is_done_and_then_it_offers_what_has_a_meaning_next(
    person: httpx.AsyncClient, run: int
) -> None:
    text = await _acts(person, run, "load")
    assert ">Hold<" in text and ">Release<" not in text and ">Start now<" in text
    text = await _ask(person, run, "hold", "load", note="the file is late")
    assert "Done." in text and ">Release<" in text and ">Hold<" not in text
    assert "is held already" in await _ask(person, run, "hold", "load")
    assert ">Approve<" in await _acts(person, run, "ask")
    assert "Done." in await _ask(person, run, "approve", "ask")
    await _until_state(person, run, "ask", "normal")
    assert "Done." in await _ask(person, run, "end", "look", status="warning", value="4")
    await _until_state(person, run, "look", "warning")
    text = await _ask(person, run, "suspend", "rest")
    assert "Done." in text and ">Resume<" in text


async def test_a_whole_run_is_stopped_and_runs_again(person: httpx.AsyncClient, run: int) -> None:
    text = await _acts(person, run)
    assert f"The whole run {run}" in text and ">Stop<" in text and "Run again" not in text
    assert "Done." in await _ask(person, run, "stop")
    await _until_state(person, run, "rest/last", "not-run")
    end = time.monotonic() + 60
    while "Run again what failed" not in await _acts(person, run):
        assert time.monotonic() < end
        await asyncio.sleep(0.05)
    assert "Run again from here" in await _acts(person, run, "look")
    answer = await person.post(f"/parts/runs/{run}/rerun", data={"job": "look"})
    assert "Done." in answer.text
    await _until_state(person, run, "look", "running")
    again = await person.post(f"/parts/runs/{run}/rerun", data={})
    assert f"Run {run} has not ended." in again.text


async def _end(person: httpx.AsyncClient, run: int) -> None:
    """Stop the run, and wait until it has ended."""
    answer = await person.post(f"/api/v1/runs/{run}/operations", json={"operation": "stop"})
    assert answer.status_code in (200, 202), answer.text
    end = time.monotonic() + 60
    while (await person.get(f"/api/v1/runs/{run}")).json()["ended_utc"] is None:
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


async def _attempts(bench: Bench, run: int, job: str) -> int:
    async def work(conn: Connection) -> int:
        return int(
            (await fetch(conn, "SELECT count(*) FROM job_run WHERE session_id = %s AND job_name = %s", run, job))[0][0]
        )

    return await bench.store.read(work, name="test.attempts")


async def test_a_run_begins_again_once_for_each_key_however_often_it_is_asked_for(
    person: httpx.AsyncClient, bench: Bench, run: int
) -> None:
    async def again(key: str, job: str | None = "look") -> httpx.Response:
        return await person.post(f"/api/v1/runs/{run}/rerun", json={"job": job}, headers={"Idempotency-Key": key})

    await _end(person, run)
    first = (await again("one")).json()
    assert "look" in first["jobs"] and not first["repeated"]
    assert (await again("one")).json() == first | {"repeated": True}, "while it runs"
    await _until_state(person, run, "look", "running")
    await _end(person, run)
    assert (await again("one")).json() == first | {"repeated": True}, "when it has ended again, too"
    assert await _attempts(bench, run, "look") == 2
    other = await again("one", None)
    assert other.status_code == 422 and other.json()["code"] == "jobs.key-used"
    assert not (await again("two")).json()["repeated"]
    assert await _attempts(bench, run, "look") == 3


async def test_the_button_of_one_offer_begins_a_run_again_once(
    person: httpx.AsyncClient, bench: Bench, run: int
) -> None:
    await _end(person, run)
    found = re.search(r'/rerun"[^>]*"key":"([0-9a-f]+)"', await _acts(person, run, "look"))
    assert found
    for _ in range(2):
        answer = await person.post(f"/parts/runs/{run}/rerun", data={"job": "look", "key": found[1]})
        assert "Done." in answer.text
        await _until_state(person, run, "look", "running")
    await _end(person, run)
    assert "Done." in (await person.post(f"/parts/runs/{run}/rerun", data={"job": "look", "key": found[1]})).text
    assert await _attempts(bench, run, "look") == 2


async def test_what_is_wrong_in_a_form_is_said_and_nothing_is_asked(person: httpx.AsyncClient, run: int) -> None:
    assert "value: " in await _ask(person, run, "end", "look", status="normal", value="four")
    assert "operation: " in await _ask(person, run, "explode", "look")
    assert (await person.get(f"/parts/runs/{run}/acts", params={"job": "no-such"})).status_code == 404
    assert (await person.get("/parts/runs/999/acts")).status_code == 404


async def test_only_who_may_start_jobs_is_offered_anything_and_only_of_his_own(
    person: httpx.AsyncClient, api: httpx.AsyncClient, new_client: NewClient, run: int
) -> None:
    async def other(name: str, role: str, *owners: str) -> httpx.AsyncClient:
        wanted = {"role": role, "owners": list(owners), "password": "a long enough one"}
        assert (await api.post(f"/api/v1/accounts/{name}", json=wanted)).status_code == 200
        token = await api.post(f"/api/v1/accounts/{name}/tokens", json={"name": f"of-{name}"})
        return new_client(token.json()["secret"])

    assert "Operate on look" in (await person.get(f"/parts/runs/{run}")).text
    reader = await other("wall", "reader", "*")
    assert "/acts" not in (await reader.get(f"/parts/runs/{run}")).text
    assert (await reader.get(f"/parts/runs/{run}/acts")).status_code == 403
    assert (await reader.post(f"/parts/runs/{run}/operations", data={"operation": "stop"})).status_code == 403
    bob = await other("bob", "operator", "day-shift")
    assert (await bob.get(f"/parts/runs/{run}/acts")).status_code == 403
    assert "belongs to owner role `night-shift`" in await _ask(bob, run, "stop")
    await _until_state(person, run, "look", "running")


async def test_an_operation_that_nobody_decides_yet_says_so(
    person: httpx.AsyncClient, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("futago.web.run_orders.DECIDED_S", 0.1)  # and no engine is at work
    await person.post("/api/v1/apply", content=NETS, headers={"Content-Type": "text/yaml"})
    session_id = int((await person.post("/api/v1/job-nets/closing/runs")).json()["session_id"])
    assert "as soon as job control goes on" in await _ask(person, session_id, "stop")
