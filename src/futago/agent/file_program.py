"""The helper process of one end of a file transfer: `python -m futago.agent.file_program`.

It becomes the user whose file it is before it touches anything, so the kernel decides what may be read and written, and
no trick with a path reaches further than that user does. Frames of link/files.py on standard input, each answered on
standard output; it ends when its input ends.

    .NAME.futago-RUN  written, its digest verified, synced  ──rename──►  NAME     the directory synced

What is not finished stays under the first name, and a later helper of the same run goes on with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import struct
import sys
from typing import BinaryIO, Protocol

import msgspec

from futago.agent.listing import TooMany, list_files
from futago.link.files import (
    CATCH_UP_BYTES_MAX,
    PIECE_BYTES_MAX,
    Deed,
    FileAnswer,
    FileStep,
    Trouble,
    wrong_path,
    wrong_pattern,
)

LENGTH = struct.Struct("!I")
NAME_BYTES_MAX = 255  # Source: NAME_MAX of Linux
SYNC_BYTES = 32 << 20  # so much waits in memory for the disk at most
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WRITE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Become(msgspec.Struct, frozen=True):
    """The first frame: whom to become. `uid` None: stay. `has_note`: the agent has noted that the target was verified."""

    uid: int | None
    gid: int
    name: str
    has_note: bool = False


class NotDone(Exception):
    """A step was not done. `trouble` says what follows."""

    def __init__(self, trouble: Trouble, fault: str) -> None:
        super().__init__(fault)
        self.trouble, self.fault = trouble, fault


class End(Protocol):
    """One end of a transfer."""

    def step(self, step: FileStep) -> FileAnswer: ...


class _Digest:
    """The digest of the beginning of an open file: of its first `offset` bytes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.restart()

    def restart(self) -> None:
        self.offset, self._sum = 0, hashlib.sha256()

    def add(self, data: bytes) -> None:
        self._sum.update(data)
        self.offset += len(data)

    def catch_up(self, until: int) -> None:
        """Read on towards `until`, CATCH_UP_BYTES_MAX at most."""
        stop = min(until, self.offset + CATCH_UP_BYTES_MAX)
        while self.offset < stop:
            data = os.pread(self._fd, min(PIECE_BYTES_MAX, stop - self.offset), self.offset)
            if not data:
                raise NotDone(Trouble.TORN, "the file has become shorter")
            self.add(data)

    @property
    def text(self) -> str:
        return self._sum.hexdigest()


class Source:
    """The file that is read. One that changes meanwhile is torn."""

    def __init__(self, step: FileStep) -> None:
        self._run_id = step.run_id
        self._fd = os.open(step.path, _READ)
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode):
            raise NotDone(Trouble.REFUSED, f"{step.path} is not a regular file")
        self._was = _identity(found)
        self._size = found.st_size
        self._digest = _Digest(self._fd)

    def step(self, step: FileStep) -> FileAnswer:
        """Do a step."""
        match step.deed:
            case Deed.OPEN:
                return self._answer()
            case Deed.READ:
                return self._answer(self._read(step.offset))
            case Deed.FINISH:
                if _identity(os.fstat(self._fd)) != self._was or self._digest.offset != self._size:
                    raise NotDone(Trouble.TORN, "the file changed while it was read")
                return msgspec.structs.replace(self._answer(), digest=self._digest.text)
            case _:
                raise NotDone(Trouble.REFUSED, f"a source does not {step.deed.value}")

    def _read(self, offset: int) -> bytes:
        if offset < self._digest.offset:
            self._digest.restart()
        if offset > self._digest.offset:
            self._digest.catch_up(min(offset, self._size))
            return b""
        data = os.pread(self._fd, min(PIECE_BYTES_MAX, self._size - offset), offset)
        if not data and offset < self._size:
            raise NotDone(Trouble.TORN, "the file has become shorter")
        self._digest.add(data)
        return data

    def _answer(self, data: bytes = b"") -> FileAnswer:
        return FileAnswer(self._run_id, offset=self._digest.offset - len(data), size=self._size, data=data)


