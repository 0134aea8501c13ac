"""Coverage-guided fuzzing of everything that reads bytes from the network or a journal.

`python tests/unit/intake/fuzz_decoders.py --seconds 3600 [--seed N] [--only NAME]`. An input that reaches a new edge (from
line to line) of the intake's code is kept and mutated further. An input fails if it raises what its target may not raise,
or takes longer than HANG_S; it is printed in hexadecimal digits, and the program ends with 1. The memory before and after
is printed, too: it must not grow with the number of inputs, but for the inputs that are kept.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parent))

import msgspec
from pydantic import ValidationError
from test_snmp_decoder import SAMPLE, v1_trap
from test_snmp_security import ENGINE, SAMPLE_PLAIN, SAMPLE_PRIV, SECURITY, USERS

from futago.intake import notices, segment, syslog
from futago.intake.custom_traps import Trap, read
from futago.intake.framing import SyslogFraming
from futago.intake.guests import Guests
from futago.intake.informs import answered_inform, wants_answer_v3
from futago.intake.journal import new_incarnation
from futago.intake.listen import Addresses, Counters
from futago.intake.merge import Merger
from futago.intake.mib_names import hinted
from futago.intake.mib_program import imported, module_names
from futago.intake.model import Mark, Protocol, Record
from futago.intake.options import Connections, Snmp
from futago.intake.own import OwnJournal
from futago.intake.patterns import Automata
from futago.intake.relp import RelpFraming
from futago.intake.relp_server import RelpConnection, RelpDesk
from futago.intake.snmp import normalised
from futago.intake.tcp_syslog import TcpSyslog
from futago.intake.telling import host_named, tell
from futago.intake.traps import TrapCounters, TrapReader
from futago.intake.turns import Turns
from futago.intake.usm_desk import Question
from futago.intake.usm_program import Answerer
from futago.intake.wire import PROTOCOL_VERSION, Ack, Beat, DownstreamMessage, Have, Hello, Records, UpstreamMessage
from futago.link.heartbeat import Wire
from futago.runtime.clock import S
from futago.runtime.faults import Corrupt, RemoteProtocolFault
from futago.runtime.unreadable import UNREADABLE
from futago.web.api.traps import NewTrap, _text

HANG_S = 1.0
INPUT_BYTES_MAX = 4096
CORPUS_MAX = 2000
_INTAKE = str(Path(segment.__file__).parent)
_TOKENS = (b"<13>", b"\0", b"\n", b" ", b"[", b"]", b'="', b"\\", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\xff" * 4)
_TOKENS += (
    b"Nov 22 11:00:00",
    b"2026-11-22T11:00:00Z",
    b"1 - - - - - ",
    b"syslog",
    b"999999999 ",
    "障害".encode("cp932"),
)


@dataclass
class Target:
    """What is fed; `may_raise` is what it is allowed to raise."""

    name: str
    feed: Callable[[bytes], object]
    corpus: list[bytes]
    may_raise: tuple[type[Exception], ...] = ()
    edges: set[tuple[int, int, int]] = field(default_factory=set)
    runs: int = 0


def _notification(data: bytes) -> None:
    reader = _readers[0]
    reader.content(data)
    text = reader.text(Record(1, 10**18, 3, 0, bytes(16), 162, data))
    assert text.startswith(("trapOID=", "refused: ", "undecodable: "))
    assert "\0" not in text
    text.encode()
    normalised(data)
    answered_inform(data)
    if wants_answer_v3(data):
        _answerer.answer(Question(1, data), now_s=1_800_000_000)


def _line(data: bytes) -> None:
    for text in (syslog.text_of(data), syslog.parse(data).message, syslog.host_named(data)):
        assert "\0" not in text
        text.encode()
    syslog.is_dated(data)
    syslog.structured_of(syslog.text_of(data))


def _stream(data: bytes) -> None:
    whole, halves = SyslogFraming(), SyslogFraming()
    middle = len(data) // 2
    frames = whole.receive_data(data)
    assert frames == halves.receive_data(data[:middle]) + halves.receive_data(data[middle:])
    whole.receive_end()


def _relp(data: bytes) -> None:
    whole, pieces = RelpFraming(), RelpFraming()
    frames, piecewise = whole.receive_data(data), []
    for at in range(0, len(data), 7):
        piecewise += pieces.receive_data(data[at : at + 7])
        assert pieces.pending_bytes <= INPUT_BYTES_MAX
    assert frames == piecewise


class _Connection(asyncio.Transport):
    """What a RELP connection speaks into; nothing is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.is_over = False

    def write(self, data: object) -> None:
        assert not self.is_over

    def close(self) -> None:
        self.is_over = True

    abort = close

    def is_closing(self) -> bool:
        return self.is_over

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


