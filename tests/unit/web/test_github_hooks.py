"""Requests that are signed as GitHub signs them: genuine ones start their net, each once, and no copy ever."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from typing import Any

import httpx
import pytest
from test_web_triggers import ask, variables

from futago.inventory.definitions import parse
from futago.jobs.hook_signature import github_key, is_ping, read_github
from futago.jobs.trigger_definitions import Trigger
from web_bench import STANDBY, Bench, role

NET = """
kind: JobNet
name: deploy
parameters: {REF: {default: main}}
jobs: [{name: a, wait: 1h}]
---
{kind: Trigger, name: push, job_net: deploy, webhook: {signed: github}, set: {REF: head_commit.id}}
---
{kind: Trigger, name: own, job_net: deploy, webhook: {signed: true}}
---
{kind: Trigger, name: plain, job_net: deploy, webhook: {}}
"""
HERE = "/api/v1/hooks/push"


def pushed(commit: str) -> bytes:
    return json.dumps({"head_commit": {"id": commit}, "ref": "refs/heads/main"}).encode()


@pytest.fixture
async def secret(api: httpx.AsyncClient) -> str:
    """What is written into GitHub's field `Secret`."""
    answer = await ask(api, "POST", "/api/v1/apply", content=NET, headers={"Content-Type": "text/yaml"})
    assert answer.status_code == 200, answer.text
    return str((await ask(api, "POST", "/api/v1/triggers/push/secret")).json()["secret"])


async def send(
    client: httpx.AsyncClient, secret: str, body: bytes, delivery: str = "", *, path: str = HERE, event: str = "push"
) -> httpx.Response:
    """Send a body as GitHub does, signed by other means than the product's."""
    mac = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-Hub-Signature-256": f"sha256={mac}", "X-GitHub-Event": event, "Content-Type": "application/json"}
    if delivery:
        headers["X-GitHub-Delivery"] = delivery
    return await ask(client, "POST", path, content=body, headers=headers)


async def audit(bench: Bench) -> list[tuple[object, ...]]:
    async def read(conn: Any) -> list[tuple[object, ...]]:
        query = "SELECT account_name, action FROM audit WHERE account_name LIKE 'hook:%' ORDER BY audit_id"
        return list(await (await conn.execute(query)).fetchall())

    return await bench.store.read(read, name="test.rows")


async def test_each_delivery_starts_one_session_and_is_known_when_it_is_sent_again(
    stranger: httpx.AsyncClient, bench: Bench, secret: str
) -> None:
    first = await send(stranger, secret, pushed("a1"), "7c1f")
    again = await send(stranger, secret, pushed("a1"), "7c1f")
    other = await send(stranger, secret, pushed("b2"), "8d20")
    nameless = await send(stranger, secret, pushed("c3"))
    assert [r.status_code for r in (first, again, other, nameless)] == [201, 200, 201, 201], first.text
    assert again.json() == {"session_id": first.json()["session_id"], "repeated": True}
    assert (await send(stranger, secret, pushed("c3"))).json()["session_id"] == nameless.json()["session_id"]
    assert await variables(bench) == ["a1", "b2", "c3"]
    new, repeated = ("hook:push", "job-net.run"), ("hook:push", "job-net.run.repeated")
    assert await audit(bench) == [
        new,
        repeated,
        new,
        new,
        repeated,
    ]  # a repetition's answer rests on a write of its own


async def test_copy_under_another_delivery_id_starts_nothing_and_is_in_the_audit(
    stranger: httpx.AsyncClient, bench: Bench, secret: str
) -> None:
    first = await send(stranger, secret, pushed("a1"), "7c1f")
    copy = await send(stranger, secret, pushed("a1"), "forged")
    assert (copy.status_code, copy.json()["code"]) == (409, "jobs.copied-request"), copy.text
    stripped = await send(stranger, secret, pushed("a1"))
    assert (stripped.status_code, stripped.json()["session_id"]) == (200, first.json()["session_id"])
    assert await variables(bench) == ["a1"]
    assert ("hook:push", "job-net.run.refused") in await audit(bench)


async def test_copies_that_come_at_the_same_time_start_one_session(
    stranger: httpx.AsyncClient, bench: Bench, secret: str
) -> None:
    same = await asyncio.gather(*(send(stranger, secret, pushed("a1"), "7c1f") for _ in range(6)))
    assert sorted(r.status_code for r in same) == [200] * 5 + [201]
    forged = await asyncio.gather(*(send(stranger, secret, pushed("b2"), f"id-{i}") for i in range(6)))
    assert sorted(r.status_code for r in forged) == [201] + [409] * 5, [r.text for r in forged]
    assert await variables(bench) == ["a1", "b2"]


