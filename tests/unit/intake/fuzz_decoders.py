"""Coverage-guided fuzzing of everything that reads bytes from the network or a journal.

`python tests/unit/intake/fuzz_decoders.py --seconds 3600 [--seed N] [--only NAME]`. An input that reaches a new edge (from
line to line) of the intake's code is kept and mutated further. An input fails if it raises what its target may not raise,
or takes longer than HANG_S; it is printed in hexadecimal digits, and the program ends with 1. The memory at the end is
printed, too: it must not grow with the number of inputs.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parent))

from test_snmp_decoder import SAMPLE, v1_trap
from test_snmp_security import ENGINE, SAMPLE_PLAIN, SAMPLE_PRIV, SECURITY, USERS

from futago.intake import segment, syslog
from futago.intake.framing import SyslogFraming
from futago.intake.informs import answered_inform, wants_answer_v3
from futago.intake.model import Record
from futago.intake.options import Snmp
from futago.intake.relp import RelpFraming
from futago.intake.snmp import normalised
from futago.intake.traps import TrapCounters, TrapReader
from futago.intake.usm_desk import Question
from futago.intake.usm_program import Answerer
from futago.runtime.faults import RemoteProtocolFault

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
    RelpFraming().receive_data(data)


def _records(data: bytes) -> None:
    scanned, walked = segment.scan(data), segment.walk(data)
    assert (scanned.end, scanned.is_damaged) == (walked.end, walked.is_damaged)
    segment.resume(data, 0, after=0)


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


def fuzz(target: Target, seconds: float, seed: int) -> str:
    """Fuzz one target for a time; return what went wrong, with the input, or nothing."""
    chance = random.Random(seed)
    for data in list(target.corpus):
        if wrong := tried(target, data):
            return f"{target.name}: {wrong}: {data.hex()}"
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        data = mutated(chance, target.corpus)
        if wrong := tried(target, data):
            return f"{target.name}: {wrong}: {data.hex()}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    chosen = [t for t in targets() if not args.only or t.name == args.only]
    for target in chosen:
        wrong = fuzz(target, args.seconds / len(chosen), args.seed)
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"{target.name}: seed {args.seed}, {target.runs} inputs, {len(target.corpus)} kept,", end=" ")
        print(f"{len(target.edges)} edges, {kib >> 10} MiB {wrong}", flush=True)
        if wrong:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
