"""Heartbeats between the two members: what each says of itself, every h, on every link.

Lives here: the datagram's form, its proof of origin, and the bookkeeping that turns datagrams into the fact `Peer`.
Must not live here: what silence means (cluster/decide.py). The idea: two people in the dark who keep saying "I am
here, and I last heard your word number 17". Only an answer to a recent word of mine proves that a voice is not an
echo of yesterday.

A datagram is msgpack of `Wire` and 32 bytes of HMAC-SHA256 over it. Replays are refused by (boot, sequence): a
sequence is the sender's microseconds since boot, so it grows across restarts of the controller, and a boot not seen
before is believed only when it echoes a recent word of ours. Source of the echo idea: RFC 5880 (BFD), section 6.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import hmac
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from futago.cluster.model import At, Heartbeat, Link, MemberName, Peer
from futago.runtime.clock import S, now_at
from futago.runtime.faults import RemoteProtocolFault
from futago.runtime.log import Log
from futago.runtime.unreadable import UNREADABLE
from futago.setup import paths

TAG_BYTES = 32
DATAGRAM_BYTES_MAX = 4096  # a heartbeat has about 400
DRAIN_MAX = 64  # datagrams taken in one turn of the loop, so that a flood cannot hold it
ECHO_AGE_MAX = 10 * S  # a boot not seen before must echo a word of ours that is younger
BOOTS_MAX = 64  # ended boots of the peer that are remembered, so that their words are never believed again
COMPLAINT_EVERY = 10 * S
VERSION = 1
_IP_FREEBIND = 15  # linux/in.h
_SIOCGIFADDR = 0x8915  # linux/sockios.h


class Wire(msgspec.Struct, frozen=True, array_like=True):
    """One datagram: the envelope of a heartbeat.

    Sequences are microseconds of the sender's CLOCK_BOOTTIME. `echo_boot` and `echo_seq` name the newest word that
    the sender has heard on this link.
    """

    version: int
    pair: str
    link: str
    echo_boot: str
    echo_seq: int
    is_bye: bool
    program: str  # version of the sender's software, for status
    heartbeat: Heartbeat
    roster: int = 0  # version of the jury in the sender's settings


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Wire)


def seal(wire: Wire, key: bytes) -> bytes:
    """Return the datagram that carries `wire`."""
    body = _encoder.encode(wire)
    return body + hmac.digest(key, body, hashlib.sha256)


def unseal(datagram: bytes, key: bytes) -> Wire:
    """Return what a datagram carries.

    Raises:
        RemoteProtocolFault: too short, too long, a wrong seal, or not a heartbeat; its first word is the counter's
        name.
    """
    if not TAG_BYTES < len(datagram) <= DATAGRAM_BYTES_MAX:
        raise RemoteProtocolFault("size of datagram")
    body, tag = datagram[:-TAG_BYTES], datagram[-TAG_BYTES:]
    if not hmac.compare_digest(hmac.digest(key, body, hashlib.sha256), tag):
        raise RemoteProtocolFault("seal is wrong")
    try:
        return _decoder.decode(body)
    except (OverflowError, *UNREADABLE) as e:
        raise RemoteProtocolFault(f"form is wrong: {e}") from e


@dataclass(slots=True)
class _LinkWatch:
    """One link's bookkeeping: what we heard on it and what the peer heard of us."""

    name: str
    boot: str = ""
    seq: int = 0
    rx_at: At | None = None
    echo_at: At | None = None