async def test_deliveries_are_known_after_a_switch_and_when_their_sessions_are_gone(
    stranger: httpx.AsyncClient, bench: Bench, secret: str
) -> None:
    first = await send(stranger, secret, pushed("a1"), "7c1f")
    bench.controller.become(STANDBY)
    async with asyncio.timeout(30):
        while (await stranger.post(HERE)).status_code != 503:
            await asyncio.sleep(0.02)
    bench.controller.become(role("primary", gate="open", epoch=9))
    assert (await send(stranger, secret, pushed("a1"), "7c1f")).status_code == 200
    for statement in (b"DELETE FROM job_run", b"DELETE FROM job_session"):  # as retention does
        await bench.store.commit(lambda conn, s=statement: conn.execute(s), name="test.prune")  # type: ignore[misc]
    again = await send(stranger, secret, pushed("a1"), "7c1f")
    assert (again.status_code, again.json()["session_id"]) == (200, first.json()["session_id"])
    assert (await send(stranger, secret, pushed("a1"), "forged")).status_code == 409
    assert await variables(bench) == []


async def test_what_is_not_signed_with_the_secret_of_now_starts_nothing(
    stranger: httpx.AsyncClient, api: httpx.AsyncClient, bench: Bench, secret: str
) -> None:
    genuine = hmac.new(secret.encode(), pushed("a1"), hashlib.sha256).hexdigest()
    bearer = {"Authorization": f"Bearer {secret}"}
    for headers, body, status, code in (
        ({}, pushed("a1"), 401, "access.login"),
        ({"X-Hub-Signature-256": f"sha256={genuine}"}, pushed("a2"), 401, "access.login"),
        ({"X-Hub-Signature-256": f"sha256={'0' * 64}"}, pushed("a1"), 401, "access.login"),
        ({"X-Hub-Signature-256": genuine}, pushed("a1"), 400, "access.signature"),
        ({"X-Hub-Signature-256": f"sha1={genuine[:40]}"}, pushed("a1"), 400, "access.signature"),
        ({"X-Hub-Signature": f"sha1={genuine[:40]}"}, pushed("a1"), 401, "access.login"),
        (bearer, pushed("a1"), 401, "access.login"),
        ({**bearer, "X-Hub-Signature-256": f"sha256={'0' * 64}"}, pushed("a1"), 401, "access.login"),
    ):
        answer = await ask(stranger, "POST", HERE, content=body, headers={"X-GitHub-Delivery": "7c1f", **headers})
        assert (answer.status_code, answer.json()["code"]) == (status, code), headers
    assert (await ask(api, "POST", "/api/v1/triggers/push/secret")).status_code == 200
    assert (await send(stranger, secret, pushed("a1"), "7c1f")).status_code == 401
    assert await variables(bench) == []


async def test_triggers_of_other_kinds_do_not_take_githubs_signatures(
    stranger: httpx.AsyncClient, api: httpx.AsyncClient, bench: Bench, secret: str
) -> None:
    for name in ("own", "plain"):
        drawn = str((await ask(api, "POST", f"/api/v1/triggers/{name}/secret")).json()["secret"])
        for key in (drawn, github_key(hashlib.sha256(drawn.encode()).digest()), secret):
            assert (await send(stranger, key, b"{}", "7c1f", path=f"/api/v1/hooks/{name}")).status_code == 401
    assert await variables(bench) == []


async def test_ping_is_answered_and_starts_nothing_whatever_a_copy_of_it_calls_itself(
    stranger: httpx.AsyncClient, bench: Bench, secret: str
) -> None:
    ping = json.dumps({"zen": "Keep it logically awesome.", "hook_id": 30, "hook": {"events": ["push"]}}).encode()
    for event in ("ping", "push"):
        answer = await send(stranger, secret, ping, "72d3", event=event)
        assert (answer.status_code, answer.content) == (204, b"")
    assert (await send(stranger, "another", ping, "72d3", event="ping")).status_code == 401
    assert await variables(bench) == []
    assert not is_ping("push", {"zen": "a branch"}) and is_ping("ping", {})


def test_the_deliverys_header_is_githubs_unless_another_is_written() -> None:
    def key(webhook: str) -> object:
        [one] = parse(f"{{kind: Trigger, name: t, job_net: n, webhook: {webhook}}}")
        assert isinstance(one.object, Trigger) and one.object.webhook is not None
        return one.object.webhook.key

    assert key("{signed: github}") == "X-GitHub-Delivery"
    assert key("{signed: github, key: X-Gitea-Delivery}") == "X-Gitea-Delivery"
    assert key("{signed: true}") == key("{}") == "Idempotency-Key"


def test_githubs_own_example_of_a_signature_is_made_and_read() -> None:
    """From GitHub's documentation, "Validating webhook deliveries"."""
    expected = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert hmac.new(b"It's a Secret to Everybody", b"Hello, World!", hashlib.sha256).hexdigest() == expected
    assert read_github(f"sha256={expected}") == bytes.fromhex(expected)
    for text in ("", expected, f"sha256={expected.upper()}", f"sha256={expected} ", f"sha256={expected[:-1]}"):
        assert read_github(text) is None
