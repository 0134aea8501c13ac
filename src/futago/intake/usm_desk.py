"""The receiver's side of usm_program.py: keeps that program running and asks it.

A question that gets no answer in time is given back without one, and the program started anew: the sender repeats its
INFORM.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from futago.intake.options import OptionsWatch, engine_id
from futago.runtime.clock import S, now_at
from futago.runtime.log import Log
from futago.runtime.unreadable import UNREADABLE

LENGTH_BYTES = 4
PENDING_MAX = 10_000
PENDING_BYTES_MAX = 16 << 20  # of datagrams that were asked about and not yet answered
ANSWER_NS_MAX = 5 * S  # at the program's start it makes keys of passwords: some milliseconds each
LOOK_S = 1.0
AGAIN_S = 0.5


class Question(msgspec.Struct, frozen=True, array_like=True):
    """A v3 datagram. `is_recorded`: a journal holds it already; only its identity is wanted."""

    number: int
    data: bytes
    is_recorded: bool = False


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What to do with it.

    `identity` of an INFORM that is let through: take it, and send `reply` when it is on both disks. Without one: send
    `reply` at once, if there is any, and take nothing. `is_foreign`: nothing that we acknowledge: take it as any other
    datagram, whether there is a `reply` or not.
    """

    number: int
    reply: bytes = b""
    identity: bytes = b""
    is_foreign: bool = False


Answered = Callable[[Answer | None], None]  # None: there will be no answer


class _Pending(NamedTuple):
    answered: Answered
    asked_at: int
    size: int


class UsmDesk:
    """Asks the program about v3 datagrams.

    Args:
        watch: the options; without SNMPv3 users no program runs.
        pair_id: gives the engine id.
    """

    def __init__(self, watch: OptionsWatch, pair_id: str, *, log: Log) -> None:
        self._watch = watch
        self._pair_id = pair_id
        self.engine_id = engine_id(pair_id)
        self._log = log
        self._stdin: asyncio.StreamWriter | None = None
        self._pending: dict[int, _Pending] = {}
        self._pending_bytes = 0
        self._before: list[tuple[bytes, Answered]] = []  # recorded ones, from before the program runs
        self._before_bytes = 0
        self._number = 0
        self._encoder = msgspec.msgpack.Encoder()
        self.starts = 0
        self.lost = 0  # questions that got no answer

    @property
    def is_wanted(self) -> bool:
        """Are there users at all?"""
        return bool(self._watch.current.snmp.users)

    def ask(self, data: bytes, answered: Answered, *, is_recorded: bool = False) -> None:
        """Ask; `answered` is called once, here or later in the loop."""
        size = len(data)
        has_room = len(self._before) < PENDING_MAX and self._before_bytes + size <= PENDING_BYTES_MAX
        if self._stdin is None and is_recorded and has_room:
            self._before.append((data, answered))
            self._before_bytes += size
            return
        is_full = len(self._pending) >= PENDING_MAX or self._pending_bytes + size > PENDING_BYTES_MAX
        if self._stdin is None or is_full:
            self._lose(answered)
            return
        self._number += 1
        question = self._encoder.encode(Question(self._number, data, is_recorded))
        try:
            self._stdin.write(len(question).to_bytes(LENGTH_BYTES, "big") + question)
        except (OSError, RuntimeError):  # the program has ended, and we have not heard of it yet
            self._lose(answered)
            return
        self._pending[self._number] = _Pending(answered, now_at(), size)
        self._pending_bytes += size

    def _lose(self, answered: Answered) -> None:
        self.lost += 1
        answered(None)

    async def run(self) -> None:
        """Keep the program running until cancelled."""
        while True:
            if not self.is_wanted:
                await asyncio.sleep(LOOK_S)
                continue
            try:
                await self._serve()
            except (OSError, EOFError, *UNREADABLE) as e:
                self._log.warning("receiver.usm_ended", error=str(e) or type(e).__name__)
            await asyncio.sleep(AGAIN_S)

    async def _serve(self) -> None:
        revision = self._watch.revision
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "futago.intake.usm_program", str(self._watch.path), self._pair_id),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd="/",
        )
        assert process.stdin is not None and process.stdout is not None
        self.starts += 1
        listening = asyncio.create_task(self._listen(process.stdout))
        self._stdin = process.stdin
        before, self._before, self._before_bytes = self._before, [], 0
        for data, answered in before:
            self.ask(data, answered, is_recorded=True)
        try:
            while not listening.done() and self._watch.revision == revision and not self._is_stuck():
                await asyncio.wait({listening}, timeout=LOOK_S)
        finally:
            self._stdin = None
            lost, self._pending, self._pending_bytes = self._pending, {}, 0
            for one in lost.values():
                self._lose(one.answered)
            listening.cancel()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if listening.done() and not listening.cancelled():
            listening.result()

    async def _listen(self, source: asyncio.StreamReader) -> None:
        decoder = msgspec.msgpack.Decoder(Answer)
        while True:
            length = int.from_bytes(await source.readexactly(LENGTH_BYTES), "big")
            answer = decoder.decode(await source.readexactly(length))
            pending = self._pending.pop(answer.number, None)
            if pending is not None:
                self._pending_bytes -= pending.size
                pending.answered(answer)

    def _is_stuck(self) -> bool:
        oldest = next(iter(self._pending.values()), None)
        return oldest is not None and now_at() - oldest.asked_at > ANSWER_NS_MAX
