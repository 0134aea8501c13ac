"""What changed: one look a second at the pair and at a few counters, told to everyone who listens.

However many pages are open, the controller and the database are asked once, and not at all while nobody listens. Each
listener has a short queue; one that does not read is let go, and comes back by itself. When this member stops to
serve, every listener is sent away at once, so that pages look for the new primary without waiting for a time-out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from futago.runtime.clock import now_utc
from futago.runtime.faults import FutagoFault
from futago.runtime.log import Log
from futago.store.commit import Store
from futago.web import queries
from futago.web.controller_link import ControllerLink
from futago.web.faults import NotServing
from futago.web.model import OperationStatus, PairStatus
from futago.web.serving import Serving

LOOK_S = 1.0
QUEUE_MAX = 32
LISTENERS_MAX = 200
# What moves all the time and is no news.
RESTLESS = {
    "utc": True,
    "journals": True,
    "members": {"__all__": {"replay_lag_bytes", "flush_lsn"}},
    "links": {"__all__": {"last_heard_ms"}},
    "fences": {"__all__": {"tested_ago_s"}},
}


@dataclass(frozen=True, slots=True)
class News:
    """One server-sent event."""

    event: str
    data: bytes


class Listener:
    """The queue of one stream; `None` in it says goodbye."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[News | None] = asyncio.Queue(maxsize=QUEUE_MAX)

    def tell(self, news: News) -> bool:
        """Queue one piece of news; return False if the listener does not read."""
        try:
            self.queue.put_nowait(news)
        except asyncio.QueueFull:
            return False
        return True

    def dismiss(self) -> None:
        """End the stream, whatever is still queued."""
        while not self.queue.empty():
            self.queue.get_nowait()
        self.queue.put_nowait(None)


class TooManyListeners(FutagoFault):
    """LISTENERS_MAX streams are open."""


class Pulse:
    """Looks, compares, tells."""

    def __init__(self, *, serving: Serving, controller: ControllerLink, log: Log) -> None:
        self._serving = serving
        self._controller = controller
        self._log = log
        self._listeners: set[Listener] = set()
        self._someone = asyncio.Event()
        self._latest: dict[str, News] = {}
        self._seen_pair = b""

    @contextmanager
    def listen(self) -> Iterator[Listener]:
        """Give a queue that first holds the latest of each kind of news, then everything new.

        Raises:
            TooManyListeners: no more streams are taken.
        """
        if len(self._listeners) >= LISTENERS_MAX:
            raise TooManyListeners(f"{LISTENERS_MAX} streams are open already")
        listener = Listener()
        for news in self._latest.values():
            listener.tell(news)
        self._listeners.add(listener)
        self._someone.set()
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            if not self._listeners:
                self._someone.clear()
                self._latest.clear()
                self._seen_pair = b""

    def publish_operation(self, status: OperationStatus) -> None:
        """Tell how far an operation on the pair is."""
        self._tell("operation", status.model_dump_json().encode())

    async def run(self) -> None:
        """Look every LOOK_S, and at once when the role changes, until cancelled."""
        role = self._serving.role
        while True:
            await self._someone.wait()
            await self._look()
            try:
                async with asyncio.timeout(LOOK_S):
                    role = await self._serving.changed(role)
            except TimeoutError:
                continue

    async def _look(self) -> None:
        try:
            store = self._serving.require().store
        except NotServing:
            self._dismiss_all()
            return
        self._tell("tick", msgspec.json.encode({"utc": now_utc()}), is_kept=False)
        try:
            self._tell_pair(await self._controller.status())
            await self._tell_counters(store)
        except FutagoFault as fault:
            self._log.warning("web.pulse", error=str(fault))

    def _tell_pair(self, status: PairStatus) -> None:
        essence = status.model_dump_json(by_alias=True, exclude=RESTLESS).encode()  # type: ignore[arg-type]
        if essence != self._seen_pair:
            self._seen_pair = essence
            self._tell("pair", status.model_dump_json(by_alias=True).encode())

    async def _tell_counters(self, store: Store) -> None:
        counters = await store.read(queries.counters, name="web.counters", deadline_s=2)
        data = msgspec.json.encode(counters)
        known = self._latest.get("counters")
        if known is None or known.data != data:
            self._tell("counters", data)

    def _tell(self, event: str, data: bytes, *, is_kept: bool = True) -> None:
        news = News(event, data)
        if is_kept:
            self._latest[event] = news
        for listener in tuple(self._listeners):
            if not listener.tell(news):
                listener.dismiss()
                self._listeners.discard(listener)

    def _dismiss_all(self) -> None:
        for listener in tuple(self._listeners):
            listener.dismiss()
        self._listeners.clear()
        self._someone.clear()
        self._latest.clear()
        self._seen_pair = b""