class _Journal(OwnJournal):
    """A journal without a disk, whose clock is set: it numbers, and is handed over at once."""

    def __init__(self) -> None:
        self.incarnation = new_incarnation(None)
        self.sequence = 0
        self.is_disk_short = False
        self.clock = _Clock()  # type: ignore[assignment]

    @property
    def is_congested(self) -> bool:
        return self.is_disk_short

    def add(self, data: bytes, **about: object) -> None:  # type: ignore[override]
        self.sequence += 1

    def hand(self) -> None:
        pass


class _Clock:
    """A steady clock that goes on by what an input says."""

    at_ns = 1

    def now_ns(self) -> int:
        return self.at_ns


def _relp_clients(data: bytes) -> None:
    """Several clients that break off, pause, do not read, come again; `data` says what happens, in pieces."""
    journal = _Journal()
    durable = [0]
    counters = Counters()
    desk = RelpDesk(
        journal=journal,
        addresses=Addresses(),
        turns=Turns(counters),
        counters=counters,
        durable=lambda: durable[0],
    )
    client = RelpConnection(desk)
    client.connection_made(_Connection())
    for piece in data.split(b"\xfe"):
        what, rest = piece[:1], piece[1:]
        if what == b"~":
            client.connection_lost(None)
            client = RelpConnection(desk)
            client.connection_made(_Connection())
        elif what == b"%":
            durable[0] = journal.sequence
            desk.release()
        elif what == b"^":
            journal.clock.at_ns += len(rest) * 10 * S  # type: ignore[misc]
            client.tend(journal.clock.now_ns(), Connections())
            desk.forget(journal.clock.now_ns())
        elif what in (b"<", b">"):
            (client.pause_writing if what == b"<" else client.resume_writing)()
        elif what in (b"(", b")"):
            (client.pause if what == b"(" else client.resume)()
            journal.is_disk_short = what == b"("
        if client.transport is not None and not client.transport.is_closing():
            client.data_received(rest)
        assert desk.unfinished_bytes == sum(one.unfinished_bytes for one in desk.opened)
    client.connection_lost(None)
    assert not desk.unfinished_bytes


def _tcp_clients(data: bytes) -> None:
    """Several senders of syslog that stop in the middle, are not read, end and come again; `data` says what happens."""
    journal, counters, opened = _Journal(), Counters(), set[TcpSyslog]()
    guests, turns, addresses = Guests(counters), Turns(counters), Addresses()

    def connect() -> TcpSyslog:
        made = TcpSyslog(
            journal=journal, turns=turns, addresses=addresses, counters=counters, opened=opened, guests=guests
        )
        made.connection_made(_Connection())
        return made

    clients, now = [connect(), connect(), connect()], 0
    for piece in data.split(b"\xfe"):
        what, rest = piece[:1], piece[1:]
        client = clients[now]
        if what == b"~":
            now = (now + 1) % len(clients)
        elif what in (b"$", b"%"):
            if what == b"$":
                client.eof_received()
            client.connection_lost(None)
            clients[now] = connect()
        elif what == b"^":
            journal.clock.at_ns += len(rest) * 60 * S  # type: ignore[misc]
            guests.tend(journal.clock.now_ns(), tuple(opened))
        elif what in (b"(", b")"):
            (client.pause if what == b"(" else client.resume)()
            journal.is_disk_short = what == b"("
        elif client.transport is not None and not client.transport.is_closing():
            client.data_received(piece)
        assert guests.unfinished_bytes == sum(one._framing.pending_bytes for one in clients)
    for client in clients:
        client.connection_lost(None)
    assert not guests.unfinished_bytes and not opened


def _states(data: bytes) -> None:
    """What the other member, a disk or a row gives: frames of the sync, heads of segments, marks, the merge's state."""
    for decode in (_UPSTREAM, _DOWNSTREAM, _MARKS, _HEARTBEATS):
        with contextlib.suppress(*UNREADABLE):
            decode(data)
    for take in (segment.unpack_head, lambda state: Merger(("m1", "m2"), state), Automata.unpack):
        with contextlib.suppress(Corrupt):
            take(data)


