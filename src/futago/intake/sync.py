"""Journal sync: each receiver streams its own journal to the other and keeps a copy of the other's.

Only what is synced here is sent; what arrives is acknowledged after it is synced there. A conversation resumes behind
what the copy has, of each incarnation, older ones first, so nothing is fetched twice and what a dead member's journal
still holds is delivered when it is back. Back-pressure: at most WINDOW_BYTES are on their way.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from futago.intake.consumed import Consumed
from futago.intake.copy import JournalCopy
from futago.intake.journal import folders
from futago.intake.model import Position
from futago.intake.own import OwnJournal
from futago.intake.reader import Bookmarks, JournalReader, Read
from futago.intake.wire import (
    BEAT_S,
    FRAME_BYTES_MAX,
    PROTOCOL_VERSION,
    SILENCE_S_MAX,
    Ack,
    Answer,
    Beat,
    DownstreamMessage,
    Have,
    Hello,
    Records,
    UpstreamMessage,
)
from futago.link.frames import FrameStream
from futago.link.tls import require
from futago.runtime.apart import apart
from futago.runtime.faults import ProtocolFault, RemoteProtocolFault
from futago.runtime.log import Log

WINDOW_BYTES = 8 << 20
READ_BYTES = 512 << 10
SMALL_BYTES = 64 << 10
GATHER_S = 0.01  # after a small block, gather for so long: half the frames, half the other's syncs
CONNECT_S_MAX = 2.0
HAVE_S_MAX = 5.0  # the other first makes durable what it holds
SILENCE_SLICES = 5
RETRY_S = 0.3
ALL = 1 << 62  # a sequence above every other
FRESH_S = 0.4  # `complete`: as of so long ago


M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Peer:
    """The other receiver: its name in certificates, and its addresses, the preferred first."""

    name: str
    addresses: tuple[str, ...]
    port: int


@dataclass(slots=True)
class PeerClock:
    """How far the other's steady clock is ahead of ours, by the exchange with the shortest round trip of the last."""

    zero_ns: int = 0
    samples: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=8))  # (round trip, ahead)

    def measure(self, answer: Answer, now_ns: int) -> None:
        """Take one exchange into account."""
        if answer.zero_ns != self.zero_ns:
            self.zero_ns = answer.zero_ns
            self.samples.clear()
        trip = (now_ns - answer.echo_ns) - (answer.replied_ns - answer.received_ns)
        ahead = ((answer.received_ns - answer.echo_ns) + (answer.replied_ns - now_ns)) // 2
        self.samples.append((trip, ahead))

    @property
    def ahead_ns(self) -> int | None:
        """None before the first exchange."""
        return min(self.samples)[1] if self.samples else None


