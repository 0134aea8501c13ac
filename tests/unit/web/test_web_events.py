"""Events through the API: posted once, read in pages, refused when they cannot be stored."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from futago.store.commit import Connection
from web_bench import Bench


async def test_a_posted_event_is_a_row_that_says_who_posted_it(api: httpx.AsyncClient) -> None:
    new = {
        "message": "バッチが遅れています",
        "priority": "warning",
        "host": "web1",
        "occurred_utc": "2026-01-02T03:04:05+09:00",
        "detail": {"delay_s": 12},
    }
    answer = await api.post("/api/v1/events", json=new)
    assert (answer.status_code, answer.json()["repeated"]) == (201, False)
    (event,) = (await api.get("/api/v1/events")).json()["events"]
    assert event["event_id"] == answer.json()["event_id"]
    assert (event["message"], event["priority"], event["host_name"]) == (new["message"], "warning", "web1")
    assert (event["source"], event["epoch"]) == ("api", 7)
    assert event["occurred_utc"].startswith("2026-01-01T18:04:05")
    assert event["detail"] == {"delay_s": 12, "posted_by": "admin"}


async def test_the_same_key_at_the_same_time_makes_one_event(api: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "night-2026-01-02"}
    answers = await asyncio.gather(
        *(api.post("/api/v1/events", json={"message": "once"}, headers=key) for _ in range(8))
    )
    assert sorted(a.status_code for a in answers) == [200] * 7 + [201]
    assert len({a.json()["event_id"] for a in answers}) == 1
    assert (await api.get("/api/v1/events/count")).json()["count"] == 1


async def test_a_key_that_was_used_for_another_event_is_refused(api: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "k"}
    assert (await api.post("/api/v1/events", json={"message": "one"}, headers=key)).status_code == 201
    other = await api.post("/api/v1/events", json={"message": "two"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "event.key-used")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "body.message"),
        ({"message": ""}, "body.message"),
        ({"message": "x", "priority": "fatal"}, "body.priority"),
        ({"message": "x", "prioriti": "info"}, "body.prioriti"),
        ({"message": "x", "occurred_utc": "2026-01-02T03:04:05"}, "body.occurred_utc"),
        ({"message": "a\0b"}, "NUL"),
        ({"message": "x", "detail": {"a": "b\0c"}}, "NUL"),
    ],
)
async def test_an_event_that_cannot_be_stored_is_refused_with_its_place(
    api: httpx.AsyncClient, body: dict[str, object], place: str
) -> None:
    answer = await api.post("/api/v1/events", json=body)
    assert answer.status_code == 422, answer.text
    assert place in answer.json()["error"]


async def test_broken_json_is_refused_and_the_program_goes_on(api: httpx.AsyncClient) -> None:
    for content in (b"{", b"\xff\xfe", b"[1,2", b'{"message": "\\ud800"}', b"nonsense"):
        answer = await api.post("/api/v1/events", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code in {400, 422}, content
        assert answer.json()["code"].startswith(("request.", "event."))
    assert (await api.get("/api/v1/events/count")).json()["count"] == 0


async def test_pages_of_events_join_without_gap_or_overlap(api: httpx.AsyncClient, bench: Bench) -> None:
    await _fill(bench, 25_000)
    seen: list[int] = []
    after: int | None = 0
    while after is not None:
        page = (await api.get("/api/v1/events", params={"after": after, "limit": 10_000})).json()
        seen += [e["event_id"] for e in page["events"]]
        after = page["next"]
    assert len(seen) == 25_000
    assert seen == sorted(set(seen))
    newest = (await api.get("/api/v1/events", params={"order": "desc", "limit": 3})).json()
    assert [e["event_id"] for e in newest["events"]] == seen[:-4:-1]
    older = (await api.get("/api/v1/events", params={"order": "desc", "limit": 3, "before": newest["next"]})).json()
    assert [e["event_id"] for e in older["events"]] == seen[-4:-7:-1]


async def test_events_are_chosen_by_monitor_source_priority_and_host(api: httpx.AsyncClient, bench: Bench) -> None:
    await _fill(bench, 100)
    assert (await api.post("/api/v1/events", json={"message": "outside", "host": "db1"})).status_code == 201
    for wanted, count in (
        ({"monitor": "numbered"}, 100),
        ({"source": "message", "priority": "warning"}, 10),
        ({"source": "api"}, 1),
        ({"host": "db1"}, 1),
        ({"monitor": "nobody's"}, 0),
    ):
        assert len((await api.get("/api/v1/events", params={**wanted, "limit": 1000})).json()["events"]) == count
        assert (await api.get("/api/v1/events/count", params=wanted)).json()["count"] == count
    for wrong in ({"limit": 10_001}, {"limit": 0}, {"source": "nowhere"}, {"after": -1}, {"aftre": 1}):
        answer = await api.get("/api/v1/events", params=wrong)
        assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid"), wrong


async def _fill(bench: Bench, count: int) -> None:
    async def work(conn: Connection) -> None:
        await conn.execute(
            "INSERT INTO event (occurred_utc, priority, source, monitor_name, host_name, message, detail, epoch)"
            " SELECT now(), CASE WHEN n %% 10 = 0 THEN 'warning' ELSE 'info' END, 'message', 'numbered', 'web1',"
            " 'SEQ=' || n, jsonb_build_object('n', n), 7 FROM generate_series(1, %s) n",
            (count,),
        )

    await bench.store.commit(work, name="test.fill")
