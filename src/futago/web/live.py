"""Messages as they come, for everyone who looks on: the journals of this member are read once for all of them.

Nothing is read while nobody listens. Everything is bounded: what is read in one look, what one listener gets of it, and
how much waits for a listener who is slow. What is left out is counted and told; `futago tail` leaves nothing out. When
this member stops to serve, every listener is sent away, so that pages look for the new primary.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec

from futago.intake.mib_store import load_names
from futago.intake.model import Protocol
from futago.intake.watch import Shown, Watch, of_this_member
from futago.runtime.clock import S, now_at
from futago.runtime.faults import FutagoFault
from futago.runtime.log import Log
from futago.setup.settings import Settings
from futago.store.commit import Connection
from futago.web.faults import NotServing
from futago.web.message_model import MessageFilter
from futago.web.message_search import parts
from futago.web.pulse import News, TooManyListeners
from futago.web.serving import Serving

LOOK_S = 0.25
READS_MAX = 2  # of a quarter megabyte, of each journal, a look: some 8,000 messages a second are shown
SHOWN_MAX = 200  # to one listener, of one look: nobody reads faster
QUEUE_MAX = 40  # looks that wait for a listener
LISTENERS_MAX = 50
HOSTS_EVERY_S = 10
TEXT_CHARS_MAX = 4096


class LiveMessage(msgspec.Struct, frozen=True):
    """One message, as the stream tells it."""

    received_utc: datetime
    host_name: str
    address: str
    kind: str
    text: str


class LiveMessages(msgspec.Struct, frozen=True):
    """What one look found; `skipped`: how many messages were left out before or among them, about."""

    messages: list[LiveMessage]
    skipped: int


class Onlooker:
    """One stream: what it wants, and what waits for it. `None` in the queue says goodbye."""

    def __init__(self, wanted: MessageFilter) -> None:
        self._kind, self._host = wanted.kind, wanted.host
        self._parts = [part.lower() for part in parts(wanted.text)]
        self._left_out = 0
        self.queue: asyncio.Queue[News | None] = asyncio.Queue(maxsize=QUEUE_MAX)

    def tell(self, found: Sequence[LiveMessage], skipped: int) -> None:
        """Queue what is wanted of it; an empty piece shows that we are alive."""
        wanted = [one for one in found if self._wants(one)]
        self._left_out += skipped + max(0, len(wanted) - SHOWN_MAX)
        shown = wanted[-SHOWN_MAX:]
        try:
            self.queue.put_nowait(News("messages", msgspec.json.encode(LiveMessages(shown, self._left_out))))
            self._left_out = 0
        except asyncio.QueueFull:
            self._left_out += len(shown)

    def dismiss(self) -> None:
        """End the stream, whatever is still queued."""
        while not self.queue.empty():
            self.queue.get_nowait()
        self.queue.put_nowait(None)

    def _wants(self, one: LiveMessage) -> bool:
        if (self._kind is not None and one.kind != self._kind) or (
            self._host is not None and self._host not in (one.host_name, one.address)
        ):
            return False
        if not self._parts:
            return True
        text = one.text.lower()
        return all(part in text for part in self._parts)


class Live:
    """Looks, and tells who listens."""

    def __init__(self, *, settings: Settings, serving: Serving, log: Log) -> None:
        self._settings = settings
        self._serving = serving
        self._log = log
        self._onlookers: set[Onlooker] = set()
        self._someone = asyncio.Event()
        self._hosts: dict[str, str] = {}
        self._hosts_at = 0

    @contextmanager
    def listen(self, wanted: MessageFilter) -> Iterator[Onlooker]:
        """Give a queue of what comes from now on.

        Raises:
            TooManyListeners: no more streams are taken.
        """
        if len(self._onlookers) >= LISTENERS_MAX:
            raise TooManyListeners(f"{LISTENERS_MAX} live views are open already")
        made = Onlooker(wanted)
        self._onlookers.add(made)
        self._someone.set()
        try:
            yield made
        finally:
            self._onlookers.discard(made)
            if not self._onlookers:
                self._someone.clear()

    async def run(self) -> None:
        """Look while someone listens, until cancelled."""
        while True:
            await self._someone.wait()
            try:
                await self._follow()
            except NotServing:
                self._dismiss_all()
            except (FutagoFault, OSError) as fault:
                self._log.warning("web.live", error=str(fault))
                await asyncio.sleep(LOOK_S)

    async def _follow(self) -> None:
        names = await self._serving.require().store.read(load_names, name="web.live_mibs", deadline_s=5)
        watch = await asyncio.to_thread(of_this_member, self._settings, names)
        try:
            await asyncio.to_thread(watch.skip)
            while self._onlookers:
                await self._look(watch)
                await asyncio.sleep(LOOK_S)
        finally:
            watch.close()

    async def _look(self, watch: Watch) -> None:
        try:
            store = self._serving.require().store
        except NotServing:
            self._dismiss_all()
            return
        if now_at() > self._hosts_at:
            self._hosts_at = now_at() + HOSTS_EVERY_S * S
            self._hosts = await store.read(_hosts, name="web.live_hosts", deadline_s=2)
        found, skipped = await asyncio.to_thread(watch.poll_some, READS_MAX)
        made = [self._made(one) for one in found]
        for onlooker in tuple(self._onlookers):
            onlooker.tell(made, skipped)

    def _made(self, one: Shown) -> LiveMessage:
        kind = "snmptrap" if one.protocol is Protocol.SNMP_UDP else "syslog"
        at = datetime.fromtimestamp(one.at_ns / 1e9, UTC)
        return LiveMessage(at, self._hosts.get(one.source, one.source), one.source, kind, one.text[:TEXT_CHARS_MAX])

    def _dismiss_all(self) -> None:
        for onlooker in self._onlookers:
            onlooker.dismiss()
        self._onlookers.clear()
        self._someone.clear()


async def _hosts(conn: Connection) -> dict[str, str]:
    found = await conn.execute("SELECT host(address), host_name FROM host WHERE address IS NOT NULL")
    return {row[0]: row[1] for row in await found.fetchall()}
