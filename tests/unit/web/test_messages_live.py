"""Messages as they come, in the browser: filtered, bounded, and gone to look elsewhere when the member stops to serve."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from journals import Journal
from test_web_stream import Heard, listening

from futago.intake.options import Snmp
from futago.intake.watch import Watch
from futago.setup import paths
from futago.store.commit import Store
from futago.web import live
from futago.web.live import LiveMessage, Onlooker
from futago.web.message_model import MessageFilter
from web_bench import STANDBY, Bench, until


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    monkeypatch.setattr(paths, "JOURNAL_OWN", tmp_path / "own")
    monkeypatch.setattr(paths, "JOURNAL_PEER", tmp_path / "peer")
    made = Journal(tmp_path / "own", tmp_path / "peer")
    made.add(b"<13>before anyone looked")
    yield made
    made.close()


@pytest.fixture
async def following(bench: Bench) -> AsyncIterator[Bench]:
    task = asyncio.create_task(bench.rooms.live.run())
    yield bench
    task.cancel()


async def texts(heard: Heard, count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        _, data = await heard.next("messages")
        found += [str(one["text"]) for one in data["messages"]]  # type: ignore[attr-defined]
    return found


async def test_what_comes_is_told_once_to_those_who_want_it_and_not_what_was_before(
    following: Bench, journal: Journal
) -> None:
    async with listening(following) as client:
        wanted = {"text": 'LINK "3 down"', "host": "10.0.0.50"}
        async with client.stream("GET", "/api/v1/messages/stream", params=wanted) as answer:
            heard = Heard(answer)
            assert (await heard.next("hello"))[1]["member"] == "m1"
            await heard.next("messages")
            journal.add(b"<13>link 3 down", b"<13>link 4 down")
            journal.add(b"<13>link 3 down, elsewhere", source="10.0.0.51")
            journal.add("<13>last link 3 down 障害".encode("cp932"))
            assert await texts(heard, 2) == ["link 3 down", "last link 3 down 障害"]


async def test_a_member_that_stops_to_serve_sends_its_onlookers_away(following: Bench, journal: Journal) -> None:
    async with listening(following) as client, client.stream("GET", "/api/v1/messages/stream") as answer:
        heard = Heard(answer)
        await heard.next("messages")
        following.controller.become(STANDBY)
        await heard.rest()


async def test_what_is_asked_is_checked(api: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    assert (await api.get("/api/v1/messages/stream", params={"limit": 5})).status_code == 422
    assert (await stranger.get("/api/v1/messages/stream")).status_code == 401


def message(text: str) -> LiveMessage:
    from futago.runtime.clock import now_utc

    return LiveMessage(now_utc(), "web1", "10.0.0.1", "syslog", text)


def test_a_slow_onlooker_and_a_flood_are_bounded_and_what_is_left_out_is_counted() -> None:
    slow = Onlooker(MessageFilter())
    for n in range(live.QUEUE_MAX + 3):
        slow.tell([message(str(n))], 0)
    assert slow.queue.qsize() == live.QUEUE_MAX
    while not slow.queue.empty():
        slow.queue.get_nowait()
    slow.tell([message("x")] * (live.SHOWN_MAX + 7), 5)
    news = slow.queue.get_nowait()
    assert news is not None
    assert news.data.count(b'"text"') == live.SHOWN_MAX
    assert news.data.endswith(b'"skipped":15}')


def test_a_look_at_a_flood_shows_some_of_it_and_counts_the_rest(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "own")
    journal.add(b"<13>first")
    watch = Watch({"m1": tmp_path / "own"}, Snmp())
    watch.skip()
    assert watch.poll_some(2) == ([], 0)
    pad = b"x" * 900
    for n in range(20):
        journal.add(*(b"<13>%06d %b" % (100 * n + k, pad) for k in range(100)))
    found, skipped = watch.poll_some(2)
    assert 400 < len(found) < 600
    assert len(found) + skipped == 2000
    journal.add(b"<13>next")
    assert [one.text for one in watch.poll_some(2)[0]] == ["next"]
    watch.close()
    journal.close()


@pytest.mark.parametrize("language", ["en", "ja"])
async def test_the_page_shows_what_is_kept_and_what_is_found(
    person: httpx.AsyncClient, bench: Bench, store: Store, language: str
) -> None:
    from test_message_search import NOON, Kept, kept

    many = [Kept(int(NOON.timestamp()) * 10**9 + n, "web1", "10.0.0.1", "syslog", 3, f"<b>{n}</b>") for n in range(205)]
    await store.commit(lambda conn: kept.write(conn, many, today=NOON.date()), name="t")
    await until(lambda: bench.rooms.serving.health().serving)
    person.cookies.set("futago-language", language)
    page = await person.get("/messages")
    assert page.status_code == 200
    assert "&lt;b&gt;204&lt;/b&gt;" in page.text
    assert "before=6" in page.text
    older = await person.get("/parts/messages", params={"before": 6, "text": "", "host": "", "kind": "syslog"})
    assert older.text.count("<tr>") == 6
    nothing = await person.get("/parts/messages", params={"text": "absent"})
    assert "keep: true" in nothing.text