class Upstream:
    """Streams the own journal to the peer's copy.

    Args:
        journal: the own journal; `root` is where it is.
        pair_id, context: who the other must be, and how to speak to it.
        consumed: what had its effect already; learned from and told to the other.
    """

    def __init__(
        self,
        *,
        journal: OwnJournal,
        root: Path,
        pair_id: str,
        context: ssl.SSLContext,
        consumed: Consumed,
        log: Log,
    ) -> None:
        self._journal = journal
        self._root = root
        self._pair_id = pair_id
        self._context = context
        self._consumed = consumed
        self._log = log
        self.peer: Peer | None = None
        self.is_connected = False
        self.acked: Position | None = None
        self.clock = PeerClock()
        self.on_acked: Callable[[], None] = lambda: None
        self.conversations = 0
        self.damaged = 0  # places of the own journal that were passed over while it was sent
        self.last_error = ""
        self._bookmarks = Bookmarks()
        self._news = asyncio.Event()  # something was synced here, or acknowledged there
        self._unacked: deque[tuple[Position, int]] = deque()
        self._unacked_bytes = 0
        self._history: deque[tuple[float, int]] = deque(maxlen=32)

    def synced(self) -> None:
        """Something was synced here (from any thread by call_soon_threadsafe)."""
        self._news.set()

    def note_time(self, now_s: float) -> None:
        """Remember what is synced now, for `is_complete`; a few times a second."""
        self._history.append((now_s, self._journal.synced_sequence))

    def is_complete(self, now_s: float) -> bool:
        """Return whether the peer has what was synced here up to FRESH_S ago."""
        acked = self.acked
        if not self.is_connected or acked is None or acked.incarnation != self._journal.incarnation.id:
            return False
        past = [sequence for at, sequence in self._history if at <= now_s - FRESH_S]
        return bool(past) and acked.sequence >= past[-1]

    async def run(self) -> None:
        """Keep a conversation with the peer going until cancelled."""
        while True:
            peer = self.peer
            for address in peer.addresses if peer else ():
                assert peer is not None
                await self._attempt(peer, address)
                if self.peer != peer:
                    break
            await asyncio.sleep(RETRY_S)

    async def _attempt(self, peer: Peer, address: str) -> None:
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                reader, writer = await asyncio.open_connection(address, peer.port, ssl=self._context)
        except (OSError, TimeoutError, ssl.SSLError) as e:
            self.last_error = f"{address}: {str(e) or type(e).__name__}"
            return
        stream: FrameStream[DownstreamMessage] = FrameStream(
            reader, writer, DownstreamMessage, frame_bytes_max=FRAME_BYTES_MAX
        )
        await guarded(lambda: self._conversation(stream, peer), self._ended)
        self.is_connected = False
        await stream.close()

    def _ended(self, why: str) -> None:
        if self.is_connected:
            self._log.warning("sync.upstream_ended", error=why)
        self.last_error = why

    async def _conversation(self, stream: FrameStream[DownstreamMessage], peer: Peer) -> None:
        require(stream.writer, pair_id=self._pair_id, kind="member", name=peer.name)
        await stream.send(Hello(PROTOCOL_VERSION, self._journal.incarnation))
        have = await heard(stream, within_s=HAVE_S_MAX)
        if not isinstance(have, Have) or have.version != PROTOCOL_VERSION:
            raise RemoteProtocolFault("the conversation did not begin with what the copy has")
        self._begin(have)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(stream))
            group.create_task(self._beat(stream))
            group.create_task(self._stream(stream, have, peer))

    def _begin(self, have: Have) -> None:
        own = self._journal.incarnation.id
        self.acked = Position(own, have.last.get(own, 0)) if own in have.last else None
        self._unacked.clear()
        self._unacked_bytes = 0
        self.is_connected = True
        self.conversations += 1
        self.last_error = ""
        self._log.event("sync.upstream_connected", incarnations=len(have.last))

    async def _listen(self, stream: FrameStream[DownstreamMessage]) -> None:
        while True:
            message = await heard(stream)
            if isinstance(message, Ack):
                self._acknowledged(Position(message.incarnation, message.last))
            elif isinstance(message, Answer):
                self.clock.measure(message, self._journal.clock.now_ns())
                self._consumed.learn(message.consumed)
            else:
                raise RemoteProtocolFault("the copy said again what it has")

    def _acknowledged(self, position: Position) -> None:
        self.acked = position
        while self._unacked:
            sent, size = self._unacked[0]
            if sent.incarnation == position.incarnation and sent.sequence > position.sequence:
                break
            self._unacked.popleft()
            self._unacked_bytes -= size
            if sent == position:
                break
        self._news.set()
        self.on_acked()

    async def _beat(self, stream: FrameStream[DownstreamMessage]) -> None:
        while True:
            journal = self._journal
            await stream.send(
                Beat(journal.clock.now_ns(), journal.incarnation.id, journal.synced_sequence, self._consumed.positions)
            )
            await asyncio.sleep(BEAT_S)

    async def _stream(self, stream: FrameStream[DownstreamMessage], have: Have, peer: Peer) -> None:
        reader = JournalReader(self._root, self._after(have), is_raw=True, bookmarks=self._bookmarks)
        own = self._journal.incarnation.id
        try:
            while self.peer == peer:
                self._news.clear()
                if self._unacked_bytes < WINDOW_BYTES:
                    through = Position(own, self._journal.synced_sequence)
                    found = reader.read(bytes_max=READ_BYTES, through=through)
                    if found is not None:
                        self.damaged += found.passed
                        await self._send(stream, found)
                        if len(found.raw) < SMALL_BYTES:
                            await asyncio.sleep(GATHER_S)
                        continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await self._news.wait()
        finally:
            reader.close()
        raise RemoteProtocolFault("the pair's settings changed")

    def _after(self, have: Have) -> dict[str, int]:
        """Return where to begin: behind what the copy has and behind what had its effect.

        Older incarnations are always completed before a newer one is begun, so all before the newest that the copy
        knows are in it.
        """
        after = self._consumed.behind(have.last)
        known = folders(self._root)
        newest = max((one.ordinal for one in known if one.id in have.last), default=0)
        return after | {one.id: ALL for one in known if one.ordinal < newest}

    async def _send(self, stream: FrameStream[DownstreamMessage], found: Read) -> None:
        self._unacked.append((Position(found.incarnation.id, found.last), len(found.raw)))
        self._unacked_bytes += len(found.raw)
        await stream.send(Records(found.incarnation, found.first, found.last, found.raw))


