"""Owner roles: who may see, start and operate on whose nets; and what the audit trail says of it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx

from futago.jobs.store import EventRow, add_events
from futago.runtime.clock import now_utc
from web_bench import Bench, NewClient

NETS = """
kind: JobUnit
name: billing
owner: night-shift
---
kind: JobNet
name: closing
unit: billing
jobs: [{name: a, wait: 1h}, {name: b, approval: {}, owner: heads}]
---
kind: JobNet
name: everybodys
jobs: [{name: a, wait: 1h}]
"""
PATIENCE_S = 60.0


async def ask(client: httpx.AsyncClient, method: str, path: str, **more: Any) -> httpx.Response:
    """Ask until the member serves: on a busy machine it may lose its role for an instant, and 503 says that nothing
    has happened.
    """
    end = time.monotonic() + PATIENCE_S
    while True:
        answer = await client.request(method, f"/api/v1{path}", **more)
        if answer.status_code != 503 or time.monotonic() > end:
            return answer
        await asyncio.sleep(0.1)


async def account(api: httpx.AsyncClient, new_client: NewClient, name: str, role: str, *owners: str) -> Any:
    wanted = {"role": role, "owners": list(owners), "password": "a long enough one"}
    answer = await ask(api, "POST", f"/accounts/{name}", json=wanted)
    assert answer.status_code == 200, answer.text
    token = await ask(api, "POST", f"/accounts/{name}/tokens", json={"name": f"of-{name}"})
    return new_client(token.json()["secret"])


async def define(api: httpx.AsyncClient) -> None:
    answer = await ask(api, "POST", "/apply", content=NETS, headers={"Content-Type": "text/yaml"})
    assert answer.status_code == 200, answer.text


async def audit(bench: Bench) -> list[tuple[object, ...]]:
    async def read(conn: Any) -> list[tuple[object, ...]]:
        query = "SELECT account_name, action FROM audit WHERE account_name <> 'admin' ORDER BY audit_id"
        return list(await (await conn.execute(query)).fetchall())

    return await bench.store.read(read, name="test.rows")


async def test_only_who_has_a_part_in_the_owner_role_sees_starts_and_operates(
    api: httpx.AsyncClient, new_client: NewClient, bench: Bench
) -> None:
    await define(api)
    alice = await account(api, new_client, "alice", "operator", "night-shift")
    bob = await account(api, new_client, "bob", "operator", "day-shift")
    wall = await account(api, new_client, "wall", "reader", "*")
    started = await ask(alice, "POST", "/job-nets/closing/runs")
    assert started.status_code == 201, started.text
    run = started.json()["session_id"]

    refused = await ask(bob, "POST", "/job-nets/closing/runs")
    assert (refused.status_code, refused.json()["code"]) == (403, "access.owner")
    assert refused.json()["error"] == "Job net `closing` belongs to owner role `night-shift`, in which bob has no part."
    assert (await ask(bob, "POST", "/job-nets/everybodys/runs")).status_code == 201
    for method, path, body in (
        ("GET", f"/runs/{run}", None),
        ("GET", f"/runs/{run}/gantt", None),
        ("GET", f"/runs/{run}/jobs/a/output", None),
        ("GET", "/job-nets/closing/durations", None),
        ("POST", f"/runs/{run}/operations", {"operation": "stop"}),
        ("POST", f"/runs/{run}/rerun", {}),
    ):
        answer = await ask(bob, method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "access.owner"), path

    for who, nets in ((bob, ["everybodys"]), (alice, ["closing", "everybodys"]), (wall, ["closing", "everybodys"])):
        assert [n["net_name"] for n in (await ask(who, "GET", "/job-nets")).json()["job_nets"]] == nets
        runs = (await ask(who, "GET", "/runs")).json()["runs"]
        assert sorted({r["net_name"] for r in runs}) == nets
        shown = (await ask(who, "GET", "/definitions", params={"kinds": "JobNet"})).json()["objects"]
        assert [o["name"] for o in shown] == nets
    assert (await ask(wall, "GET", f"/runs/{run}")).status_code == 200
    assert (await ask(wall, "POST", "/job-nets/closing/runs")).json()["code"] == "access.forbidden"
    assert await audit(bench) == [
        ("alice", "job-net.run"),
        ("bob", "job-net.run.refused"),
        ("bob", "job-net.run"),
        ("bob", "run.stop.refused"),
        ("bob", "run.rerun.refused"),
    ]


async def test_job_with_an_owner_of_its_own_is_approved_by_that_role_only(
    api: httpx.AsyncClient, new_client: NewClient, bench: Bench
) -> None:
    await define(api)
    alice = await account(api, new_client, "alice", "operator", "night-shift")
    head = await account(api, new_client, "head", "operator", "night-shift", "heads")
    run = (await ask(alice, "POST", "/job-nets/closing/runs")).json()["session_id"]
    approve = {"operation": "approve", "job": "b"}
    refused = await ask(alice, "POST", f"/runs/{run}/operations", json=approve)
    assert (refused.status_code, refused.json()["error"]) == (
        403,
        f"Job `b` of run {run} belongs to owner role `heads`, in which alice has no part.",
    )
    assert (await ask(head, "POST", f"/runs/{run}/operations", json=approve)).status_code == 202  # no engine runs here
    assert [line for line in await audit(bench) if line[1] == "run.approve"] == [("head", "run.approve")]


async def test_owner_role_that_is_taken_away_is_gone_at_once(api: httpx.AsyncClient, new_client: NewClient) -> None:
    await define(api)
    alice = await account(api, new_client, "alice", "operator", "night-shift")
    assert (await ask(alice, "POST", "/job-nets/closing/runs")).status_code == 201
    assert (await ask(api, "POST", "/accounts/alice", json={"owners": []})).json()["owners"] == []
    assert (await ask(alice, "POST", "/job-nets/closing/runs")).status_code == 403
    assert (await ask(api, "POST", "/accounts/alice", json={"is_enabled": False})).status_code == 200
    assert (await ask(alice, "GET", "/job-nets")).status_code == 401


async def test_accounts_are_for_administrators_and_one_stays(api: httpx.AsyncClient, new_client: NewClient) -> None:
    bob = await account(api, new_client, "bob", "operator")
    for method, path, body in (
        ("GET", "/accounts", None),
        ("POST", "/accounts/bob", {"role": "admin"}),
        ("POST", "/accounts/admin/tokens", {"name": "mine"}),
    ):
        assert (await ask(bob, method, path, json=body)).status_code == 403
    for change in ({"is_enabled": False}, {"role": "reader"}):
        answer = await ask(api, "POST", "/accounts/admin", json=change)
        assert (answer.status_code, answer.json()["code"]) == (422, "access.last-administrator")
    assert (await ask(api, "POST", "/accounts/carol", json={"role": "reader"})).json()["code"] == "access.new-account"
    assert (await ask(api, "POST", "/accounts/admin/tokens", json={"name": "of-bob"})).status_code == 422
    shown = (await ask(api, "GET", "/accounts")).json()["accounts"]
    assert [(a["account"], a["role"], a["is_enabled"]) for a in shown] == [
        ("admin", "admin", True),
        ("bob", "operator", True),
    ]
    assert "password" not in str(shown)


STARTERS = """
{kind: Scope, name: none, hosts: []}
---
{kind: Monitor, name: logs, scope: none, check: syslog, patterns: [{match: x, priority: info}]}
---
{kind: Schedule, name: nightly, job_net: closing, cron: "0 1 * * *"}
---
{kind: Schedule, name: hourly, job_net: everybodys, cron: "0 * * * *"}
---
{kind: Trigger, name: on-disk, job_net: closing, event: {monitor: logs}}
---
{kind: Trigger, name: hook, job_net: everybodys, webhook: {}}
"""


async def names(client: httpx.AsyncClient, path: str, *keys: str, **params: object) -> set[str]:
    """Return what a list holds: the values of one key of its objects."""
    answer = await ask(client, "GET", path, params=params)
    assert answer.status_code == 200, answer.text
    return {str(one[keys[1]]) for one in answer.json()[keys[0]]}


async def test_schedules_and_triggers_are_their_nets(api: httpx.AsyncClient, new_client: NewClient) -> None:
    await define(api)
    answer = await ask(api, "POST", "/apply", content=STARTERS, headers={"Content-Type": "text/yaml"})
    assert answer.status_code == 200, answer.text
    alice = await account(api, new_client, "alice", "reader", "night-shift")
    bob = await account(api, new_client, "bob", "operator", "day-shift")
    nobody = await account(api, new_client, "nobody", "reader")
    for who, schedules, triggers in (
        (alice, {"nightly", "hourly"}, {"on-disk", "hook"}),
        (bob, {"hourly"}, {"hook"}),
        (nobody, {"hourly"}, {"hook"}),
        (api, {"nightly", "hourly"}, {"on-disk", "hook"}),
    ):
        assert await names(who, "/schedules", "schedules", "schedule_name") == schedules
        assert await names(who, "/schedules/upcoming", "starts", "schedule_name", days=2) == schedules
        assert await names(who, "/triggers", "triggers", "trigger_name") == triggers
        shown = await names(who, "/definitions", "objects", "name", kinds="Schedule,Trigger")
        assert shown == schedules | triggers
        assert await names(who, "/definitions", "objects", "name", names="nightly,on-disk,closing,billing") == (
            {"nightly", "on-disk", "closing", "billing"} if "nightly" in schedules else set()
        )
    few = (await ask(bob, "GET", "/schedules/upcoming", params={"days": 2, "limit": 48})).json()
    assert (len(few["starts"]), few["is_complete"]) == (48, True), "starts that are hidden take no places"
    for path in ("/triggers/on-disk/secret", "/triggers/hook/secret"):
        assert (await ask(bob, "POST", path)).json()["code"] == "access.forbidden"


async def test_calendars_and_queues_with_an_owner_are_shown_to_those_who_have_a_part_in_it(
    api: httpx.AsyncClient, new_client: NewClient
) -> None:
    text = """
{kind: Calendar, name: bank, owner: night-shift, weekdays: [mon]}
---
{kind: JobQueue, name: heavy, owner: day-shift, limit: 2}
---
{kind: JobQueue, name: light, limit: 9}
"""
    answer = await ask(api, "POST", "/apply", content=text, headers={"Content-Type": "text/yaml"})
    assert answer.status_code == 200, answer.text
    alice = await account(api, new_client, "alice", "reader", "night-shift")
    bob = await account(api, new_client, "bob", "operator", "day-shift")
    for who, shown in ((alice, {"bank", "light"}), (bob, {"heavy", "light"}), (api, {"bank", "heavy", "light"})):
        assert await names(who, "/definitions", "objects", "name", kinds="Calendar,JobQueue") == shown


async def test_schedule_that_nobody_can_read_is_complained_of_to_its_owners(
    api: httpx.AsyncClient, new_client: NewClient, bench: Bench
) -> None:
    await define(api)
    assert (
        await ask(api, "POST", "/apply", content=STARTERS, headers={"Content-Type": "text/yaml"})
    ).status_code == 200
    change = b"UPDATE schedule SET spec = spec || '{\"cron\": \"of tomorrow\"}' WHERE schedule_name = 'nightly'"
    await bench.store.commit(lambda conn: conn.execute(change), name="test.change")
    alice = await account(api, new_client, "alice", "reader", "night-shift")
    bob = await account(api, new_client, "bob", "reader", "day-shift")
    for who, complaints in ((alice, 1), (bob, 0), (api, 1)):
        assert len((await ask(who, "GET", "/schedules")).json()["unreadable"]) == complaints


async def test_events_of_job_control_are_shown_to_owners_and_all_others_to_everybody(
    api: httpx.AsyncClient, new_client: NewClient, bench: Bench
) -> None:
    def event(message: str, owner: str) -> EventRow:
        return EventRow(
            occurred_utc=now_utc(), priority="critical", host_name="h1", message=message, detail={}, owner=owner
        )

    def write(*events: EventRow) -> Any:
        return bench.store.commit(lambda conn: add_events(conn, events, epoch=1), name="test.events")

    await write(event("Job net free ended", ""), event("Job net closing ended", "night-shift"))
    assert (await ask(api, "POST", "/events", json={"priority": "info", "message": "net: posted"})).status_code == 201
    await write(event("Job net opening ended", "day-shift"))
    alice = await account(api, new_client, "alice", "reader", "night-shift", "others")
    nobody = await account(api, new_client, "nobody", "operator")
    wall = await account(api, new_client, "wall", "reader", "*")
    free = {"Job net free ended", "net: posted"}
    night, day = "Job net closing ended", "Job net opening ended"
    for who, seen in (
        (alice, {*free, night}),
        (nobody, free),
        (wall, {*free, night, day}),
        (api, {*free, night, day}),
    ):
        for more in ({}, {"text": "net"}, {"after": 0}, {"order": "desc"}):
            assert await names(who, "/events", "events", "message", **more) == seen, more
        count = (await ask(who, "GET", "/events/count")).json()
        assert count["count"] == len(seen)
        assert (await ask(who, "GET", "/events/count", params={"text": "closing"})).json()["count"] == (night in seen)
        page = await who.get("/parts/events")
        assert {m for m in (*free, night, day) if m in page.text} == seen
        assert {m for m in (*free, night, day) if m in (await who.get("/")).text} == seen
    last = (await ask(nobody, "GET", "/events/count")).json()["last_event_id"]
    assert (await ask(nobody, "GET", "/events", params={"after": last})).json() == {"events": [], "next": None}
    assert await names(nobody, "/events", "events", "message", before=10_000, limit=1, order="desc") == {"net: posted"}


async def test_runs_from_before_a_net_was_given_to_others_stay_with_those_who_owned_it(
    api: httpx.AsyncClient, new_client: NewClient, bench: Bench
) -> None:
    await define(api)
    alice = await account(api, new_client, "alice", "operator", "night-shift")
    bob = await account(api, new_client, "bob", "operator", "day-shift")
    old = (await ask(alice, "POST", "/job-nets/closing/runs")).json()["session_id"]
    given = NETS.replace("unit: billing\njobs", "unit: billing\nowner: day-shift\njobs")
    assert (await ask(api, "POST", "/apply", content=given, headers={"Content-Type": "text/yaml"})).status_code == 200
    new = (await ask(bob, "POST", "/job-nets/closing/runs")).json()["session_id"]
    end = b"UPDATE job_session SET state = 'normal', started_utc = now(), ended_utc = now()"
    await bench.store.commit(lambda conn: conn.execute(end), name="test.end")

    assert [r["session_id"] for r in (await ask(bob, "GET", "/runs")).json()["runs"]] == [new]
    took = (await ask(bob, "GET", "/job-nets/closing/durations")).json()["runs"]
    assert [r["session_id"] for r in took] == [new]
    assert (await ask(alice, "GET", "/job-nets/closing/durations")).status_code == 403
    assert [r["session_id"] for r in (await ask(alice, "GET", "/runs")).json()["runs"]] == [old]
    took = (await ask(api, "GET", "/job-nets/closing/durations")).json()["runs"]
    assert [r["session_id"] for r in took] == [old, new]