class Target:
    """The file that is made. `has_note`: it was verified and synced before; only its rename may be missing."""

    def __init__(self, step: FileStep, *, has_note: bool = False) -> None:
        self._run_id = step.run_id
        self._mode = step.mode & 0o777
        directory, self._name = os.path.split(step.path)
        self._temporary = temporary_name(self._name, step.run_id)
        self._is_verified = False
        self.is_done = False
        self._fd = -1
        self._size = self._unsynced = 0
        if step.base and not has_note:
            make_directories(step.base, directory, 0o700 | self._mode | (self._mode & 0o044) >> 2)
        self._dir = self._directory(directory, has_note=has_note)
        if has_note:
            self._publish_noted()
        else:
            self._open(step.path)

    def _directory(self, path: str, *, has_note: bool) -> int:
        try:
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            if not has_note:
                raise
            return -1  # the whole directory was taken away after the rename

    def _publish_noted(self) -> None:
        if self._dir >= 0:
            with contextlib.suppress(FileNotFoundError):  # gone: it was renamed; whoever wanted it may have it
                self._rename()
            self._sync_directory()  # a helper before may have been killed between the two
        self.is_done = True

    def _open(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.stat(self._name, dir_fd=self._dir, follow_symlinks=False).st_mode):
                raise NotDone(Trouble.REFUSED, f"{path} is there, and is not a regular file")
        self._fd = os.open(self._temporary, _WRITE, 0o600, dir_fd=self._dir)
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
            raise NotDone(Trouble.REFUSED, f"{self._temporary} is there, and is not ours")
        self._size = found.st_size
        self._digest = _Digest(self._fd)

    def step(self, step: FileStep) -> FileAnswer:
        """Do a step."""
        if self.is_done or step.deed is Deed.OPEN:
            return self._answer()
        match step.deed:
            case Deed.WRITE:
                self._write(step)
            case Deed.FINISH:
                self._verify(step)
            case Deed.PUBLISH if self._is_verified:
                self._rename()
                self._sync_directory()
                self.is_done = True
            case Deed.ABANDON:
                self._remove()
            case _:
                raise NotDone(Trouble.REFUSED, f"a target does not {step.deed.value} now")
        return self._answer()

    def _write(self, step: FileStep) -> None:
        if not step.data:
            self._digest.catch_up(self._size)
            return
        if not step.offset == self._digest.offset == self._size:
            raise NotDone(Trouble.TORN, f"a piece for {step.offset} does not follow on {self._size}")
        try:
            self._append(step.data)
        except OSError:  # no space: what is there of it must not fill the disk
            self._remove()
            raise
        self._digest.add(step.data)
        self._unsynced += len(step.data)
        if self._unsynced >= SYNC_BYTES:
            os.fdatasync(self._fd)
            self._unsynced = 0

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            count = os.pwrite(self._fd, rest, self._size)
            self._size += count
            rest = rest[count:]

    def _remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary, dir_fd=self._dir)

    def _verify(self, step: FileStep) -> None:
        if (self._size, self._digest.offset, self._digest.text) != (step.size, step.size, step.digest):
            os.ftruncate(self._fd, 0)
            raise NotDone(Trouble.TORN, "what arrived is not what was sent")
        os.fchmod(self._fd, self._mode)
        os.fsync(self._fd)
        self._is_verified = True

    def _rename(self) -> None:
        os.rename(self._temporary, self._name, src_dir_fd=self._dir, dst_dir_fd=self._dir)

    def _sync_directory(self) -> None:
        """Have the rename stay through a power cut. If that fails the file is in its place all the same: not refused."""
        try:
            os.fsync(self._dir)
        except OSError as e:
            raise NotDone(Trouble.AGAIN, f"the directory cannot be synced: {e.strerror or e}") from e

    def _answer(self) -> FileAnswer:
        offset = 0 if self._fd < 0 else self._digest.offset
        return FileAnswer(self._run_id, offset=offset, size=self._size, is_done=self.is_done)


