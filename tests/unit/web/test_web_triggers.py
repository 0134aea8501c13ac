"""Requests from outside that start nets: whose secret opens what, and one session for one key."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx

from web_bench import Bench, NewClient

NET = """
kind: JobNet
name: deploy
parameters: {REF: {default: main}}
jobs: [{name: a, wait: 1h}]
---
{kind: Trigger, name: hook, job_net: deploy, webhook: {key: X-GitHub-Delivery}, set: {REF: head_commit.id}}
---
{kind: Trigger, name: other, job_net: deploy, webhook: {}}
"""
PATIENCE_S = 60.0


async def ask(client: httpx.AsyncClient, method: str, path: str, **more: Any) -> httpx.Response:
    """Ask until the member serves: on a busy machine it may lose its role for an instant, and 503 says that nothing
    has happened.
    """
    end = time.monotonic() + PATIENCE_S
    while True:
        answer = await client.request(method, path, **more)
        if answer.status_code != 503 or time.monotonic() > end:
            return answer
        await asyncio.sleep(0.1)


BODY = {"head_commit": {"id": "4e1d"}}


async def prepared(api: httpx.AsyncClient) -> str:
    """Define the triggers; return the secret of `hook`."""
    answer = await ask(api, "POST", "/api/v1/apply", content=NET, headers={"Content-Type": "text/yaml"})
    assert answer.status_code == 200, answer.text
    answer = await ask(api, "POST", "/api/v1/triggers/hook/secret")
    assert answer.json()["path"] == "/api/v1/hooks/hook"
    return str(answer.json()["secret"])


async def variables(bench: Bench) -> list[object]:
    async def read(conn: object) -> list[tuple[object]]:
        query = "SELECT variables->>'REF' FROM job_session ORDER BY session_id"
        return await (await conn.execute(query)).fetchall()  # type: ignore[attr-defined,no-any-return]

    return [ref for (ref,) in await bench.store.read(read, name="test.rows")]


async def test_one_key_starts_one_session_however_often_it_comes(
    api: httpx.AsyncClient, new_client: NewClient, bench: Bench
) -> None:
    outside = new_client(await prepared(api))
    headers = {"X-GitHub-Delivery": "7c1f"}
    answers = await asyncio.gather(
        *(ask(outside, "POST", "/api/v1/hooks/hook", json=BODY, headers=headers) for _ in range(5))
    )
    assert sorted(a.status_code for a in answers) == [200, 200, 200, 200, 201]
    assert len({a.json()["session_id"] for a in answers}) == 1
    assert (await ask(outside, "POST", "/api/v1/hooks/hook", json={})).status_code == 201
    assert await variables(bench) == ["4e1d", "main"]


async def test_a_hooks_secret_opens_its_own_trigger_and_nothing_else(
    api: httpx.AsyncClient, new_client: NewClient, stranger: httpx.AsyncClient, bench: Bench
) -> None:
    first = new_client(await prepared(api))
    for client, path in (
        (first, "/api/v1/hooks/other"),
        (first, "/api/v1/hooks/nothing"),
        (stranger, "/api/v1/hooks/hook"),
        (api, "/api/v1/hooks/hook"),
        (new_client("wrong"), "/api/v1/hooks/hook"),
    ):
        answer = await ask(client, "POST", path, json=BODY)
        assert (answer.status_code, answer.json()["code"]) == (401, "access.login")
    assert (await ask(first, "GET", "/api/v1/job-nets")).status_code == 401
    second = new_client((await ask(api, "POST", "/api/v1/triggers/hook/secret")).json()["secret"])
    assert (await ask(first, "POST", "/api/v1/hooks/hook", json=BODY)).status_code == 401
    assert (await ask(second, "POST", "/api/v1/hooks/hook", json=BODY)).status_code == 201
    assert await variables(bench) == ["4e1d"]


async def test_what_a_hook_cannot_use_is_refused_and_starts_nothing(
    api: httpx.AsyncClient, new_client: NewClient, bench: Bench
) -> None:
    outside = new_client(await prepared(api))
    for content, status in ((b"{", 400), (b"[1]", 400), (b"\xff", 400), (b'{"head_commit": {"id": [1]}}', 422)):
        assert (await ask(outside, "POST", "/api/v1/hooks/hook", content=content)).status_code == status
    long = {"X-GitHub-Delivery": "k" * 201}
    assert (await ask(outside, "POST", "/api/v1/hooks/hook", headers=long)).status_code == 400
    assert await variables(bench) == []


async def test_secrets_are_never_shown_again_and_their_drawing_is_in_the_audit(
    api: httpx.AsyncClient, bench: Bench
) -> None:
    secret = await prepared(api)
    shown = await ask(api, "GET", "/api/v1/triggers")
    assert [(t["trigger_name"], t["secret_since_utc"] is not None) for t in shown.json()["triggers"]] == [
        ("hook", True),
        ("other", False),
    ]
    assert secret not in shown.text
    assert (await ask(api, "POST", "/api/v1/triggers/nothing/secret")).status_code == 404

    async def read(conn: object) -> list[tuple[object, ...]]:
        query = "SELECT action, subject FROM audit WHERE action = 'trigger.secret'"
        return await (await conn.execute(query)).fetchall()  # type: ignore[attr-defined,no-any-return]

    assert await bench.store.read(read, name="test.rows") == [("trigger.secret", "hook")]


async def test_trigger_by_files_says_since_when_it_watches_and_why_it_cannot(
    api: httpx.AsyncClient, bench: Bench
) -> None:
    text = (
        "{kind: Host, name: h1, address: 10.0.0.1}\n---\n{kind: JobNet, name: load, jobs: [{name: a, wait: 1h}]}\n---\n"
        "{kind: Trigger, name: arrived, job_net: load, file: {host: h1, path: /in, files: '*.csv'}}\n"
    )
    applied = await ask(api, "POST", "/api/v1/apply", content=text, headers={"Content-Type": "text/yaml"})
    assert applied.status_code == 200, applied.text

    async def shown() -> tuple[str, bool, str]:
        found = (await ask(api, "GET", "/api/v1/triggers")).json()["triggers"]
        [one] = [t for t in found if t["trigger_name"] == "arrived"]
        return one["waits_for"], one["watched_since_utc"] is not None, one["fault"]

    assert await shown() == ("file", False, "")
    query = "INSERT INTO trigger_watch (trigger_name, watched, since_utc, fault) VALUES ('arrived', '', now(), 'gone')"
    await bench.store.commit(lambda c: c.execute(query), name="test.watch")
    assert await shown() == ("file", True, "gone")
    assert (await ask(api, "POST", "/api/v1/triggers/arrived/secret")).status_code == 404


async def test_a_key_of_one_trigger_is_never_that_of_another_however_their_names_are_written(
    api: httpx.AsyncClient, new_client: NewClient, bench: Bench
) -> None:
    """Names may hold colons; whoever has one trigger's secret must not take another trigger's keys away."""
    net = "{kind: JobNet, name: %s, jobs: [{name: a, wait: 1h}]}\n---\n{kind: Trigger, name: %s, job_net: %s, webhook: {}}\n"
    text = "---\n".join(net % (name, trigger, name) for name, trigger in (("mine", "a"), ("theirs", "a:b")))
    applied = await ask(api, "POST", "/api/v1/apply", content=text, headers={"Content-Type": "text/yaml"})
    assert applied.status_code == 200, applied.text
    for trigger, key in (("a", "b:7"), ("a:b", "7")):
        secret = (await ask(api, "POST", f"/api/v1/triggers/{trigger}/secret")).json()["secret"]
        headers = {"Idempotency-Key": key}
        answer = await ask(new_client(secret), "POST", f"/api/v1/hooks/{trigger}", json={}, headers=headers)
        assert answer.status_code == 201, answer.text

    async def read(conn: object) -> list[tuple[object, ...]]:
        query = "SELECT net_name FROM job_session ORDER BY session_id"
        return await (await conn.execute(query)).fetchall()  # type: ignore[attr-defined,no-any-return]

    assert await bench.store.read(read, name="test.rows") == [("mine",), ("theirs",)]
