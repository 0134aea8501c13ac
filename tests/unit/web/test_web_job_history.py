"""Outputs, Gantt data and durations through the API, over real rows."""

from __future__ import annotations

import httpx
import pytest

from futago.jobs.store import add_switch_report
from futago.runtime.clock import now_utc
from futago.store.commit import Connection
from futago.web.api.job_history import _whole_characters
from web_bench import Bench

TEXT = """\
kind: Host
name: web1
address: 10.91.1.21
---
kind: JobNet
name: nightly
jobs:
  - {name: extract, host: web1, command: "true"}
  - {name: side, host: web1, command: "true"}
  - {name: load, host: web1, command: "true", after: [extract, {job: side, end: any}]}
"""


async def run_of(api: httpx.AsyncClient) -> int:
    await api.post("/api/v1/apply", content=TEXT, headers={"Content-Type": "text/yaml"})
    return int((await api.post("/api/v1/job-nets/nightly/runs")).json()["session_id"])


async def ended(bench: Bench, session: int, job: str, *, start: int, end: int, output: str, size: int) -> None:
    async def work(conn: Connection) -> None:
        await conn.execute(
            "UPDATE job_run SET state = 'normal', exit_code = 0, output = %s, output_bytes = %s,"
            " started_utc = now() - interval '1 h' + make_interval(secs => %s),"
            " ended_utc = now() - interval '1 h' + make_interval(secs => %s) WHERE session_id = %s AND job_name = %s",
            (output, size, start, end, session, job),
        )

    await bench.rooms.serving.require().store.commit(work, name="test")


async def test_output_of_an_ended_job_is_what_the_pair_keeps_of_it(bench: Bench, api: httpx.AsyncClient) -> None:
    session = await run_of(api)
    await ended(bench, session, "extract", start=0, end=5, output="kept énd\n", size=1010)
    path = f"/api/v1/runs/{session}/jobs/extract/output"
    whole = (await api.get(path)).json()
    assert (whole["offset"], whole["text"], whole["next"], whole["size"]) == (1000, "kept énd\n", 1010, 1010)
    assert whole["is_ended"]
    rest = (await api.get(path, params={"offset": 1005})).json()
    assert (rest["offset"], rest["text"]) == (1005, "énd\n")
    assert (await api.get(path, params={"offset": 5000})).json()["text"] == ""
    assert (await api.get(path, params={"attempt": 2})).status_code == 404
    assert (await api.get(f"/api/v1/runs/{session}/jobs/nobody/output")).status_code == 404


async def test_job_of_a_net_in_a_net_is_named_by_its_path(bench: Bench, api: httpx.AsyncClient) -> None:
    text = TEXT + "  - {name: inner, jobs: [{name: deep, host: web1, command: 'true'}]}\n"
    await api.post("/api/v1/apply", content=text, headers={"Content-Type": "text/yaml"})
    session = int((await api.post("/api/v1/job-nets/nightly/runs")).json()["session_id"])
    await ended(bench, session, "inner/deep", start=0, end=5, output="said\n", size=5)
    found = (await api.get(f"/api/v1/runs/{session}/jobs/inner%2Fdeep/output")).json()
    assert (found["job_name"], found["text"]) == ("inner/deep", "said\n")


async def test_output_of_a_job_whose_host_does_not_answer_is_not_an_empty_one(
    bench: Bench, api: httpx.AsyncClient
) -> None:
    session = await run_of(api)
    path = f"/api/v1/runs/{session}/jobs/extract/output"
    waiting = (await api.get(path)).json()
    assert (waiting["state"], waiting["size"], waiting["is_ended"]) == ("waiting", 0, False)

    async def order(conn: Connection) -> None:
        await conn.execute("UPDATE job_run SET state = 'running' WHERE session_id = %s", (session,))

    await bench.rooms.serving.require().store.commit(order, name="test")
    away = (await api.get(path, params={"offset": 7})).json()  # no manager runs here
    assert (away["state"], away["size"], away["next"], away["is_ended"]) == ("running", None, 7, False)


@pytest.mark.parametrize("text", ["", "abc", "é", "漢", "a漢", "😀"])
def test_a_character_that_has_only_begun_waits_for_its_rest(text: str) -> None:
    data = text.encode()
    assert _whole_characters(data) == data
    for cut in range(1, len(text[-1:].encode())):
        assert _whole_characters(data[:-cut]) == text[:-1].encode()
    assert _whole_characters(b"x\x80\x80\x80\x80") == b"x\x80\x80\x80\x80"  # no text at all: shown as it is


async def test_gantt_says_when_and_which_jobs_decided_the_end(bench: Bench, api: httpx.AsyncClient) -> None:
    session = await run_of(api)
    await ended(bench, session, "extract", start=0, end=5, output="", size=0)
    await ended(bench, session, "side", start=0, end=9, output="", size=0)
    await ended(bench, session, "load", start=10, end=20, output="", size=0)
    found = (await api.get(f"/api/v1/runs/{session}/gantt")).json()
    assert found["critical_path"] == ["side", "load"]
    assert {(b["job_name"], b["is_critical"], tuple(b["after"])) for b in found["bars"]} == {
        ("extract", False, ()),
        ("side", True, ()),
        ("load", True, ("extract", "side")),
    }
    assert (await api.get("/api/v1/runs/999999/gantt")).status_code == 404


async def test_durations_and_search_answer_for_every_reader(bench: Bench, api: httpx.AsyncClient) -> None:
    empty = (await api.get("/api/v1/job-nets/nightly/durations")).json()
    assert (empty["net"], empty["jobs"], empty["runs"]) == (None, [], [])
    session = await run_of(api)
    await ended(bench, session, "extract", start=0, end=5, output="Disk FULL here", size=14)

    async def close(conn: Connection) -> None:
        await conn.execute(
            "UPDATE job_session SET state = 'normal', started_utc = now() - interval '1 h', ended_utc = now()"
        )

    await bench.rooms.serving.require().store.commit(close, name="test")
    found = (await api.get("/api/v1/job-nets/nightly/durations")).json()
    assert (found["net"]["count"], round(found["net"]["median_s"])) == (1, 3600)
    assert [(j["name"], j["median_s"]) for j in found["jobs"]] == [("extract", 5.0)]
    (hit,) = (await api.get("/api/v1/job-output", params={"text": "disk full"})).json()["runs"]
    assert (hit["session_id"], hit["job_name"], hit["line"]) == (session, "extract", "Disk FULL here")
    assert (await api.get("/api/v1/job-output", params={"text": "x"})).status_code == 422


async def test_what_switches_meant_is_listed_newest_first(bench: Bench, api: httpx.AsyncClient) -> None:
    async def make(conn: Connection) -> None:
        for epoch in (7, 9):
            counts = {"sessions": 2, "going_on": 3, "ended": 1, "unknown": 0, "silent": 1, "repeated": 0}
            report = counts | {"silent_hosts": ["db1"]}
            await add_switch_report(conn, epoch=epoch, member="m1", taken=now_utc(), report=report)
            assert not await add_switch_report(conn, epoch=epoch, member="m2", taken=now_utc(), report=report)

    await bench.store.commit(make, name="test.switches")
    found = (await api.get("/api/v1/job-switches")).json()["reports"]
    assert [(r["epoch"], r["member"], r["going_on"], r["silent_hosts"]) for r in found] == [
        (9, "m1", 3, ["db1"]), (7, "m1", 3, ["db1"]),
    ]  # fmt: skip
    assert len((await api.get("/api/v1/job-switches?limit=1")).json()["reports"]) == 1
