"""The conversation of two receivers on a machine with more work than it can do: it goes on, and finds its place at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from test_journal_files import batch, write

from futago.intake import reader as reader_room
from futago.intake.journal import new_incarnation
from futago.intake.reader import Bookmarks, JournalReader
from futago.intake.sync import heard
from futago.link.frames import FrameStream, encode


class Word(msgspec.Struct):
    number: int


async def stream_of(sock: socket.socket) -> FrameStream[Word]:
    sock.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=sock)
    return FrameStream(reader, writer, Word)


async def test_a_loop_that_was_held_up_does_not_take_that_for_the_silence_of_the_other() -> None:
    ours, theirs = socket.socketpair()
    stream = await stream_of(ours)
    for number in range(3):
        waiting = asyncio.create_task(heard(stream, within_s=0.5))
        await asyncio.sleep(0)
        theirs.sendall(encode(Word(number)))
        time.sleep(1)
        assert (await waiting).number == number
    theirs.close()
    await stream.close()


async def test_silence_is_noticed_and_the_end_too() -> None:
    ours, theirs = socket.socketpair()
    stream = await stream_of(ours)
    theirs.sendall(encode(Word(1))[:3])
    with pytest.raises(TimeoutError):
        await heard(stream, within_s=0.2)
    theirs.close()
    with pytest.raises(EOFError):
        await heard(stream, within_s=20)
    await stream.close()


async def test_who_is_cancelled_leaves_nothing_behind() -> None:
    ours, theirs = socket.socketpair()
    stream = await stream_of(ours)
    waiting = asyncio.create_task(heard(stream, within_s=20))
    await asyncio.sleep(0)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    theirs.close()
    await stream.close()


def test_a_reader_with_bookmarks_reads_the_same_from_every_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_room, "BOOKMARK_BYTES", 300)
    monkeypatch.setattr(reader_room, "BOOKMARKED_MAX", 3)
    a, b = new_incarnation(None), new_incarnation(None)
    write(tmp_path, *(batch(inc, 1 + 10 * i, 10) for inc in (a, b) for i in range(20)), segment_bytes=4000)
    marks = Bookmarks()

    def read(after: dict[str, int], bookmarks: Bookmarks | None, *, is_raw: bool) -> list[tuple[str, int, int, bytes]]:
        with closing(JournalReader(tmp_path, after, is_raw=is_raw, bookmarks=bookmarks)) as reader:
            found = []
            while (one := reader.read(bytes_max=500)) is not None:
                found.append((one.incarnation.id, one.first, one.last, one.raw))
        return found

    for start in range(0, 201, 3):
        for after in ({a.id: start}, {a.id: 200, b.id: start}):
            for is_raw in (True, False):
                plain = read(after, None, is_raw=is_raw)
                assert b"".join(one[3] for one in read(after, marks, is_raw=is_raw)) == b"".join(o[3] for o in plain)


def test_a_reader_with_bookmarks_walks_no_more_than_between_two_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_room, "BOOKMARK_BYTES", 1000)
    inc = new_incarnation(None)
    write(tmp_path, *(batch(inc, 1 + 10 * i, 10) for i in range(200)))
    marks = Bookmarks()
    with closing(JournalReader(tmp_path, {}, bookmarks=marks)) as first:
        while first.read(bytes_max=500) is not None:
            pass
    walked = []
    real = reader_room.walk
    monkeypatch.setattr(reader_room, "walk", lambda data, **kw: walked.append(real(data, **kw)) or walked[-1])
    with closing(JournalReader(tmp_path, {inc.id: 1900}, bookmarks=marks)) as again:
        found = again.read()
        assert found is not None
        assert found.first == 1901
    assert sum(one.end for one in walked) <= 1500
