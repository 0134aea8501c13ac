"""Runs on the disk: the only place that touches AGENT_VAR/runs. Blocking calls, made in a thread.

The order of writes is the whole point. The directory of a run is made whole, then its id is durable in the ledger
(ledger.py), then its shim is started. Directories are not synced: while the host is up every process sees them, and of
a host that went down the ledger says which runs it had. A run is noted as gone before its directory is removed: a
half-removed run must never look like one that has not started.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from futago.agent import processes
from futago.agent.ledger import LEDGER_FILE, End, Ledger
from futago.agent.model import (
    EXIT_BLANK,
    REFUSED_MARK,
    Keeper,
    Observed,
    OwnVerdict,
    Record,
    parse_exit,
    parse_mark,
)
from futago.agent.slots import sync_directory
from futago.link.orders import (
    DETAIL_CHARS_MAX,
    OUTPUT_KEPT_BYTES_MAX,
    OUTPUT_TAIL_CHARS_MAX,
    PART_BYTES_MAX,
    Outcome,
    RunEnded,
)
from futago.runtime.faults import Corrupt, Refused
from futago.runtime.unreadable import UNREADABLE

_FALLOC_KEEP_SIZE, _FALLOC_PUNCH_HOLE = 0x01, 0x02  # linux/falloc.h
_RUN_NAME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_FILES = ("order.json", "started", "output", "exit")
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


@dataclass(frozen=True, slots=True)
class Found:
    """One run as it lies on the disk."""

    record: Record
    observed: Observed
    keeper: Keeper | None


class Records:
    """The directory of runs.

    Args:
        root: AGENT_VAR; `runs` and `gone` are made in it.
        boot: the id of the host's present boot.
    """

    def __init__(self, root: Path, *, boot: str) -> None:
        self._runs = root / "runs"
        self._gone = root / "gone"  # of versions before the ledger: runs that were being removed
        self._ledger = Ledger(root / LEDGER_FILE)
        self._boot = boot
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(Record)
        self._verdicts = msgspec.json.Decoder(OwnVerdict)

    def where(self, run_id: str) -> Path:
        """Return the directory of a run."""
        return self._runs / run_id

    @property
    def forgotten(self) -> list[str]:
        """Ids of the newest committed runs, oldest first."""
        return self._ledger.gone_ids

    def prepare(self) -> list[str]:
        """Make the directories, clear away what was being removed, and return the ids of the runs that are here: those
        that have a directory, and those that the ledger knows alone.

        Raises:
            Refused: the disk does not let us.
            Corrupt: the ledger is damaged.
        """
        try:
            self._runs.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.rmtree(self._gone, ignore_errors=True)
            has_ledger = self._ledger.load()
            gone = set(self._ledger.gone_ids)
            there = {e.name for e in os.scandir(self._runs) if e.is_dir(follow_symlinks=False) and self._is_run(e.name)}
            for run_id in there & gone:
                self._clear(run_id)
            there -= gone
            for run_id in [i for i in there if has_ledger and self._was_never_taken(i)]:
                self._clear(run_id)
                there.discard(run_id)
            for run_id in (
                set(self._ledger.open_ids) - there
            ):  # lost in a power cut: its end has to be told all the same
                self.where(run_id).mkdir(mode=0o700, exist_ok=True)
            self._ledger.begin(sorted(there))
            sync_directory(self._runs.parent)
            return sorted(self._ledger.open_ids)
        except OSError as e:
            raise Refused(f"{self._runs} cannot be used: {e}") from e

    def _is_run(self, name: str) -> bool:
        """Tell a run's directory from what else somebody may have put here: `lost+found`, a copy. Members know runs by
        UUIDs, and would never acknowledge the end of anything else.
        """
        return _RUN_NAME.match(name) is not None or self._ledger.has(name)

    def _was_never_taken(self, run_id: str) -> bool:
        """Tell whether the directory is what a crash left of an order that was just being written: then no shim has
        ever seen it, for the ledger comes first. It has to go before any member asks: who was told that we hold the
        run would wait for its end for ever.
        """
        return not (self._ledger.has(run_id) or self._is_order(run_id) or self.has_trace(run_id))

    def _is_order(self, run_id: str) -> bool:
        try:
            self._decoder.decode(_read(self.where(run_id) / "order.json") or b"")
        except UNREADABLE:
            return False
        return True

    def add(self, records: Iterable[Record]) -> list[Refused | None]:
        """Take orders, all of them with one sync; return, for each, None or why it is not durable."""
        outcomes: list[Refused | None] = []
        made: list[str] = []
        for record in records:
            try:
                self._add(record)
                made.append(record.order.run_id)
                outcomes.append(None)
            except FileExistsError as e:
                outcomes.append(Refused(f"the run is there already: {e}"))
            except OSError as e:
                self._clear(record.order.run_id)
                outcomes.append(Refused(f"the order cannot be written: {e}"))
        try:
            if made:
                self._ledger.take(made)
        except Refused as e:
            for run_id in made:
                self._clear(run_id)
            return [e for _ in outcomes]
        return outcomes

    def _add(self, record: Record) -> None:
        where = self.where(record.order.run_id)
        where.mkdir(mode=0o700)
        _write(where / "exit", EXIT_BLANK)
        if record.order.script:
            _write(where / "script", record.order.script.encode(), mode=0o444)  # the directory is closed
        taken_ns = int(record.taken * 1e9)
        _write(where / "order.json", self._encoder.encode(record), modified_ns=taken_ns)  # see _not_before

    def find(self, run_id: str) -> Found:
        """Return what is on the disk about a run, and whether its shim is alive.

        Raises:
            Corrupt: there is no readable order: a power cut took it, or the disk is damaged.
            OSError: the disk or the process table cannot be read now: nothing is known of the run.
        """
        where = self.where(run_id)
        content = _read(where / "order.json")
        try:
            record = self._decoder.decode(content or b"")
        except UNREADABLE as e:
            raise Corrupt(f"{where}: no readable order: {e}") from e
        mark, keeper = parse_mark(_read(where / "started"))
        alive = keeper is not None and record.boot == self._boot and processes.is_alive(keeper)
        code = parse_exit(_read(where / "exit"))  # read after the shim was looked for
        end = self._ledger.end_of(run_id)
        observed = Observed(
            is_same_boot=record.boot == self._boot,
            mark=mark,
            is_alive=alive,
            exit_code=end.code if code is None and end is not None else code,
            has_verdict=self._verdict(where) is not None,
        )
        return Found(record, observed, keeper)

    def has_trace(self, run_id: str) -> bool:
        """Tell whether a shim or the agent has ever done anything about the run (where its order is unreadable)."""
        return (self.where(run_id) / "started").exists() or self.has_end(run_id)

    def has_end(self, run_id: str) -> bool:
        """Tell whether the run's end is known, though its order is unreadable."""
        return (
            self._ledger.end_of(run_id) is not None
            or parse_exit(_read(self.where(run_id) / "exit")) is not None
            or self._verdict(self.where(run_id)) is not None
        )

    def forbid(self, run_id: str) -> bool:
        """Take the run so that no shim can; False if a shim has it."""
        try:
            fd = os.open(self.where(run_id) / "started", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return False
        except OSError as e:
            raise Refused(f"the run {run_id} cannot be marked: {e}") from e
        try:
            os.write(fd, REFUSED_MARK)
        finally:
            os.close(fd)
        return True

    def give_verdict(self, run_id: str, outcome: Outcome, detail: str, *, ended: float) -> None:
        """Write the agent's own word about a run, once; a second word does not replace the first.

        Raises:
            Refused: it is not on the disk.
        """
        where = self.where(run_id)
        if self._verdict(where) is not None:
            return
        try:
            temporary = where / "verdict.new"
            _write_synced(temporary, self._encoder.encode(OwnVerdict(outcome, detail[:DETAIL_CHARS_MAX], ended)))
            temporary.rename(where / "verdict.json")
            sync_directory(where)
        except OSError as e:
            raise Refused(f"the verdict about run {run_id} cannot be written: {e}") from e

    def mark_timed_out(self, run_id: str) -> None:
        """Note that the agent ends this run because its time is over; must precede the first signal.

        Raises:
            Refused: it is not on the disk.
        """
        try:
            _write_synced(self.where(run_id) / "timed-out", b"")
        except OSError as e:
            raise Refused(f"run {run_id} cannot be marked as timed out: {e}") from e

    def mark_stopping(self, run_id: str) -> bool:
        """Note that the run's stop command is started; False if that was noted before.

        Raises:
            Refused: it is not on the disk.
        """
        try:
            fd = os.open(self.where(run_id) / "stopping", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return False
        except OSError as e:
            raise Refused(f"run {run_id} cannot be marked as stopping: {e}") from e
        os.close(fd)
        return True

    def is_timed_out(self, run_id: str) -> bool:
        return (self.where(run_id) / "timed-out").exists()

    def ended(self, run_ids: Iterable[str]) -> list[RunEnded | None]:
        """Return, for each run, how it ended; None where no shim has left an exit code."""
        return [
            None if parse_exit(_read(self.where(run_id) / "exit")) is None else self.result(run_id)
            for run_id in run_ids
        ]

    def result(self, run_id: str) -> RunEnded:
        """Return how an ended run ended.

        Raises:
            Corrupt: it has neither an exit code nor a verdict.
        """
        where = self.where(run_id)
        end = self._end(run_id)
        own = None if end is not None else self._verdict(where)
        if end is None and own is None:
            raise Corrupt(f"{where}: the end of the run is not recorded")
        output, size = _tail(where / "output")
        timed_out = end.is_timed_out if end else self.is_timed_out(run_id)
        started = end.started if end else self._started(where)
        return RunEnded(
            run_id=run_id,
            outcome=own.outcome if own else Outcome.TIMED_OUT if timed_out else Outcome.EXITED,
            exit_code=end.code if end else None,
            started=started,
            ended=end.ended if end else self._not_before(where, own.ended if own else 0.0, started),
            output=output,
            output_bytes=size,
            detail=own.detail if own else "its time was over" if timed_out else "",
        )

    def _end(self, run_id: str) -> End | None:
        """Return what the shim left, or what the ledger holds of it."""
        where = self.where(run_id)
        code = parse_exit(_read(where / "exit"))
        if code is None:
            return self._ledger.end_of(run_id)
        started = self._started(where)
        return End(
            run_id=run_id,
            code=code,
            is_timed_out=self.is_timed_out(run_id),
            started=started,
            ended=self._not_before(where, _modified(where / "exit"), started),
        )

    def _started(self, where: Path) -> float:
        if parse_mark(_read(where / "started"))[1] is None:
            return 0.0
        return self._not_before(where, _modified(where / "started"))

    def _not_before(self, where: Path, at: float, *others: float) -> float:
        """Return `at`, but nothing earlier than the taking of the order or the `others`: the kernel stamps files with a
        clock that is up to a tick behind (10 ms at 100 Hz), and somebody may set the host's clock back.
        """
        return max(at, _modified(where / "order.json"), *others)

    def close(self) -> None:
        """Let the ledger's file go; nothing that is on the disk changes."""
        self._ledger.close()

    def keep_ends(self, run_ids: Iterable[str]) -> None:
        """Make durable the ends that shims left while the agent was alive, all of them with one sync.

        Raises:
            Refused: the disk does not let us.
        """
        ends = [self._end(run_id) for run_id in run_ids]
        self._ledger.end([e for e in ends if e is not None])

    def trim(self, run_id: str) -> int:
        """Free the middle of an output that grew beyond its limit, while the command writes on; return the bytes
        written so far.
        """
        path = self.where(run_id) / "output"
        try:
            size = path.stat().st_size
            if size > OUTPUT_KEPT_BYTES_MAX:
                _free_middle(path, size)
        except OSError:
            return 0  # not there yet, or a file system without holes: the limit then is the disk's
        return size

    def read_output(self, run_id: str, offset: int) -> tuple[int, bytes, int]:
        """Return where the part begins (beyond `offset` where the middle was not kept), the part, and the bytes written
        so far; the size is -1 where there is no output of such a run.
        """
        try:
            with (self.where(run_id) / "output").open("rb") as f:
                size = f.seek(0, os.SEEK_END)
                half = OUTPUT_KEPT_BYTES_MAX // 2
                begin = max(0, offset)
                if half <= begin < size - half:
                    begin = size - half
                f.seek(begin)
                end = half if begin < half < size - half else size  # not into the middle that may be gone
                return begin, f.read(min(PART_BYTES_MAX, max(0, end - begin))), size
        except FileNotFoundError:
            return 0, b"", 0 if self.where(run_id).exists() else -1
        except OSError:
            return 0, b"", -1

    def remove(self, run_ids: Sequence[str]) -> None:
        """Forget runs whose results are committed. What a crash leaves behind is reported again and forgotten then.

        Raises:
            Refused: the disk does not let us; nothing was removed.
        """
        self._ledger.forget(run_ids)
        for run_id in run_ids:
            self._clear(run_id)

    def _clear(self, run_id: str) -> None:
        """Remove the directory of a run, file by file where nothing unusual is in it."""
        where = self.where(run_id)
        for name in _FILES:
            with contextlib.suppress(OSError):
                (where / name).unlink()
        try:
            where.rmdir()
        except OSError:
            shutil.rmtree(where, ignore_errors=True)

    def _verdict(self, where: Path) -> OwnVerdict | None:
        content = _read(where / "verdict.json")
        try:
            return None if content is None else self._verdicts.decode(content)
        except UNREADABLE:
            return None


def _write(path: Path, content: bytes, *, mode: int = 0o600, modified_ns: int | None = None) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if mode != 0o600:
            os.fchmod(fd, mode)
        _write_all(fd, content)
        if modified_ns is not None:
            os.utime(fd, ns=(modified_ns, modified_ns))
    finally:
        os.close(fd)


def _write_synced(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write_all(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _tail(path: Path) -> tuple[str, int]:
    try:
        with path.open("rb") as f:
            size = f.seek(0, os.SEEK_END)
            f.seek(max(0, size - OUTPUT_TAIL_CHARS_MAX))
            content = f.read(OUTPUT_TAIL_CHARS_MAX)
    except OSError:
        return "", 0
    return content.decode("utf-8", errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}"), size


def _free_middle(path: Path, size: int) -> None:
    """Punch a hole that leaves the first and the last half of the limit. Source: fallocate(2); writers append, so
    their place does not move.
    """
    half = OUTPUT_KEPT_BYTES_MAX // 2
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if _libc.fallocate(fd, _FALLOC_PUNCH_HOLE | _FALLOC_KEEP_SIZE, half, size - 2 * half) != 0:
            raise OSError(ctypes.get_errno(), "fallocate")
    finally:
        os.close(fd)
