"""The ledger: which runs this host has taken, how they ended, which of them are committed. One small file.

    taken r1 | taken r2 r3 | ended r1 code 0 | gone r1 | taken r4 | (zeros: the place is made beforehand) ...

One sync of this file makes a whole batch of orders durable, and another a whole batch of ends; the directories of the
runs (records.py) then need none. It is written over blocks that are on the disk already, so a sync is one write to the
device and no work for the file system's own journal. What the ledger says about a run that has lost its directory
decides: it was taken, so nobody may believe that it never started.

Blocking calls; any thread may make them.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path

import msgspec

from futago.agent.slots import sync_directory
from futago.runtime.faults import Corrupt, Refused
from futago.runtime.unreadable import UNREADABLE

LEDGER_FILE = "runs.ledger"  # in AGENT_VAR
LEDGER_BYTES_MIN = 256 << 10  # about 5,000 lines; then the file is written anew with what is still open
GONE_KEPT_MAX = 10_000  # committed runs remembered, so that a stray repeated order is recognised
LINE_BYTES_MAX = 1024
_HEAD = struct.Struct("!IHB")  # crc32 of all that follows, length of the body, kind
_MAGIC = b"FLG1"


class End(msgspec.Struct, frozen=True, array_like=True):
    """How a run ended that left an exit code. Times: seconds since 1970 by the host's clock; 0: not known."""

    run_id: str
    code: int
    is_timed_out: bool
    started: float
    ended: float


class _Kind(Enum):
    TAKEN = 1
    ENDED = 2
    GONE = 3


_KINDS = {kind.value for kind in _Kind}


