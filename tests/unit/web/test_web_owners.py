"""Owner roles: who may see, start and operate on whose nets; and what the audit trail says of it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx

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
