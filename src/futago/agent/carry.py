"""The agent's part in file transfers: one helper process for each file at this host, and a note for each that is done.

The note makes the effect come once: it is on the disk before the rename, so whoever asks again under the same run id,
after whatever crash, gets the rename completed, or the answer that it has been done; never a second writing.

    pieces ──► temporary file ──► verified, synced ──► note ──► rename ──► done
                                                        └── found by a later OPEN: only the rename can be missing
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from futago.agent import shim
from futago.agent.file_program import LENGTH, Become
from futago.link.files import STEP_S, Deed, FileAnswer, FileStep, Trouble
from futago.runtime.clock import S, now_at
from futago.runtime.faults import Refused
from futago.runtime.log import Log
from futago.runtime.unreadable import UNREADABLE

PROGRAM = "futago.agent.file_program"
HELPERS_MAX = 8  # files at once; each helper has about 20 MB
LISTERS_MAX = 4  # users for whom directories are read at once, beside them
IDLE_S = 120.0  # a helper that nobody asks anything is ended: the next manager opens a new one
ROUND_S = 10.0
NOTES_KEPT_S = 30 * 86400.0  # a run that is open for longer than this is not asked for again
ANSWER_BYTES_MAX = 4 << 20
_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_ENVIRONMENT = ("PATH", "LANG", "PYTHONPATH")
Key = tuple[str, bool]


class Note(msgspec.Struct, frozen=True):
    """That the file of a run was verified and is to be, or has been, renamed."""

    path: str
    user: str
    size: int
    digest: str


@dataclass(slots=True)
class _Helper:
    process: Process
    note: Note | None
    path: str
    user: str
    used_at: int = 0


class FileCarrier:
    """See the module. `run` until cancelled; helpers end with it.

    Args:
        where: the directory of notes.
    """

    def __init__(self, where: Path, *, log: Log) -> None:
        self._where = where
        self._log = log
        self._helpers: dict[Key, _Helper] = {}
        self._locks: dict[Key, asyncio.Lock] = {}  # one step of a file at a time, whoever asks

    async def run(self) -> None:
        """End helpers that nobody needs, and remove old notes, until cancelled."""
        try:
            while True:
                await self._end_idle()
                await asyncio.to_thread(self._prune)
                await asyncio.sleep(ROUND_S)
        finally:
            for helper in self._helpers.values():
                with contextlib.suppress(ProcessLookupError):
                    helper.process.kill()

    async def _end_idle(self) -> None:
        before = now_at() - int(IDLE_S * S)
        for key, lock in list(self._locks.items()):
            helper = self._helpers.get(key)
            if lock.locked() or (helper is not None and helper.used_at >= before):
                continue
            async with lock:
                await self._end(key)
            if not lock.locked():
                self._locks.pop(key, None)

    async def step(self, step: FileStep, may_go_on: Callable[[], bool] = lambda: True) -> FileAnswer:
        """Do a step for a manager; `may_go_on` is asked again right before the file appears under its name."""
        if not _RUN_ID.match(step.run_id) or step.deed is Deed.PUBLISH:
            return FileAnswer(step.run_id, step.ticket, Trouble.REFUSED, "this is nothing to ask an agent for")
        key = _lister(step.user) if step.deed is Deed.LIST else (step.run_id, step.is_source)
        async with self._locks.setdefault(key, asyncio.Lock()):
            answer = await self._step(key, step, may_go_on)
        return msgspec.structs.replace(answer, ticket=step.ticket)

    async def _step(self, key: Key, step: FileStep, may_go_on: Callable[[], bool]) -> FileAnswer:
        try:
            match step.deed:
                case Deed.LIST:
                    return await self._list(key, step)
                case Deed.OPEN:
                    return await self._open(step)
                case _:
                    return await self._go_on(step, may_go_on)
        except Refused as e:
            return FileAnswer(step.run_id, trouble=Trouble.REFUSED, fault=str(e))
        except (OSError, EOFError, TimeoutError, *UNREADABLE) as e:
            self._log.warning("file.helper_broke", run_id=step.run_id, error=str(e) or type(e).__name__)
            await self._end(key)
            return FileAnswer(step.run_id, trouble=Trouble.AGAIN, fault="the helper process ended")

    async def _list(self, key: Key, step: FileStep) -> FileAnswer:
        """Have a directory read by its user's helper, which stays for the next time."""
        helper = self._helpers.get(key)
        if helper is None or helper.process.returncode is not None:
            if sum(_is_lister(k) for k in self._helpers) >= LISTERS_MAX:
                return FileAnswer(step.run_id, trouble=Trouble.AGAIN, fault="this host reads enough directories")
            helper = self._helpers[key] = await self._start(step, None)
        return await self._ask(helper, step)

    async def _open(self, step: FileStep) -> FileAnswer:
        key = (step.run_id, step.is_source)
        await self._end(key)  # of a manager before this one
        if sum(not _is_lister(k) for k in self._helpers) >= HELPERS_MAX:
            return FileAnswer(step.run_id, trouble=Trouble.AGAIN, fault="this host carries enough files")
        note = None if step.is_source else await asyncio.to_thread(self._read, step.run_id)
        if note is not None:
            step = msgspec.structs.replace(step, path=note.path, user=note.user)
        helper = self._helpers[key] = await self._start(step, note)
        answer = await self._ask(helper, step)
        if answer.trouble is not Trouble.NONE or answer.is_done:
            await self._end(key)
        if note is not None and answer.is_done:
            return msgspec.structs.replace(answer, size=note.size, digest=note.digest)
        return answer

    async def _start(self, step: FileStep, note: Note | None) -> _Helper:
        who = shim.account(step.user)
        env = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", PROGRAM, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, cwd="/", env=env,
            start_new_session=True, limit=ANSWER_BYTES_MAX,
        )  # fmt: skip
        helper = _Helper(process, note, step.path, step.user, used_at=now_at())
        _post(helper, Become(who.uid, who.gid, who.name, has_note=note is not None))
        return helper

    async def _go_on(self, step: FileStep, may_go_on: Callable[[], bool]) -> FileAnswer:
        key = (step.run_id, step.is_source)
        helper = self._helpers.get(key)
        if helper is None:
            return FileAnswer(step.run_id, trouble=Trouble.AGAIN, fault="the file is not open")
        answer = await self._ask(helper, step)
        if step.deed is Deed.FINISH and not step.is_source and answer.trouble is Trouble.NONE:
            if not may_go_on():
                return FileAnswer(step.run_id, trouble=Trouble.AGAIN, fault="a newer manager is known")
            note = Note(helper.path, helper.user, step.size, step.digest)
            await asyncio.to_thread(self._write, step.run_id, note)
            answer = await self._ask(helper, msgspec.structs.replace(step, deed=Deed.PUBLISH))
            if answer.trouble is Trouble.REFUSED:  # it will not appear: what is noted is not so
                await asyncio.to_thread(self._remove, step.run_id)
            answer = msgspec.structs.replace(answer, size=step.size, digest=step.digest)
        if step.deed in (Deed.FINISH, Deed.ABANDON) or answer.trouble is not Trouble.NONE:
            await self._end(key)
        return answer

    async def _ask(self, helper: _Helper, step: FileStep) -> FileAnswer:
        """Return the helper's answer.

        Raises:
            OSError, EOFError, TimeoutError, or one of UNREADABLE: it gave none that makes sense.
        """
        process = helper.process
        assert process.stdin is not None and process.stdout is not None
        async with asyncio.timeout(STEP_S):
            helper.used_at = now_at()
            _post(helper, step)
            await process.stdin.drain()
            (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
            if length > ANSWER_BYTES_MAX:
                raise EOFError(f"an answer of {length} bytes")
            return msgspec.msgpack.decode(await process.stdout.readexactly(length), type=FileAnswer)

    async def _end(self, key: Key) -> None:
        helper = self._helpers.pop(key, None)
        if helper is not None:
            with contextlib.suppress(ProcessLookupError):
                helper.process.kill()
            await helper.process.wait()

    # --- notes --------------------------------------------------------------------------------------------------------

    def _read(self, run_id: str) -> Note | None:
        try:
            return msgspec.json.decode((self._where / run_id).read_bytes(), type=Note)
        except FileNotFoundError:
            return None
        except UNREADABLE:  # cut off by a crash before it was synced: then nothing was renamed
            self._remove(run_id)
            return None

    def _write(self, run_id: str, note: Note) -> None:
        self._where.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._where / f"{run_id}.new"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, msgspec.json.encode(note))
            os.fsync(fd)
        finally:
            os.close(fd)
        fresh.rename(self._where / run_id)
        self._sync()

    def _remove(self, run_id: str) -> None:
        (self._where / run_id).unlink(missing_ok=True)
        self._sync()

    def _sync(self) -> None:
        fd = os.open(self._where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _prune(self) -> None:
        before = time.time() - NOTES_KEPT_S
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self._where):
                if entry.stat().st_mtime < before:
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)


def _lister(user: str) -> Key:
    return f"list as {user}", True


def _is_lister(key: Key) -> bool:
    return key[0].startswith("list as ")


def _post(helper: _Helper, message: msgspec.Struct) -> None:
    assert helper.process.stdin is not None
    body = msgspec.msgpack.encode(message)
    helper.process.stdin.write(LENGTH.pack(len(body)) + body)