class Downstream:
    """Answers the peer's receiver and keeps the copy of its journal.

    Args:
        copy: the copy on this disk.
        own: gives this receiver's steady clock.
    """

    def __init__(self, *, copy: JournalCopy, own: OwnJournal, pair_id: str, consumed: Consumed, log: Log) -> None:
        self._copy = copy
        self._own = own
        self._pair_id = pair_id
        self._consumed = consumed
        self._log = log
        self.peer: Peer | None = None
        self.is_connected = False
        self.refused = 0
        self.last_error = ""
        self._current: asyncio.Task[None] | None = None
        self._announced: deque[tuple[float, Position]] = deque(maxlen=32)
        self._beat_at_s = 0.0

    def is_complete(self, now_s: float) -> bool:
        """Return whether the copy has what the peer said to have synced up to FRESH_S ago."""
        if not self.is_connected or now_s - self._beat_at_s > 1.0:
            return False
        past = [position for at, position in self._announced if at <= now_s - FRESH_S]
        return bool(past) and self._copy.has(past[-1])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hold one conversation; a newer one of the same peer takes the place of an older."""
        stream: FrameStream[UpstreamMessage] = FrameStream(
            reader, writer, UpstreamMessage, frame_bytes_max=FRAME_BYTES_MAX
        )
        try:
            await guarded(lambda: self._admitted(stream), self._ended)
        finally:
            await stream.close()

    def _ended(self, why: str) -> None:
        self.last_error = why

    async def _admitted(self, stream: FrameStream[UpstreamMessage]) -> None:
        try:
            if self.peer is None:
                raise RemoteProtocolFault("this member has no peer yet")
            require(stream.writer, pair_id=self._pair_id, kind="member", name=self.peer.name)
        except RemoteProtocolFault as e:
            self.refused += 1
            self._log.warning("sync.refused", error=str(e))
            raise
        older, self._current = self._current, asyncio.current_task()
        if older is not None and not older.done():
            older.cancel()
            await asyncio.wait({older}, timeout=5)
        try:
            await self._conversation(stream)
        finally:
            if self._current is asyncio.current_task():
                self.is_connected = False

    async def _conversation(self, stream: FrameStream[UpstreamMessage]) -> None:
        hello = await heard(stream)
        if not isinstance(hello, Hello) or hello.version != PROTOCOL_VERSION:
            raise RemoteProtocolFault("the conversation did not begin with a hello that is known here")
        await self._copy.settle()
        await stream.send(Have(PROTOCOL_VERSION, dict(self._copy.last)))
        self._announced.clear()
        self.is_connected = True
        self._log.event("sync.downstream_connected", incarnation=hello.incarnation.id)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(stream))
            group.create_task(self._acknowledge(stream))

    async def _listen(self, stream: FrameStream[UpstreamMessage]) -> None:
        while True:
            message = await heard(stream)
            received_ns = self._own.clock.now_ns()
            if isinstance(message, Records):
                self._copy.append(message)
                await self._copy.room()
            elif isinstance(message, Beat):
                self._beat_at_s = asyncio.get_running_loop().time()
                self._announced.append((self._beat_at_s, Position(message.incarnation, message.synced)))
                self._consumed.learn(message.consumed)
                zero_ns = self._own.incarnation.zero_ns
                stream.post(
                    Answer(message.sent_ns, received_ns, self._own.clock.now_ns(), zero_ns, self._consumed.positions)
                )
            else:
                raise RemoteProtocolFault("a second hello")

    async def _acknowledge(self, stream: FrameStream[UpstreamMessage]) -> None:
        said: Position | None = None
        while True:
            synced = await self._copy.synced_after(said)
            await stream.send(Ack(synced.incarnation, synced.sequence))
            said = synced


async def heard(stream: FrameStream[M], *, within_s: float = SILENCE_S_MAX) -> M:
    """Return the next message.

    Silence is counted in slices, and between them what has come is read: a loop that was itself held up for long, by a
    frozen machine or by more work than it can do, does not take that for the silence of the other.

    Raises:
        TimeoutError: the other was silent. Else as `FrameStream.receive`.
    """
    receiving = asyncio.ensure_future(stream.receive())
    try:
        for _ in range(SILENCE_SLICES):
            done, _ = await asyncio.wait({receiving}, timeout=within_s / SILENCE_SLICES)
            if done:
                return receiving.result()
    finally:
        receiving.cancel()
    raise TimeoutError(f"silent for {within_s:g} s")


async def guarded(conversation: Callable[[], Coroutine[Any, Any, None]], ended: Callable[[str], None]) -> None:
    """Run a conversation until it ends, for whatever reason of the network or of the other side."""
    try:
        await apart(conversation())
    except (OSError, EOFError, TimeoutError, ssl.SSLError, ProtocolFault) as e:
        ended(str(e) or type(e).__name__)
    except BaseExceptionGroup as group:
        expected, rest = group.split((OSError, EOFError, TimeoutError, ssl.SSLError, ProtocolFault))
        if rest is not None:
            raise
        ended("; ".join(str(e) or type(e).__name__ for e in expected.exceptions) if expected else "")