class Ledger:
    """See the module. `load` first, then `begin`, then the rest."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._open: dict[str, End | None] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._fd = -1
        self._at = 0
        self._size = 0
        self._ends = msgspec.msgpack.Decoder(End)

    # --- asked --------------------------------------------------------------------------------------------------------

    @property
    def open_ids(self) -> list[str]:
        """Ids of the runs that were taken and are not committed."""
        with self._lock:
            return list(self._open)

    @property
    def gone_ids(self) -> list[str]:
        """Ids of the newest committed runs, oldest first."""
        with self._lock:
            return list(self._gone)

    def has(self, run_id: str) -> bool:
        """Tell whether the run was taken and is not committed."""
        return run_id in self._open

    def end_of(self, run_id: str) -> End | None:
        """Return how a run ended; None if the ledger does not say."""
        return self._open.get(run_id)

    # --- written ------------------------------------------------------------------------------------------------------

    def load(self) -> bool:
        """Read what an earlier agent process wrote; False if there is no file. A torn line is the end: nothing behind
        it was acknowledged.

        Raises:
            Refused: the file cannot be read.
            Corrupt: it is no ledger; without it, a run that was taken might be taken for one that never was.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return False
        except OSError as e:
            raise Refused(f"{self._path} cannot be read: {e}") from e
        if not content.startswith(_MAGIC):
            raise Corrupt(f"{self._path}: not a ledger of runs")
        for kind, body in _lines(content):
            self._note(kind, body)
        return True

    def begin(self, found: Iterable[str]) -> None:
        """Begin a new file with everything that is open, and with the runs `found` on the disk beside it.

        Raises:
            Refused: it is not on the disk.
        """
        with self._lock:
            for run_id in found:
                self._open.setdefault(run_id, None)
            self._renew()

    def take(self, run_ids: Sequence[str]) -> None:
        """Make it durable that these runs are here.

        Raises:
            Refused: it is not on the disk, or not surely.
        """
        with self._lock:
            self._append([_line(_Kind.TAKEN, i.encode()) for i in run_ids], is_synced=True)
            self._open.update(dict.fromkeys(run_ids))

    def end(self, ends: Sequence[End]) -> None:
        """Make durable how these runs ended.

        Raises:
            Refused: it is not on the disk, or not surely.
        """
        with self._lock:
            known = [e for e in ends if e.run_id in self._open]  # the others were committed meanwhile
            if known:
                self._append([_line(_Kind.ENDED, msgspec.msgpack.encode(e)) for e in known], is_synced=True)
                self._open.update({e.run_id: e for e in known})

    def forget(self, run_ids: Sequence[str]) -> None:
        """Note that these runs are committed. Without a sync: a run that a power cut brings back is told again, and
        committed again.

        Raises:
            Refused: it is not noted.
        """
        with self._lock:
            self._append([_line(_Kind.GONE, i.encode()) for i in run_ids], is_synced=False)
            for run_id in run_ids:
                self._went(run_id)

    # --- the file -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let the file go, as the end of a process does; a later call that writes opens a new one."""
        with self._lock:
            self._close()

    def _append(self, lines: list[bytes], *, is_synced: bool) -> None:
        content = b"".join(lines)
        try:
            if self._fd < 0 or self._at + len(content) > self._size:
                self._renew(room=len(content))
            os.pwrite(self._fd, content, self._at)
            if is_synced:
                os.fdatasync(self._fd)
        except OSError as e:
            self._close()  # what a failed sync left in memory is not to be trusted: the next call writes a new file
            raise Refused(f"{self._path} cannot be written: {e}") from e
        self._at += len(content)

    def _renew(self, *, room: int = 0) -> None:
        """Write a new file in the place of the old one, made to its full size."""
        self._close()
        lines = [_line(_Kind.GONE, i.encode()) for i in self._gone]
        lines += [_line(_Kind.TAKEN, i.encode()) for i in self._open]
        lines += [_line(_Kind.ENDED, msgspec.msgpack.encode(e)) for e in self._open.values() if e is not None]
        content = _MAGIC + b"".join(lines)
        size = max(LEDGER_BYTES_MIN, 2 * (len(content) + room))
        temporary = self._path.with_name(self._path.name + ".new")
        with contextlib.ExitStack() as undone:
            try:
                fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                undone.callback(os.close, fd)
                _write_all(fd, content.ljust(size, b"\0"))
                os.fsync(fd)
                os.rename(temporary, self._path)
                sync_directory(self._path.parent)
            except OSError as e:
                raise Refused(f"{self._path} cannot be written: {e}") from e
            undone.pop_all()
        self._fd, self._at, self._size = fd, len(content), size

    def _close(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def _note(self, kind: _Kind, body: bytes) -> None:
        match kind:
            case _Kind.TAKEN:
                run_id = body.decode()
                self._gone.pop(run_id, None)
                self._open.setdefault(run_id, None)
            case _Kind.ENDED:
                with contextlib.suppress(*UNREADABLE):
                    end = self._ends.decode(body)
                    self._open[end.run_id] = end
            case _Kind.GONE:
                self._went(body.decode())

    def _went(self, run_id: str) -> None:
        self._open.pop(run_id, None)
        self._gone[run_id] = None
        while len(self._gone) > GONE_KEPT_MAX:
            self._gone.popitem(last=False)


def _line(kind: _Kind, body: bytes) -> bytes:
    if not 0 < len(body) <= LINE_BYTES_MAX:
        raise Refused(f"a line of {len(body)} bytes does not belong into the ledger")
    head = _HEAD.pack(0, len(body), kind.value)[4:]
    return struct.pack("!I", zlib.crc32(head + body)) + head + body


def _lines(content: bytes) -> list[tuple[_Kind, bytes]]:
    """Return every whole line, up to the first that is none."""
    found: list[tuple[_Kind, bytes]] = []
    at = len(_MAGIC)
    while at + _HEAD.size <= len(content):
        crc, length, kind = _HEAD.unpack_from(content, at)
        end = at + _HEAD.size + length
        if not 0 < length <= LINE_BYTES_MAX or end > len(content) or zlib.crc32(content[at + 4 : end]) != crc:
            break
        if kind in _KINDS:  # a newer version may know more
            found.append((_Kind(kind), content[at + _HEAD.size : end]))
        at = end
    return found


def _write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