def _custom(data: bytes) -> None:
    """A custom trap as a client posts it, and any bytes where its record should be."""
    told = tell(Record(1, 10**18, Protocol.CUSTOM_TRAP, 0, bytes(16), 0, data), _readers[0])
    host_named(Record(1, 10**18, Protocol.CUSTOM_TRAP, 0, bytes(16), 0, data))
    _can_be_stored(told.text, *map(str, told.fields.values()))
    notices.read(data)
    try:
        new = NewTrap.model_validate_json(data)
    except ValidationError:
        return
    kept = Trap("a", "k", new.message, new.host, {name: _text(value) for name, value in new.fields.items()})
    assert read(msgspec.json.encode(kept)) == kept


def _names(data: bytes) -> None:
    """A display hint, with a value; and a text that is searched for the names of MIB modules."""
    hint, _, value = data.partition(b"\n")
    shown = hinted(hint.decode("latin-1"), value)
    assert shown is None or len(shown) <= 70 * INPUT_BYTES_MAX
    text = data.decode("latin-1")
    module_names(text)
    imported(text)


def _can_be_stored(*texts: str) -> None:
    for text in texts:
        assert "\0" not in text
        text.encode()


def _records(data: bytes) -> None:
    scanned, walked = segment.scan(data), segment.walk(data)
    assert (scanned.end, scanned.is_damaged) == (walked.end, walked.is_damaged)
    segment.resume(data, 0, after=0)


_INCARNATION = new_incarnation(None)
_UPSTREAM = msgspec.msgpack.Decoder(UpstreamMessage).decode
_DOWNSTREAM = msgspec.msgpack.Decoder(DownstreamMessage).decode
_MARKS = msgspec.msgpack.Decoder(Mark).decode
_HEARTBEATS = msgspec.msgpack.Decoder(Wire).decode
STATES = [
    segment.pack_head(segment.SegmentHead(_INCARNATION, 1, 1)),
    Merger(("m1", "m2")).changes().head,
    *map(
        msgspec.msgpack.encode,
        (
            Mark(1, 2, 3),
            Hello(PROTOCOL_VERSION, _INCARNATION),
            Have(PROTOCOL_VERSION, {"a": 1}),
            Ack("a", 1),
            Beat(1, "a", 1, {"m1": {"a": 1}}),
            Records(_INCARNATION, 1, 2, b"x"),
        ),
    ),
]
TRAP = msgspec.json.encode(Trap("probe", "k1", "down", "web1", {"n": "1"}))
MIB = b'X-MIB DEFINITIONS ::= BEGIN IMPORTS a, b FROM Y-MIB; -- c\nx OBJECT IDENTIFIER ::= { y 1 } "t" END'
_answerer = Answerer(SECURITY, ENGINE)
_readers = [TrapReader(Snmp(communities=["public"], users=USERS), TrapCounters())]


def targets() -> list[Target]:
    """Return every target with inputs to begin with."""
    record = segment.pack_record(
        sequence=1, time_ns=1, protocol=1, flags=0, source=bytes(16), port=514, data=b"<13>message"
    )
    lines = [
        b"<13>Nov 22 11:00:00 web1 app[7]: hello",
        b'<165>1 2026-11-22T11:00:00.003Z web1 app 17 ID47 [ex@1 a="b \\"]"][x y="z"] \xef\xbb\xbftext',
        b"<189>123: *Nov 22 11:00:00.123: %SYS-5-CONFIG_I: done",
        "<13>1 - - - - - 障害が発生".encode("euc_jp"),
        "障害が発生".encode("cp932"),
        "障害が発生".encode("iso2022_jp"),
    ]
    return [
        Target("snmp", _notification, [SAMPLE, v1_trap(1), SAMPLE_PLAIN, SAMPLE_PRIV]),
        Target("syslog", _line, lines),
        Target("framing", _stream, [b"12 <13>counted!\n<13>a line\n", b"99999 <", b"0 <13>"]),
        Target("relp", _relp, [b"1 open 5 hello\n2 syslog 5 <13>a\n3 close 0\n"], (RemoteProtocolFault,)),
        Target(
            "relp-clients",
            _relp_clients,
            [
                b"1 open 5 hello\n2 syslog 5 <13>a\n\xfe~2 syslog 5 <13>a\n\xfe%\xfe^0000000\xfe3 close 0\n",
                b"1 syslog 5 <13>\xfe(\xfe)\xfe<\xfe>\xfe^0000000",
            ],
        ),
        Target(
            "tcp-clients",
            _tcp_clients,
            [
                b"<13>a\n<13>b\xfe~\xfe20 <13>c\xfe^000\xfe~\xfe5 <13>\xfe(\xfe^0\xfe)\xfe$\xfe%",
                b"9999999 <13>x\xfe^000000000",
            ],
        ),
        Target("states", _states, STATES),
        Target("custom", _custom, [b'{"message":"down","host":"a","fields":{"n":1,"x":"y","t":true}}', TRAP]),
        Target("names", _names, [b"2d-1d-1d,1d:1d\n\x07\xe6\x01", b"*1x:/1a\n\x02ab", MIB]),
        Target("journal", _records, [record, record * 3]),
    ]


