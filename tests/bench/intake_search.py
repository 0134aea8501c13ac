"""How quickly kept messages are found: `python tests/bench/intake_search.py`, one JSON object a figure.

A million messages of 200 bytes (words of a vocabulary of 5,000, numbers, addresses) are kept as the intake keeps them, and
indexed as it indexes them, but for the newest segment. Then typical searches are made, each many times with other words:
a word of every tenth message, a rare word, a number that is there once, one that is nowhere, a phrase, a host, the newest
page, an hour of the past. The time is that of the whole answer of the search, pages of 100.

The same texts are made events, whose closed ranges are indexed as the intake does it, and searched likewise.

    intake.search_ms    kept messages
    events.search_ms    events
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "unit/intake")]

from intake import DURABLE  # noqa: E402
from intake_receive import say  # noqa: E402

import postgres_cluster  # noqa: E402
from futago.intake import event_text, kept  # noqa: E402
from futago.intake.kept import Kept  # noqa: E402
from futago.store import migrate  # noqa: E402
from futago.store.commit import Connection, Store  # noqa: E402
from futago.web import event_search, message_search  # noqa: E402
from futago.web.message_model import MessagePage, Messages  # noqa: E402
from futago.web.model import EventPage, Order  # noqa: E402

CHUNK = 10_000
BEGAN = datetime(2026, 11, 22, tzinfo=UTC)


class Corpus:
    """Messages whose words are known."""

    def __init__(self, count: int) -> None:
        self.chance = random.Random(11)
        self.count = count
        letters = "abcdefghijklmnopqrstuvwxyz"
        self.words = ["".join(self.chance.choices(letters, k=self.chance.randint(4, 10))) for _ in range(5000)]
        self.weights = [1 / (n + 3) for n in range(len(self.words))]

    def some(self, first: int, count: int) -> list[Kept]:
        """Return the next messages, a tenth of a second apart."""
        drawn = self.chance.choices(self.words, self.weights, k=16 * count)
        made = []
        for n in range(first, first + count):
            at = BEGAN + timedelta(milliseconds=100 * n)
            words = " ".join(drawn[16 * (n - first) : 16 * (n - first + 1)])
            text = f"{at:%b %d %H:%M:%S} web{n % 50:02d} app[{n % 30000}]: {words} SEQ={n:010d} from 10.{n % 200}.{n % 251}.7"
            made.append(Kept(int(at.timestamp() * 1000) * 10**6, f"web{n % 50:02d}", "10.0.0.1", "syslog", n % 8, text))
        return made

    def searches(self, repeats: int) -> dict[str, list[MessagePage]]:
        """Return what is asked, by the kind of question."""
        draw = self.chance
        hour = BEGAN + timedelta(milliseconds=50 * self.count)
        return {
            "frequent_word": [MessagePage(text=self.words[n % 40]) for n in range(repeats)],
            "rare_word": [MessagePage(text=draw.choice(self.words[4000:])) for _ in range(repeats)],
            "one_number": [MessagePage(text=f"SEQ={draw.randrange(self.count):010d}") for _ in range(repeats)],
            "nothing": [MessagePage(text=f"zzq{n}xx") for n in range(repeats)],
            "two_words": [MessagePage(text=" ".join(draw.sample(self.words[:300], 2))) for _ in range(repeats)],
            "host_and_word": [
                MessagePage(host=f"web{n % 50:02d}", text=draw.choice(self.words[:500])) for n in range(repeats)
            ],
            "newest": [MessagePage()] * repeats,
            "an_hour_of_the_past": [
                MessagePage(text=draw.choice(self.words[:500]), since_utc=hour, until_utc=hour + timedelta(hours=1))
                for _ in range(repeats)
            ],
        }


async def fill(store: Store, corpus: Corpus) -> None:
    """Keep all messages and index what is closed."""
    took_index = 0.0
    began = time.monotonic()
    for first in range(0, corpus.count, CHUNK):
        some = corpus.some(first, min(CHUNK, corpus.count - first))

        async def write(conn: Connection, some: list[Kept] = some) -> None:
            await kept.write(conn, some, today=BEGAN.date())

        await store.commit(write, name="bench.kept", deadline_s=120)
    took_write = time.monotonic() - began
    segments = await store.read(kept.load_segments, name="bench.segments")
    for segment in segments:
        if segment.is_closed:
            began = time.monotonic()

            async def index(conn: Connection, number: int = segment.segment) -> None:
                await kept.index(conn, number)

            await store.commit(index, name="bench.index", deadline_s=300)
            took_index += time.monotonic() - began
    size = await store.read(message_search.kept, name="bench.size")
    indexed = sum(segment.rows for segment in segments if segment.is_closed)
    say("intake.keep.per_s", corpus.count / took_write, with_generator=True)
    say(
        "intake.keep.index_us",
        took_index / max(indexed, 1) * 1e6,
        messages=indexed,
        bytes_a_message=size.bytes // size.rows,
    )


async def ask(store: Store, wanted: MessagePage) -> tuple[float, int]:
    """Return how long one search took in milliseconds, over all pages until something is found or all is searched."""

    async def work(conn: Connection) -> Messages:
        return await message_search.search(conn, wanted)

    began = time.monotonic()
    found = await store.read(work, name="bench.search")
    while not found.messages and found.next is not None:
        wanted = wanted.model_copy(update={"before": found.next})
        found = await store.read(work, name="bench.search")
    return (time.monotonic() - began) * 1000, len(found.messages)


async def fill_events(store: Store, corpus: Corpus) -> None:
    """Make all messages events and index what is closed."""
    began = time.monotonic()
    for first in range(0, corpus.count, CHUNK):
        some = corpus.some(first, min(CHUNK, corpus.count - first))

        async def write(conn: Connection, some: list[Kept] = some) -> None:
            columns = "occurred_utc, priority, source, monitor_name, host_name, message, epoch"
            async with conn.cursor().copy(f"COPY event ({columns}) FROM STDIN") as copy:
                for one in some:
                    at = datetime.fromtimestamp(one.received_ns / 1e9, UTC)
                    await copy.write_row((at, "info", "message", f"m{one.severity}", one.host, one.text, 1))

        await store.commit(write, name="bench.events", deadline_s=120)
    took_write, began, indexed = time.monotonic() - began, time.monotonic(), 0
    while (full := await store.read(event_text.full_range, name="bench.full")) is not None:

        async def close(conn: Connection, full: event_text.Range = full) -> None:
            await event_text.close(conn, full)

        await store.commit(close, name="bench.close", deadline_s=300)
        indexed += event_text.SEGMENT_ROWS
    took = time.monotonic() - began
    say("events.index_us", took / max(indexed, 1) * 1e6, events=indexed, write_s=round(took_write, 1))


async def ask_events(store: Store, asked: MessagePage) -> tuple[float, int]:
    """Return how long one search in events took in milliseconds, and how many it found."""
    page = EventPage(text=asked.text or None, host=asked.host, order=Order.DESCENDING, limit=asked.limit)

    async def work(conn: Connection) -> int:
        return len(await event_search.events(conn, page, owners=None))

    began = time.monotonic()
    found = await store.read(work, name="bench.search", deadline_s=120)
    return (time.monotonic() - began) * 1000, found


async def measure(conninfo: str, count: int, repeats: int, what: list[str]) -> None:
    store = await Store.open(conninfo=conninfo, application_name="bench")
    if "messages" in what:
        corpus = Corpus(count)
        await fill(store, corpus)
        await searched(store, corpus.searches(repeats), "intake.search_ms", ask, messages=count)
    if "events" in what:
        corpus = Corpus(count)
        await fill_events(store, corpus)
        searches = corpus.searches(repeats)
        del searches["an_hour_of_the_past"]  # events are asked for by id
        await searched(store, searches, "events.search_ms", ask_events, events=count)
    await store.close()


Ask = Callable[[Store, MessagePage], Awaitable[tuple[float, int]]]


async def searched(store: Store, kinds: dict[str, list[MessagePage]], figure: str, ask: Ask, **more: int) -> None:
    """Make all searches and say how long they took."""
    all_ms: list[float] = []
    by_kind: dict[str, dict[str, float]] = {}
    for kind, searches in kinds.items():
        took = sorted([await ask(store, wanted) for wanted in searches])
        times = [ms for ms, _ in took]
        found = sum(hits for _, hits in took) / len(took)
        by_kind[kind] = {"p50": round(times[len(times) // 2], 1), "p99": round(times[-1], 1), "found": round(found, 1)}
        all_ms += times
    all_ms.sort()
    p99 = all_ms[int(len(all_ms) * 0.99)]
    say(figure, all_ms[len(all_ms) // 2], p99=round(p99, 1), **more, kinds=by_kind)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--only", default="messages,events")
    args = parser.parse_args()
    postgres_cluster._SETTINGS |= DURABLE
    cluster = postgres_cluster.Cluster()
    try:
        cluster.create()
        migrate.upgrade(cluster.conninfo)
        asyncio.run(measure(cluster.conninfo, args.messages, args.repeats, args.only.split(",")))
    finally:
        cluster.destroy()


if __name__ == "__main__":
    main()
