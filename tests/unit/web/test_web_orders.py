"""Orders on the pair over the API and the page: who may give them, what is recorded, what is answered."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

import web_bench
from futago.cluster import explain
from futago.cluster.model import At, Config, Facts, MemberName
from web_bench import Bench, NewClient

TESTS = {
    "ok": True, "passed": False, "text": "1 of 2 tests passed.",
    "tests": [
        {"from": "m1", "member": "m2", "driver": "ipmi", "device": "10.0.0.1", "level": 1, "state": "on", "ok": True, "error": ""},
        {"from": "m2", "member": "m1", "driver": "ipmi", "device": "10.0.0.2", "level": 1, "state": "unknown", "ok": False,
         "error": "it refuses the password"},
    ],
}  # fmt: skip


@pytest.fixture
def replies(bench: Bench) -> dict[str, dict[str, Any]]:
    """What the controller's stand-in answers, by operation."""
    facts = Facts(
        cfg=Config(me=MemberName("m1"), peer=MemberName("m2"), h=1, k=10, bias=1, t_stall=1), started_at=At(1)
    )
    bench.controller.replies = {
        "plan": {"ok": True, "plan": web_bench.PLAN},
        "maintenance": {"ok": True, "text": "Maintenance is on: nobody takes over unasked.", "maintenance": True},
        "fence-test": TESTS,
        "facts": {"ok": True, "facts": explain.pack(facts, 1000).decode()},
    }
    return bench.controller.replies


async def audited(bench: Bench) -> list[tuple[str, str]]:
    async def work(conn: Any) -> list[tuple[str, str]]:
        cursor = await conn.execute("SELECT action, subject FROM audit WHERE action LIKE 'pair.%' ORDER BY 1, 2")
        return [tuple(row) for row in await cursor.fetchall()]

    return await bench.store.read(work, name="test", deadline_s=5)


async def test_plan_is_passed_on_and_changes_nothing(api: httpx.AsyncClient, bench: Bench, replies: Any) -> None:
    answer = await api.get("/api/v1/pair/recover/plan")
    assert answer.status_code == 200 and answer.json()["steps"][0]["what"] == "rewind"
    assert bench.controller.requests == [{"op": "recover", "plan": True}]
    assert await audited(bench) == []


async def test_maintenance_and_tests_are_recorded_before_they_are_ordered(
    api: httpx.AsyncClient, bench: Bench, replies: Any
) -> None:
    done = await api.post("/api/v1/pair/maintenance", json={"on": True})
    assert done.status_code == 200 and done.json()["text"].startswith("Maintenance is on")
    tested = await api.post("/api/v1/pair/fence-test", json={"member": "m2"})
    assert tested.json()["passed"] is False and tested.json()["tests"][1]["error"] == "it refuses the password"
    assert bench.controller.requests == [
        {"op": "maintenance", "on": True},
        {"op": "fence-test", "member": "m2"},
    ]
    assert await audited(bench) == [("pair.fence-test", "m2"), ("pair.maintenance-on", "")]


async def test_refusal_keeps_its_hint(api: httpx.AsyncClient, replies: Any) -> None:
    replies["plan"] = {"ok": False, "error": "m2 could not be asked.", "hint": "Power it on."}
    answer = await api.get("/api/v1/pair/recover/plan")
    assert answer.status_code == 422 and answer.json()["hint"] == "Power it on."


async def test_state_is_explained_from_the_controllers_facts(api: httpx.AsyncClient, replies: Any) -> None:
    found = (await api.get("/api/v1/pair/explain")).json()
    assert found["why"] and found["what_if"] is None and "primary-power" in found["failures"]
    wrong = await api.get("/api/v1/pair/explain", params={"if": "the-weather"})
    assert wrong.status_code == 422 and "primary-power" in wrong.json()["hint"]


async def test_strangers_and_requests_without_the_token_are_turned_away(
    stranger: httpx.AsyncClient, new_client: NewClient, bench: Bench, replies: Any
) -> None:
    for path in ("recover/plan", "explain"):
        assert (await stranger.get(f"/api/v1/pair/{path}")).status_code == 401
    for path, body in (("maintenance", {"on": True}), ("fence-test", {})):
        assert (await stranger.post(f"/api/v1/pair/{path}", json=body)).status_code == 401
    person = new_client()
    await person.post("/api/v1/login", json={"account": "admin", "password": web_bench.PASSWORD})
    assert (await person.post("/api/v1/pair/maintenance", json={"on": True})).status_code == 403
    assert bench.controller.requests == []


@pytest.mark.parametrize(("language", "words"), [("en", "What will be done"), ("ja", "実行する手順")])
async def test_page_shows_the_plan_the_tests_and_the_answers(
    person: httpx.AsyncClient, bench: Bench, replies: Any, language: str, words: str
) -> None:
    person.headers["Accept-Language"] = language
    plan = (await person.get("/parts/pair/plan")).text
    assert words in plan and "undo on m2 what m1 never had" in plan and "same time servers" in plan
    assert "it refuses the password" in (await person.post("/parts/pair/fence-test")).text
    assert "Maintenance is on" in (await person.post("/parts/pair/maintenance?on=true")).text
    assert (await person.get("/parts/pair/explain")).text.count("<li>") >= 1
    bench.controller.status = web_bench.status(
        state="solo", protected=False, maintenance=True,
        recovery={"running": True, "member": "m2", "rung": "basebackup", "progress": "1 of 2 MiB", "percent": 50, "error": ""},
    )  # fmt: skip
    page = (await person.get("/")).text
    assert 'value="50"' in page and "m2" in page and 'hx-post="/parts/pair/maintenance?on=false"' in page