def make_directories(base: str, directory: str, mode: int) -> None:
    """Make what is missing of a directory below `base`, which must be there, and have it stay through a power cut.

    Raises:
        NotDone, OSError: it cannot be made.
    """
    if wrong_path(base) or not f"{directory}/".startswith(f"{base}/"):
        raise NotDone(Trouble.REFUSED, f"{directory} is not below {base}")
    above = base
    for part in directory[len(base) :].split("/")[1:]:
        path = f"{above}/{part}"
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
            os.chmod(path, mode)
            fd = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        above = path


def temporary_name(name: str, run_id: str) -> str:
    """Return the name under which a file is written before it is complete."""
    tail = f".futago-{run_id}"
    kept = name.encode()[: NAME_BYTES_MAX - 1 - len(tail)].decode(errors="ignore")
    return f".{kept}{tail}"


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def open_end(step: FileStep, *, has_note: bool = False) -> End:
    """Return the end that an OPEN asks for.

    Raises:
        NotDone, OSError: it cannot be opened.
    """
    wrong = wrong_path(step.path)
    if wrong or step.deed is not Deed.OPEN:
        raise NotDone(Trouble.REFUSED, wrong or "the first step is not to open")
    return Source(step) if step.is_source else Target(step, has_note=has_note)


def done_by(end: End | None, step: FileStep) -> FileAnswer:
    """Return what comes of a step."""
    try:
        if end is None:
            raise NotDone(Trouble.AGAIN, "the file is not open")
        return end.step(step)
    except NotDone as e:
        return FileAnswer(step.run_id, trouble=e.trouble, fault=e.fault)
    except OSError as e:
        return FileAnswer(step.run_id, trouble=Trouble.REFUSED, fault=f"{e.filename or step.path}: {e.strerror or e}")


def found_by(step: FileStep) -> FileAnswer:
    """Return what a LIST finds."""
    try:
        wrong = wrong_path(step.path) or wrong_pattern(step.pattern)
        if wrong:
            raise NotDone(Trouble.REFUSED, wrong)
        return FileAnswer(step.run_id, listed=list_files(step.path, step.pattern))
    except TooMany as e:
        return FileAnswer(step.run_id, trouble=Trouble.REFUSED, fault=f"{step.path}: {e}")
    except (NotDone, OSError) as e:
        return _not_opened(step, e)


def become(who: Become) -> None:
    """Be that user from now on, with the user's groups and nothing of root's."""
    os.umask(0o077)
    if who.uid is not None:
        os.initgroups(who.name, who.gid)
        os.setgid(who.gid)
        os.setuid(who.uid)


def serve(reader: BinaryIO, writer: BinaryIO) -> None:
    """Answer steps until the input ends."""
    first = _frame(reader)
    if first is None:
        return
    who = msgspec.msgpack.decode(first, type=Become)
    become(who)
    decode = msgspec.msgpack.Decoder(FileStep).decode
    end: End | None = None
    while (frame := _frame(reader)) is not None:
        step = decode(frame)
        if step.deed is Deed.LIST:
            answer = found_by(step)
        elif end is None and step.deed is Deed.OPEN:
            try:
                end = open_end(step, has_note=who.has_note)
            except (NotDone, OSError) as e:
                answer = _not_opened(step, e)
            else:
                answer = done_by(end, step)
        else:
            answer = done_by(end, step)
        body = msgspec.msgpack.encode(answer)
        writer.write(LENGTH.pack(len(body)) + body)
        writer.flush()


def _not_opened(step: FileStep, why: NotDone | OSError) -> FileAnswer:
    if isinstance(why, NotDone):
        return FileAnswer(step.run_id, trouble=why.trouble, fault=why.fault)
    return FileAnswer(step.run_id, trouble=Trouble.REFUSED, fault=f"{step.path}: {why.strerror or why}")


def _frame(reader: BinaryIO) -> bytes | None:
    head = reader.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = reader.read(length)
    return body if len(body) == length else None


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