def mutated(chance: random.Random, corpus: list[bytes]) -> bytes:
    """Return a new input of known ones."""
    data = bytearray(chance.choice(corpus))
    for _ in range(1 << chance.randrange(5)):
        at, kind = chance.randrange(len(data) + 1), chance.randrange(6)
        if kind == 0 and at < len(data):
            data[at] = chance.randrange(256)
        elif kind == 1 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            data[at:at] = chance.choice(_TOKENS)
        elif kind == 3:
            del data[at : at + chance.randrange(1, 9)]
        elif kind == 4:
            other = chance.choice(corpus)
            data[at:] = other[chance.randrange(len(other) + 1) :]
        else:
            end = at + chance.randrange(1, 33)
            data[end:end] = data[at:end] * chance.randrange(1, 8)
    return bytes(data[:INPUT_BYTES_MAX])


class Edges:
    """Collects the edges that are reached while it is installed."""

    def __init__(self) -> None:
        self.reached: set[tuple[int, int, int]] = set()
        self._last = 0

    def __call__(self, frame: FrameType, event: str, arg: object) -> Edges | None:
        if event == "call":
            return self if frame.f_code.co_filename.startswith(_INTAKE) else None
        self.reached.add((id(frame.f_code), self._last, frame.f_lineno))
        self._last = frame.f_lineno
        return self


def tried(target: Target, data: bytes) -> str:
    """Feed one input; return what is wrong, or nothing. A new edge keeps the input."""
    edges, began = Edges(), time.process_time()
    before = sys.gettrace()
    sys.settrace(edges)
    try:
        target.feed(data)
    except target.may_raise:
        pass
    except Exception as e:  # noqa: BLE001  that is what is sought
        return f"{type(e).__name__}: {e}"
    finally:
        sys.settrace(before)
    target.runs += 1
    took_s = time.process_time() - began
    if took_s > HANG_S:
        return f"{took_s:.1f} s"
    if not edges.reached <= target.edges:
        target.edges |= edges.reached
        if len(target.corpus) < CORPUS_MAX:
            target.corpus.append(data)
    return ""


def fuzz(target: Target, seconds: float, seed: int, *, runs_min: int = 0) -> str:
    """Fuzz one target for a time, and at least for so many inputs; return what went wrong, with the input, or nothing."""
    chance = random.Random(seed)
    for data in list(target.corpus):
        if wrong := tried(target, data):
            return f"{target.name}: {wrong}: {data.hex()}"
    until = time.monotonic() + seconds
    while time.monotonic() < until or target.runs < runs_min:
        data = mutated(chance, target.corpus)
        if wrong := tried(target, data):
            return f"{target.name}: {wrong}: {data.hex()}"
    return ""


def memory_mib() -> int:
    """Return what this process has in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    chosen = [t for t in targets() if not args.only or t.name == args.only]
    for target in chosen:
        before, began_cpu_s = memory_mib(), time.process_time()
        wrong = fuzz(target, args.seconds / len(chosen), args.seed)
        print(f"{target.name}: seed {args.seed}, {target.runs} inputs, {len(target.corpus)} kept,", end=" ")
        cpu_s = time.process_time() - began_cpu_s
        print(f"{len(target.edges)} edges, {cpu_s:.0f} s of CPU, {before} to {memory_mib()} MiB {wrong}", flush=True)
        if wrong:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
