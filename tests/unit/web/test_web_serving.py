"""The web follows the role: it serves at once when the gate opens, and refuses at once when it does not serve."""

from __future__ import annotations

import asyncio
import time

import httpx

from futago.access.tokens import csrf_token
from futago.web.identity import COOKIE
from postgres_cluster import Cluster
from web_bench import SERVING, STANDBY, Bench, NewClient, role, until


async def test_a_member_that_does_not_serve_refuses_quickly_and_names_the_primary(
    api: httpx.AsyncClient, bench: Bench
) -> None:
    bench.controller.become(STANDBY)
    await until(lambda: not bench.rooms.serving.health().serving)
    await api.get("/api/v1/hosts")
    took: list[float] = []
    while not took or (min(took) >= 0.15 and len(took) < 10):  # the quickest counts: a busy machine holds up some
        begin = time.perf_counter()
        asked = (("GET", "hosts"), ("POST", "events"), ("GET", "pair"))
        answers = [await api.request(m, f"/api/v1/{p}") for m, p in asked]
        took.append(time.perf_counter() - begin)
    assert min(took) / 3 < 0.05
    for answer in answers[:1] + answers[2:]:
        assert answer.status_code == 503
        body = answer.json()
        assert (body["primary"], body["primary_address"], body["code"]) == ("m2", "10.91.1.12", "pair.not-serving")
        assert answer.headers["retry-after"] == "1"


async def test_a_primary_whose_gate_is_closed_does_not_serve(api: httpx.AsyncClient, bench: Bench) -> None:
    bench.controller.become(role("primary", gate="closed"))
    await until(lambda: not bench.rooms.serving.health().serving)
    assert (await api.post("/api/v1/events", json={"message": "x"})).status_code == 503
    assert (await api.get("/api/v1/health")).status_code == 503


async def test_writes_go_on_within_a_tenth_of_a_second_of_the_gate_opening(
    api: httpx.AsyncClient, bench: Bench
) -> None:
    """The quickest of five: a test suite beside it may hold up any one of them."""
    took = []
    for epoch in range(9, 14):
        bench.controller.become(STANDBY)
        await until(lambda: not bench.rooms.serving.health().serving)
        bench.controller.become({**SERVING, "epoch": epoch})
        begin = time.perf_counter()
        await until(lambda: bench.rooms.serving.health().serving)
        answer = await api.post("/api/v1/events", json={"message": f"first of {epoch}"})
        assert answer.status_code == 201
        took.append(time.perf_counter() - begin)
    assert min(took) < 0.5  # 0.1 s on an idle machine
    events = (await api.get("/api/v1/events")).json()["events"]
    assert sorted((e["message"], e["epoch"]) for e in events) == sorted((f"first of {n}", n) for n in range(9, 14))


async def test_a_login_survives_a_switch_to_another_member(
    person: httpx.AsyncClient, bench: Bench, new_client: NewClient
) -> None:
    """The other member is this one again with an empty memory: only rows can carry the session over."""
    bench.controller.become(STANDBY)
    await until(lambda: not bench.rooms.serving.health().serving)
    bench.rooms.identity._known.clear()
    bench.controller.become(SERVING)
    await until(lambda: bench.rooms.serving.health().serving)
    answer = await person.post("/api/v1/events", json={"message": "still me"})
    assert answer.status_code == 201
    assert person.headers["X-CSRF-Token"] == csrf_token(person.cookies[COOKIE])


async def test_a_write_caught_by_a_switch_is_unknown_and_its_repetition_makes_one_row(
    api: httpx.AsyncClient, bench: Bench, postgres: Cluster
) -> None:
    """The commit waits for a standby that is gone; then this member loses its role."""
    event, key = {"message": "once"}, {"Idempotency-Key": "k1"}
    without_standby = postgres.absent_standby()
    await asyncio.to_thread(without_standby.__enter__)
    try:
        caught = asyncio.create_task(api.post("/api/v1/events", json=event, headers=key))
        await _until_waiting(postgres)
        bench.controller.become(STANDBY)
        answer = await asyncio.wait_for(caught, 60)
        assert (answer.status_code, answer.json()["code"]) == (504, "store.unknown")
        assert "same Idempotency-Key" in answer.json()["hint"]
    finally:
        await asyncio.to_thread(without_standby.__exit__, None, None, None)
    bench.controller.become(SERVING)
    await until(lambda: bench.rooms.serving.health().serving)
    again = await api.post("/api/v1/events", json=event, headers=key)
    assert again.status_code in {200, 201}
    found = (await api.get("/api/v1/events")).json()["events"]
    assert [(e["event_id"], e["message"]) for e in found] == [(again.json()["event_id"], "once")]


async def test_a_repetition_is_not_acknowledged_before_the_standby_has_it(
    api: httpx.AsyncClient, postgres: Cluster
) -> None:
    event, key = {"message": "once"}, {"Idempotency-Key": "k1"}
    assert (await api.post("/api/v1/events", json=event, headers=key)).status_code == 201
    without_standby = postgres.absent_standby()
    await asyncio.to_thread(without_standby.__enter__)
    try:
        again = asyncio.create_task(api.post("/api/v1/events", json=event, headers=key))
        await _until_waiting(postgres)
        assert not again.done()
    finally:
        await asyncio.to_thread(without_standby.__exit__, None, None, None)
    assert (await again).status_code == 200


async def _until_waiting(postgres: Cluster) -> None:
    async with asyncio.timeout(60):
        while not [w for w in await asyncio.to_thread(postgres.waiting) if w[1] == "futago-web"]:
            await asyncio.sleep(0.01)


async def test_the_web_beats_to_the_controller_from_its_own_loop(bench: Bench) -> None:
    before = bench.controller.beats
    await until(lambda: bench.controller.beats >= before + 2)


async def test_a_page_on_a_member_that_does_not_serve_says_so_and_looks_again(
    person: httpx.AsyncClient, bench: Bench
) -> None:
    bench.controller.become(STANDBY)
    await until(lambda: not bench.rooms.serving.health().serving)
    for path in ("/", "/login"):
        answer = await person.get(path, headers={"Accept-Language": "ja"})
        assert answer.status_code == 503
        assert "現用系は m2 です。" in answer.text
        assert "waiting.js" in answer.text
        assert 'href="https://10.91.1.100/"' in answer.text