class PeerWatch:
    """Turns the peer's words into the fact `Peer`. Pure: the caller brings datagrams and instants.

    Args:
        pair: the pair's id; own: our name; peer: the other's name; boot: our own boot; links: their names.
    """

    def __init__(
        self, *, pair: str, own: MemberName, peer: MemberName, boot: str, links: tuple[str, ...], key: bytes, now: int
    ) -> None:
        self._pair, self._own, self._peer, self._boot, self._key = pair, own, peer, boot, key
        self._links = {name: _LinkWatch(name) for name in links}
        self._peer_boot = ""
        self._ended_boots: deque[str] = deque(maxlen=BOOTS_MAX)
        self._seq_sent = 0
        self._seq_newest = 0
        self.program = ""
        self.roster = 0
        self.refused: Counter[str] = Counter()
        self.peer = Peer(watching_since=At(now), links=self._facts())

    def _facts(self) -> tuple[Link, ...]:
        return tuple(Link(name=w.name, rx_at=w.rx_at, echo_at=w.echo_at) for w in self._links.values())

    def datagram(
        self, link: str, heartbeat: Heartbeat, *, now: int, program: str = "", is_bye: bool = False, roster: int = 0
    ) -> bytes:
        """Return the next datagram for `link`; `heartbeat.boot` and `.seq` are filled in here."""
        self._seq_sent = max(self._seq_sent + 1, now // 1000)
        word = replace(heartbeat, boot=self._boot, seq=self._seq_sent)
        watch = self._links[link]
        wire = Wire(VERSION, self._pair, link, watch.boot, watch.seq, is_bye, program, word, roster)
        return seal(wire, self._key)

    def receive(self, link: str, datagram: bytes, *, now: int) -> bool:
        """Take in one datagram that came on `link`; return whether what the peer says of itself has changed.

        Raises:
            RemoteProtocolFault: it is not a fresh word of the peer; nothing has changed.
        """
        wire = unseal(datagram, self._key)
        word, watch = wire.heartbeat, self._links[link]
        if (wire.version, wire.pair, wire.link, word.member) != (VERSION, self._pair, link, self._peer):
            raise RemoteProtocolFault(
                f"stranger: version {wire.version}, pair {wire.pair}, {word.member} on {wire.link}"
            )
        if word.boot in self._ended_boots or (word.boot == watch.boot and word.seq <= watch.seq):
            raise RemoteProtocolFault("replay of an old word")
        watch.boot, watch.seq = word.boot, word.seq  # echoed from now on, whether believed or not
        is_answer = wire.echo_boot == self._boot and 0 <= now - wire.echo_seq * 1000 <= ECHO_AGE_MAX
        if word.boot != self._peer_boot and not self._adopt(word.boot, is_answer=is_answer):
            return False
        return self._believe(watch, wire, now=now)

    def _adopt(self, boot: str, *, is_answer: bool) -> bool:
        if not is_answer:
            return False  # it may be a recording: our echo goes out, and its answer will prove it
        if self._peer_boot:
            self._ended_boots.append(self._peer_boot)
        self._peer_boot, self._seq_newest = boot, 0
        for watch in self._links.values():
            watch.echo_at = None
        return True

    def _believe(self, watch: _LinkWatch, wire: Wire, *, now: int) -> bool:
        before, word = self.peer.heartbeat, wire.heartbeat
        watch.rx_at = At(now)
        if wire.echo_boot == self._boot:
            watch.echo_at = At(max(watch.echo_at or 0, min(wire.echo_seq * 1000, now)))
        if word.seq < self._seq_newest:  # a slower link brought an older word: the link lives, the content is stale
            self.peer = replace(self.peer, links=self._facts(), heard_at=At(now))
            return False
        self._seq_newest, self.program, self.roster = word.seq, wire.program, wire.roster
        is_unfit = not (word.is_fit and word.is_able)
        has_new_wants = before is None or before.wants != word.wants
        self.peer = replace(
            self.peer,
            heartbeat=word,
            heard_at=At(now),
            links=self._facts(),
            said_bye=wire.is_bye,
            unfit_since=(self.peer.unfit_since or At(now)) if is_unfit else None,
            wants_since=None if word.wants is None else At(now) if has_new_wants else self.peer.wants_since,
        )
        return before is None or replace(before, seq=word.seq) != word

    def count_refused(self, fault: RemoteProtocolFault) -> str:
        """Count a refused datagram under the first word of its reason; return that word."""
        kind = str(fault).split(" ", 1)[0].rstrip(":")
        self.refused[kind] += 1
        return kind


def _device_of(address: str) -> bytes | None:
    """Return the interface that holds `address` as its first address, None if no interface does."""
    wanted = socket.inet_aton(address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(s, _SIOCGIFADDR, struct.pack("256s", name.encode()))
                if answer[20:24] == wanted:
                    return name.encode()
    return None


@dataclass(frozen=True, slots=True)
class Path:
    """The two ends of a link."""

    name: str
    own: str
    peer: str


class _Port:
    """The socket of one link, made again after trouble; all calls return at once."""

    def __init__(self, path: Path, port: int, on_ready: Callable[[str], None]) -> None:
        self.path = path
        self._port = port
        self._on_ready = on_ready
        self.socket: socket.socket | None = None
        self.errors = 0

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            device = _device_of(self.path.own)
            if device is not None:
                with contextlib.suppress(PermissionError):  # without the capability the local address must do
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
            s.bind((self.path.own, self._port))
        except OSError:
            s.close()
            self.errors += 1
            return
        self.socket = s
        loop.add_reader(s.fileno(), self._on_ready, self.path.name)

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.socket is not None:
            loop.remove_reader(self.socket.fileno())
            self.socket.close()
            self.socket = None

    def send(self, datagram: bytes, loop: asyncio.AbstractEventLoop) -> None:
        if self.socket is None:
            self.open(loop)
        if self.socket is None:
            return
        try:
            self.socket.sendto(datagram, (self.path.peer, self._port))
        except OSError:  # link down, no route, full buffer: the next word goes out on a fresh socket
            self.errors += 1
            self.close(loop)


class HeartbeatEndpoint:
    """Sends our word on every link each `h`, and at once when told to; feeds a `PeerWatch` with what comes in.

    Args:
        watch: the peer's bookkeeping; compose: returns our present word; on_change: called when the peer's word
        changed.
    """

    def __init__(
        self,
        *,
        watch: PeerWatch,
        links: tuple[Path, ...],
        h: int,
        compose: Callable[[], Heartbeat],
        on_change: Callable[[], None],
        log: Log,
        program: str = "",
        roster: Callable[[], int] = int,
        port: int = paths.PORT_HEARTBEAT,
    ) -> None:
        self.watch = watch
        self._roster = roster
        self._h_s = h / S
        self._compose, self._on_change, self._log, self._program = compose, on_change, log, program
        self._ports = {p.name: _Port(p, port, self._drain) for p in links}
        self._complained_at: dict[str, int] = {}
        self._is_leaving = False

    def send_now(self) -> None:
        """Send our word on every link at once."""
        loop, word, now = asyncio.get_running_loop(), self._compose(), now_at()
        for name, port in self._ports.items():
            port.send(
                self.watch.datagram(
                    name, word, now=now, program=self._program, is_bye=self._is_leaving, roster=self._roster()
                ),
                loop,
            )

    async def run(self) -> None:
        """Send until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            while True:
                self.send_now()
                due = max(due + self._h_s, loop.time())
                await asyncio.sleep(due - loop.time())
        finally:
            for port in self._ports.values():
                port.close(loop)

    async def say_bye(self) -> None:
        """Announce an orderly end, three times; every later word says it too."""
        self._is_leaving = True
        for _ in range(3):
            self.send_now()
            await asyncio.sleep(0.005)

    def _drain(self, link: str) -> None:
        port, is_changed = self._ports[link], False
        for _ in range(DRAIN_MAX):
            if port.socket is None:
                break
            try:
                datagram, _source = port.socket.recvfrom(DATAGRAM_BYTES_MAX + 1)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # an ICMP error that waited here: counted, the next word finds out more
                port.errors += 1
                break
            is_changed |= self._take(link, datagram)
        if is_changed:
            self._on_change()

    def _take(self, link: str, datagram: bytes) -> bool:
        now = now_at()
        try:
            return self.watch.receive(link, datagram, now=now)
        except RemoteProtocolFault as e:
            kind = self.watch.count_refused(e)
            if now - self._complained_at.get(kind, -COMPLAINT_EVERY) >= COMPLAINT_EVERY:
                self._complained_at[kind] = now
                self._log.warning("heartbeat.refused", link=link, why=str(e), count=self.watch.refused[kind])
            return False
