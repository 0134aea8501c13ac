"""Definitions, hosts, monitors and job nets through the API, over the real rows of their columns."""

from __future__ import annotations

import httpx

from futago.store.commit import Connection
from web_bench import Bench

TEXT = """\
kind: Host
name: web1
address: 10.91.1.21
---
kind: Host
name: web2
address: 10.91.1.22
---
kind: Scope
name: web
hosts: [web1, web2]
---
kind: Monitor
name: ping-web
check: ping
scope: web
interval: 1s
---
kind: JobNet
name: nightly
jobs:
  - {name: extract, host: web1, command: "true"}
  - {name: load, host: web2, command: "true", after: [extract]}
"""
YAML = {"Content-Type": "text/yaml"}


async def test_what_is_applied_is_seen_and_applying_it_again_changes_nothing(api: httpx.AsyncClient) -> None:
    dry = await api.post("/api/v1/apply?dry_run=true", content=TEXT, headers=YAML)
    assert dry.status_code == 200, dry.text
    assert (await api.get("/api/v1/hosts")).json() == {"hosts": []}
    first = (await api.post("/api/v1/apply", content=TEXT, headers=YAML)).json()
    assert first == {**dry.json(), "dry_run": False}
    assert {"kind": "JobNet", "name": "nightly", "change": "created"} in first["changes"]
    again = (await api.post("/api/v1/apply", content=TEXT, headers=YAML)).json()
    assert {c["change"] for c in again["changes"]} == {"unchanged"}
    hosts = (await api.get("/api/v1/hosts")).json()["hosts"]
    assert [(h["host_name"], h["address"], h["scopes"], h["status"]) for h in hosts] == [
        ("web1", "10.91.1.21", ["web"], "none"),
        ("web2", "10.91.1.22", ["web"], "none"),
    ]
    (monitor,) = (await api.get("/api/v1/monitors")).json()["monitors"]
    assert (monitor["monitor_name"], monitor["kind"], monitor["scope_name"]) == ("ping-web", "ping", "web")
    (net,) = (await api.get("/api/v1/job-nets")).json()["job_nets"]
    assert (net["net_name"], net["last_session_id"], len(net["spec"]["jobs"])) == ("nightly", None, 2)


async def test_several_files_are_applied_together_or_not_at_all(api: httpx.AsyncClient) -> None:
    good = {"name": "hosts.yaml", "text": "kind: Host\nname: web1\naddress: 10.91.1.21\n"}
    bad = {"name": "monitors.yaml", "text": "kind: Monitor\nname: p\ncheck: ping\nscop: web\n"}
    twice = {"name": "more.yaml", "text": "\nkind: Host\nname: web1\naddress: 10.91.1.99\n"}
    answer = await api.post("/api/v1/apply", json={"files": [good, bad, twice]})
    assert (answer.status_code, answer.json()["code"]) == (422, "apply.invalid")
    error = answer.json()["error"]
    assert "monitors.yaml:4: kind Monitor `p`: field `scop` is not known; did you mean `scope`?" in error
    assert "more.yaml:3: Host `web1` is defined twice" in error
    assert (await api.get("/api/v1/hosts")).json()["hosts"] == []
    assert (await api.post("/api/v1/apply", json={"files": [good]})).status_code == 200


async def test_a_body_that_is_no_definition_is_refused_with_a_sentence(api: httpx.AsyncClient) -> None:
    for content, kind, status in (
        (b"", "text/yaml", 422),
        (b"\xff", "text/yaml", 400),
        (b"kind: [", "text/yaml", 422),
        (b"{}", "application/json", 400),
        (b"<a/>", "text/xml", 415),
    ):
        answer = await api.post("/api/v1/apply", content=content, headers={"Content-Type": kind})
        assert answer.status_code == status, (content, answer.text)
        assert answer.json()["error"]


async def test_a_net_is_started_once_per_key_and_its_run_is_shown_with_its_jobs(api: httpx.AsyncClient) -> None:
    await api.post("/api/v1/apply", content=TEXT, headers=YAML)
    key = {"Idempotency-Key": "tonight"}
    first = await api.post("/api/v1/job-nets/nightly/runs", headers=key)
    again = await api.post("/api/v1/job-nets/nightly/runs", headers=key)
    other = await api.post("/api/v1/job-nets/nightly/runs")
    assert [a.status_code for a in (first, again, other)] == [201, 200, 201]
    assert first.json()["session_id"] == again.json()["session_id"] != other.json()["session_id"]
    runs = (await api.get("/api/v1/runs", params={"net": "nightly"})).json()["runs"]
    assert [r["session_id"] for r in runs] == [other.json()["session_id"], first.json()["session_id"]]
    run = (await api.get(f"/api/v1/runs/{runs[0]['session_id']}")).json()
    assert (run["state"], run["trigger"], run["job_states"]) == ("starting", "api admin", {"waiting": 2})
    assert {(j["job_name"], j["host_name"], j["state"]) for j in run["jobs"]} == {
        ("extract", "web1", "waiting"),
        ("load", "web2", "waiting"),
    }
    assert (await api.get("/api/v1/runs/999999")).status_code == 404
    nobody = await api.post("/api/v1/job-nets/nobody/runs")
    assert (nobody.status_code, nobody.json()["code"]) == (422, "jobs.no-such-net")


async def test_a_host_shows_the_worst_of_its_monitors_and_samples_come_in_pages(
    api: httpx.AsyncClient, bench: Bench
) -> None:
    await api.post("/api/v1/apply", content=TEXT, headers=YAML)
    second = TEXT.split("---\n")[3].replace("ping-web", "ping-two")
    await api.post("/api/v1/apply", content=second, headers=YAML)

    async def work(conn: Connection) -> None:
        await conn.execute(
            "INSERT INTO monitor_state (monitor_name, host_name, status, since_utc, next_due_utc) VALUES"
            " ('ping-web', 'web1', 'ok', now(), now()), ('ping-two', 'web1', 'critical', now(), now())"
        )
        await conn.execute(
            "INSERT INTO sample SELECT 'ping-web', 'web1', '2026-01-01Z'::timestamptz + n * interval '1 s', n, true"
            " FROM generate_series(1, 10) n"
        )

    await bench.store.commit(work, name="test.states")
    web1 = (await api.get("/api/v1/hosts")).json()["hosts"][0]
    assert (web1["status"], web1["monitor_count"]) == ("critical", 2)
    page = (await api.get("/api/v1/samples", params={"monitor": "ping-web", "limit": 6})).json()
    wanted = {"monitor": "ping-web", "limit": 6, "since_utc": page["next_since_utc"]}
    rest = (await api.get("/api/v1/samples", params=wanted)).json()
    assert [s["value"] for s in page["samples"] + rest["samples"]] == [1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10]
    assert rest["next_since_utc"] is None
    states = {m["monitor_name"]: m["states"] for m in (await api.get("/api/v1/monitors")).json()["monitors"]}
    assert [s["status"] for s in states["ping-two"]] == ["critical"]
