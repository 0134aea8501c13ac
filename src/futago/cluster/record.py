"""The flight recorder: what the controller knew and what it decided, kept for a while, so that it can be decided again.

Lives here: what is worth keeping, the two files that it goes into, and how they are read. Must not live here: judging
(sim/replay.py). The idea: the black box of an aeroplane. It takes part in nothing, it may lose its last seconds, and it
never makes the pilot wait: the loop only drops references into a bounded basket (facts and decisions are immutable),
another thread packs and writes them.

A file is frames: 4 bytes of length, 4 bytes of CRC-32 (zlib), then MessagePack. The first frame of a file is a Header. `newest` grows up to
FILE_BYTES_MAX, then it becomes `older`, which is overwritten: so a record costs at most twice that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from futago.cluster.model import Decision, Facts, ReadRegister
from futago.runtime.clock import S
from futago.runtime.faults import Corrupt, WorldFault
from futago.runtime.unreadable import UNREADABLE
from futago.runtime.worker import Worker

FORMAT = 2
FILE_BYTES_MAX = 4 << 20  # some 2,500 decisions: days of a quiet pair, an hour of a very busy one
BASKET_MAX = 512  # decisions that wait to be written; a disk that hangs costs the oldest, never the loop
WRITE_EVERY_S = 1.0
WRITE_S_MAX = 5.0
STEADY_EVERY = 60 * S  # a decision like the last one is kept this often
FRAME_BYTES_MAX = 1 << 20
LENGTH_BYTES, CHECK_BYTES = 4, 4
HEAD_BYTES = LENGTH_BYTES + CHECK_BYTES
NEWEST, OLDER = "newest.record", "older.record"
_READ = ReadRegister()


class Header(msgspec.Struct, frozen=True):
    """Begins a file. `started_utc` is of the controller that wrote it."""

    member: str
    program: str
    started_utc: float
    format: int = FORMAT


class Decided(msgspec.Struct, frozen=True):
    """A decision as it was. Actions as text: what they are is compared, not carried out."""

    rule: str
    reason: str
    state: str
    actions: tuple[str, ...]
    notes: tuple[str, ...]
    command: str
    wake_at: int
    is_serving: bool
    may_act_outward: bool
    is_protected: bool


class Record(msgspec.Struct, frozen=True):
    """One decision: at which wall-clock time, at which `now` of the controller's own clock, from which facts.

    `skipped`: how many before it were not written because the disk hung.
    """

    utc: float
    now: int
    facts: Facts
    decided: Decided
    skipped: int = 0


def decided_of(d: Decision) -> Decided:
    """Return a decision as it is recorded."""
    return Decided(
        rule=d.rule,
        reason=d.reason,
        state=d.state.value,
        actions=tuple(_SET.sub(_sorted, repr(a)) for a in d.actions),
        notes=d.notes,
        command=d.command,
        wake_at=d.wake_at,
        is_serving=d.is_serving,
        may_act_outward=d.may_act_outward,
        is_protected=d.is_protected,
    )


_SET = re.compile(r"frozenset\(\{([^}]*)\}\)")


def _sorted(found: re.Match[str]) -> str:
    """Sets have no order of their own, and another one in each process."""
    return "{" + ", ".join(sorted(found[1].split(", "))) + "}"


class Recorder:
    """Keeps the decisions of one controller.

    Args:
        folder: on the system disk; made if it is missing.
        member, program: for the header.
        worker: a thread of its own.
    """

    def __init__(self, folder: Path, *, member: str, program: str, worker: Worker) -> None:
        self._folder = folder
        self._worker = worker
        self._header = Header(member, program, time.time())
        self._basket: deque[tuple[float, int, Facts, Decision]] = deque(maxlen=BASKET_MAX)
        self._last: tuple[object, ...] = ()
        self._last_at = 0
        self._is_begun = False
        self.skipped = 0

    def note(self, facts: Facts, decision: Decision, now: int) -> None:
        """Take note of a decision, if it says something new; costs about a microsecond."""
        d = decision
        actions = tuple(a for a in d.actions if a != _READ)
        view, intent = facts.durable.view, facts.durable.intent
        said = (d.rule, d.state, actions, d.notes, d.is_serving, d.may_act_outward, view, intent)
        if said == self._last and now - self._last_at < STEADY_EVERY:
            return
        self._last, self._last_at = said, now
        if len(self._basket) == BASKET_MAX:
            self.skipped += 1
        self._basket.append((time.time(), now, facts, d))

    async def run(self) -> None:
        """Write what was noted, until cancelled. A disk that refuses or hangs costs records, nothing else."""
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what was noted."""
        if not self._basket or self._worker.busy_ns:
            return
        batch, skipped = list(self._basket), self.skipped
        self._basket.clear()
        self.skipped = 0
        try:
            await self._worker.do(lambda: self._write(batch, skipped), deadline_s=WRITE_S_MAX)
        except (OSError, WorldFault):
            self.skipped += len(batch)

    def _write(self, batch: Sequence[tuple[float, int, Facts, Decision]], skipped: int) -> None:
        """In the thread. A controller begins with a header of its own, also in the middle of a file."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        newest = self._folder / NEWEST
        with contextlib.suppress(FileNotFoundError):
            if newest.stat().st_size >= FILE_BYTES_MAX:
                os.replace(newest, self._folder / OLDER)
                self._is_begun = False
        frames = [] if self._is_begun else [_frame(self._header)]
        for utc, now, facts, d in batch:
            frames.append(_frame(Record(utc, now, facts, decided_of(d), skipped)))
            skipped = 0
        descriptor = os.open(newest, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, b"".join(frames))
        finally:
            os.close(descriptor)
        self._is_begun = True


def _frame(item: Header | Record) -> bytes:
    data = msgspec.msgpack.encode(item)
    return len(data).to_bytes(LENGTH_BYTES, "big") + zlib.crc32(data).to_bytes(CHECK_BYTES, "big") + data


_KINDS = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_HEADERS = msgspec.msgpack.Decoder(Header)
_HEADER_BEGINS = msgspec.msgpack.encode(Header("", "", 0.0))[: 1 + 1 + len("member")]  # a map, and its first key


def read(path: Path) -> Iterator[Header | Record]:
    """Read a file, oldest first. A write that a power cut tore (cut off, or something else where nothing had reached
    the disk) is passed over: reading goes on where the next controller began.

    Raises:
        OSError: it cannot be read. Corrupt: it is no record, or one of a format that is not known here.
    """
    records = msgspec.msgpack.Decoder(Record)
    data = path.read_bytes()
    at, is_any = 0, False
    while at + HEAD_BYTES < len(data):
        length = int.from_bytes(data[at : at + LENGTH_BYTES], "big")
        check = int.from_bytes(data[at + LENGTH_BYTES : at + HEAD_BYTES], "big")
        found = _decoded(data[at + HEAD_BYTES : at + HEAD_BYTES + length], length, check, records)
        if found is None:
            at = data.find(_HEADER_BEGINS, at + HEAD_BYTES + 1) - HEAD_BYTES
            if at < 0:
                break
            continue
        if isinstance(found, Header) and found.format != FORMAT:
            raise Corrupt(f"{path}: written in format {found.format}, known here is {FORMAT}")
        yield found
        is_any = True
        at += HEAD_BYTES + length
    if data and not is_any:
        raise Corrupt(f"{path}: this is not a record of decisions")


def _decoded(frame: bytes, length: int, check: int, records: msgspec.msgpack.Decoder[Record]) -> Header | Record | None:
    """Return what a frame holds; None if it was torn or damaged."""
    if not 0 < length == len(frame) <= FRAME_BYTES_MAX or zlib.crc32(frame) != check:
        return None
    try:
        return records.decode(frame) if "facts" in _KINDS.decode(frame) else _HEADERS.decode(frame)
    except UNREADABLE:
        return None


def files_in(place: Path) -> list[Path]:
    """Return the files of a recorder's folder, oldest first; a file is itself."""
    if not place.is_dir():
        return [place]
    return [p for p in (place / OLDER, place / NEWEST) if p.exists()]
