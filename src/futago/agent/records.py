"""Runs on the disk: the only place that touches AGENT_VAR/runs. Blocking calls, made in a thread.

The order of writes is the whole point. An order is durable (file, its directory, the directory of runs) before its
shim is started. A run is removed by renaming its directory away first: a half-removed run must never look like one
that has not started.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from futago.agent import processes
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
from futago.link.orders import DETAIL_CHARS_MAX, OUTPUT_KEPT_BYTES_MAX, OUTPUT_TAIL_CHARS_MAX, Outcome, RunEnded
from futago.runtime.faults import Corrupt, Refused

_FALLOC_KEEP_SIZE, _FALLOC_PUNCH_HOLE = 0x01, 0x02  # linux/falloc.h
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
        self._gone = root / "gone"
        self._boot = boot
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(Record)
        self._verdicts = msgspec.json.Decoder(OwnVerdict)

    def where(self, run_id: str) -> Path:
        """Return the directory of a run."""
        return self._runs / run_id

    def prepare(self) -> list[str]:
        """Make the directories, clear away what was being removed, and return the ids of the runs that are there.

        Raises:
            Refused: the disk does not let us.
        """
        try:
            self._runs.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.rmtree(self._gone, ignore_errors=True)
            self._gone.mkdir(mode=0o700, exist_ok=True)
            sync_directory(self._runs.parent)
            return sorted(entry.name for entry in os.scandir(self._runs) if entry.is_dir(follow_symlinks=False))
        except OSError as e:
            raise Refused(f"{self._runs} cannot be used: {e}") from e

    def add(self, records: Iterable[Record]) -> list[Refused | None]:
        """Make orders durable, all of them with one sync of the common directory; return, for each, None or why it is
        not on the disk.
        """
        outcomes: list[Refused | None] = []
        for record in records:
            try:
                self._add(record)
                outcomes.append(None)
            except FileExistsError as e:
                outcomes.append(Refused(f"the run is there already: {e}"))
            except OSError as e:
                shutil.rmtree(self.where(record.order.run_id), ignore_errors=True)
                outcomes.append(Refused(f"the order cannot be written: {e}"))
        try:
            sync_directory(self._runs)
        except OSError as e:
            return [Refused(f"{self._runs} cannot be synced: {e}") for _ in outcomes]
        return outcomes

    def _add(self, record: Record) -> None:
        where = self.where(record.order.run_id)
        where.mkdir(mode=0o700)
        (where / "exit").write_bytes(EXIT_BLANK)
        _write_synced(where / "order.json", self._encoder.encode(record))
        sync_directory(where)

    def find(self, run_id: str) -> Found:
        """Return what is on the disk about a run, and whether its shim is alive.

        Raises:
            Corrupt: there is no readable order: it was never acknowledged, or the disk is damaged.
        """
        where = self.where(run_id)
        content = _read(where / "order.json")
        try:
            record = self._decoder.decode(content or b"")
        except msgspec.MsgspecError as e:
            raise Corrupt(f"{where}: no readable order: {e}") from e
        mark, keeper = parse_mark(_read(where / "started"))
        alive = keeper is not None and record.boot == self._boot and processes.is_alive(keeper)
        observed = Observed(
            is_same_boot=record.boot == self._boot,
            mark=mark,
            is_alive=alive,
            exit_code=parse_exit(_read(where / "exit")),
            has_verdict=self._verdict(where) is not None,
        )
        return Found(record, observed, keeper)

    def has_trace(self, run_id: str) -> bool:
        """Tell whether a shim ever took this run (used where the order itself is unreadable)."""
        return (self.where(run_id) / "started").exists()

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

    def is_timed_out(self, run_id: str) -> bool:
        return (self.where(run_id) / "timed-out").exists()

    def result(self, run_id: str) -> RunEnded:
        """Return how an ended run ended.

        Raises:
            Corrupt: it has neither an exit code nor a verdict.
        """
        where = self.where(run_id)
        code = parse_exit(_read(where / "exit"))
        own = None if code is not None else self._verdict(where)
        if code is None and own is None:
            raise Corrupt(f"{where}: the end of the run is not recorded")
        output, size = _tail(where / "output")
        has_keeper = parse_mark(_read(where / "started"))[1] is not None
        timed_out = self.is_timed_out(run_id)
        return RunEnded(
            run_id=run_id,
            outcome=own.outcome if own else Outcome.TIMED_OUT if timed_out else Outcome.EXITED,
            exit_code=code,
            started=_modified(where / "started") if has_keeper else 0.0,
            ended=own.ended if own else _modified(where / "exit"),
            output=output,
            output_bytes=size,
            detail=own.detail if own else "its time was over" if timed_out else "",
        )

    def sync_ends(self, run_ids: Iterable[str]) -> None:
        """Make exit codes durable that shims wrote while the agent was alive.

        Raises:
            Refused: the disk does not let us.
        """
        for run_id in run_ids:
            try:
                for name in ("exit", "started"):
                    _sync_file(self.where(run_id) / name)
                sync_directory(self.where(run_id))
            except FileNotFoundError:
                continue  # committed and removed meanwhile
            except OSError as e:
                raise Refused(f"the end of run {run_id} cannot be synced: {e}") from e

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

    def remove(self, run_ids: Iterable[str]) -> None:
        """Forget runs whose results are committed. What a crash leaves behind is reported again and forgotten then."""
        for run_id in run_ids:
            try:
                os.rename(self.where(run_id), self._gone / run_id)
            except OSError:
                continue  # already gone
            shutil.rmtree(self._gone / run_id, ignore_errors=True)

    def _verdict(self, where: Path) -> OwnVerdict | None:
        content = _read(where / "verdict.json")
        try:
            return None if content is None else self._verdicts.decode(content)
        except msgspec.MsgspecError:
            return None


def _write_synced(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


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
