"""Search over kept messages: by any part of the text, host, time and gravity, page after page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from futago.intake import kept
from futago.intake.kept import Kept
from futago.runtime.clock import S
from futago.store.commit import Connection, Store
from futago.web import message_search
from futago.web.message_model import MessagePage
from web_bench import Bench, until

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
async def filled(store: Store, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Twenty messages a minute apart, in segments of six; all but the newest two are indexed."""
    monkeypatch.setattr(kept, "SEGMENT_ROWS", 6)
    for n in range(20):
        kind, severity = ("snmptrap", None) if n % 7 == 3 else ("syslog", n % 8)
        at = NOON + timedelta(minutes=n)
        text = f"n={n} Link {'DOWN' if n % 2 else 'up'} 100% c:\\x_y 障害発生"
        one = Kept(int(at.timestamp()) * S, f"web{n % 3}", "10.0.0.1", kind, severity, text)
        await store.commit(lambda conn, one=one: kept.write(conn, [one], today=NOON.date()), name="t")  # type: ignore[misc]
    for segment in (1, 2):
        await store.commit(lambda conn, segment=segment: kept.index(conn, segment), name="t")  # type: ignore[misc]
    await until(lambda: bench.rooms.serving.health().serving)  # on a busy machine the role was not heard meanwhile
    return store


async def numbers(api: httpx.AsyncClient, **params: str | int) -> list[int]:
    answer = await api.get("/api/v1/messages", params=params)
    assert answer.status_code == 200, answer.text
    return [int(one["text"].split()[0].removeprefix("n=")) for one in answer.json()["messages"]]


async def test_any_part_of_a_text_is_found_in_any_case_the_newest_first(filled: Store, api: httpx.AsyncClient) -> None:
    assert await numbers(api, text="down") == list(range(19, 0, -2))
    assert await numbers(api, text="n=7 lin") == [7]
    assert await numbers(api, text='"link down" 害発') == list(range(19, 0, -2))
    assert await numbers(api, text="n=1 n=11") == [11]
    assert await numbers(api, text="100% x_y c:\\") == list(range(19, -1, -1))
    assert await numbers(api, text="x%y") == await numbers(api, text="n_1") == []


async def test_hosts_kinds_times_and_gravity_narrow_it(filled: Store, api: httpx.AsyncClient) -> None:
    assert await numbers(api, host="web1", kind="syslog", text="down") == [19, 13, 7, 1]
    assert await numbers(api, kind="snmptrap") == [17, 10, 3]
    assert await numbers(api, severity=1) == [16, 9, 8, 1, 0]
    span = {"since_utc": "2026-11-22T12:03:00Z", "until_utc": "2026-11-22T12:06:00Z"}
    assert await numbers(api, **span) == [5, 4, 3]


async def test_pages_follow_each_other_over_segments_and_when_time_is_over(
    filled: Store, api: httpx.AsyncClient
) -> None:
    first = (await api.get("/api/v1/messages", params={"limit": 8})).json()
    second = (await api.get("/api/v1/messages", params={"limit": 1000, "before": first["next"]})).json()
    assert len(first["messages"]) == 8
    assert second["next"] is None
    assert [m["message_id"] for m in first["messages"] + second["messages"]] == list(range(20, 0, -1))

    async def hurried(before: int | None) -> tuple[list[int], int | None]:
        async def work(conn: Connection) -> tuple[list[int], int | None]:
            page = await message_search.search(conn, MessagePage(text="down", before=before), answer_s=0)
            return [m.message_id for m in page.messages], page.next

        return await filled.read(work, name="t")

    found: list[int] = []
    pages, before = 1, None
    while True:
        more, before = await hurried(before)
        found += more
        if before is None:
            break
        pages += 1
    assert (pages, found) == (4, list(range(20, 0, -2)))


async def test_what_is_asked_is_checked_and_how_much_is_kept_is_said(
    filled: Store, api: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    for wrong in ({"limit": 0}, {"kind": "k" * 31}, {"since_utc": "noon"}, {"severity": 9}, {"txt": "a"}):
        assert (await api.get("/api/v1/messages", params=wrong)).status_code == 422, wrong
    assert (await stranger.get("/api/v1/messages")).status_code == 401
    said = (await api.get("/api/v1/messages/kept")).json()
    assert (said["rows"], said["segments"], said["not_indexed"]) == (20, 4, 2)
    assert said["bytes"] > 0
    assert said["from_utc"] == "2026-11-22T12:00:00Z"


async def test_events_are_found_by_their_text(api: httpx.AsyncClient) -> None:
    for text in ("Disk FULL", "disk fine", "100%"):
        assert (await api.post("/api/v1/events", json={"message": text})).status_code == 201
    found = (await api.get("/api/v1/events", params={"text": "DISK f"})).json()["events"]
    assert [event["message"] for event in found] == ["Disk FULL", "disk fine"]
    assert (await api.get("/api/v1/events/count", params={"text": "%"})).json()["count"] == 1
