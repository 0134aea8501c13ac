"""The juror: this host's seat in the third vote. Storage and a TLS port around the pure rules of register/acceptor.py.

The rule that makes it a vote: what the acceptor holds is on disk before the reply leaves. A juror that lost its file
is a new acceptor with a new identity, so requests to the old one are refused (they name it); a file that is there and
cannot be trusted makes the juror answer `unable` and nothing else. One process alone uses the file at a time: a second
one would answer from what it read before the first one wrote. Only members of the pair are heard.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import ssl
from dataclasses import dataclass
from pathlib import Path

import msgspec

from futago.agent.slots import SlotFile
from futago.link import tls
from futago.link.frames import FrameStream
from futago.link.jurors import FRAME_BYTES_MAX, IDLE_S_MAX, Identified, Identify, JurorRequest
from futago.link.listener import TlsListener
from futago.register import acceptor
from futago.register.model import Accept, AcceptorState, Prepare, Query, Reply
from futago.runtime.faults import Corrupt, OperatorFault, WorldFault
from futago.runtime.log import Log
from futago.runtime.unreadable import UNREADABLE
from futago.setup import paths
from futago.setup.settings import AgentSettings

REBIND_S = 1.0
WRITE_S_MAX = 2.0  # a disk slower than this is as good as none: the proposer has long asked the other jurors


@dataclass(slots=True)
class Counters:
    """Since this agent process started."""

    answered: int = 0
    written: int = 0
    unable: int = 0


class Acceptor:
    """The state on the disk. One request at a time.

    Args:
        path: the two-slot file.
        pair_id: whose register it is.
    """

    def __init__(self, path: Path, *, pair_id: str, log: Log) -> None:
        self.counters = Counters()
        self._file = SlotFile(path)
        self._pair_id = pair_id
        self._log = log
        self._state: AcceptorState | None = None  # None: nothing may be said
        self._in_doubt: AcceptorState | None = None  # its writing has failed or is not over
        self._writing: asyncio.Future[None] | None = None
        self._lock = asyncio.Lock()

    @property
    def acceptor_id(self) -> str:
        """The identity of this acceptor; empty while it cannot vote."""
        return "" if self._state is None else self._state.acceptor_id

    async def load(self) -> None:
        """Read the state; make a new identity where there is no file. Where it cannot be trusted, the juror stays
        without a vote.
        """
        try:
            self._state = await asyncio.to_thread(self._read_or_create)
        except WorldFault as e:
            self._log.error("juror.cannot_vote", error=str(e))

    def _read_or_create(self) -> AcceptorState:
        content = self._file.read()
        if content is None:
            state = AcceptorState(pair_id=self._pair_id, acceptor_id=secrets.token_hex(8))
            self._file.write(msgspec.msgpack.encode(state))
            return state
        try:
            state = msgspec.msgpack.decode(content, type=AcceptorState)
        except UNREADABLE as e:
            raise Corrupt(f"the juror's file does not hold a state: {e}") from e
        if state.pair_id != self._pair_id:
            raise Corrupt(f"the juror's file belongs to the pair {state.pair_id}")
        return state

    async def answer(self, request: JurorRequest) -> Reply | Identified:
        """Return the reply; what it says is durable by then."""
        async with self._lock:
            self.counters.answered += 1
            if isinstance(request, Identify):
                roster = 0 if self._state is None else self._state.roster
                return Identified(serial=request.serial, acceptor_id=self.acceptor_id, roster=roster)
            if self._state is None and self._in_doubt is not None:
                await self._write(self._in_doubt)
            if self._state is None:
                return self._unable(request)
            after, reply = acceptor.handle(self._state, request)
            if after is not self._state and not await self._write(after):
                return self._unable(request)
            return reply

    def _unable(self, request: Query | Prepare | Accept) -> Reply:
        self.counters.unable += 1
        return acceptor.unable(request)

    async def _write(self, state: AcceptorState) -> bool:
        """Make a state durable; return whether it is.

        While that is open the juror says nothing. It may go on with the new state only: to hold a promise that nobody
        was told of is harmless, to forget one that the disk may hold is not.
        """
        self._state, self._in_doubt = None, state
        if self._writing is None or self._writing.done():
            loop = asyncio.get_running_loop()
            self._writing = loop.run_in_executor(None, self._file.write, msgspec.msgpack.encode(state))
        try:
            async with asyncio.timeout(WRITE_S_MAX):
                await asyncio.shield(self._writing)
        except (WorldFault, TimeoutError) as e:
            self._log.error("juror.unable", error=str(e) or "the disk does not answer")
            return False
        self._state, self._in_doubt = state, None
        self.counters.written += 1
        return True


class Juror:
    """The acceptor on its port."""

    def __init__(
        self, path: Path, *, own: AgentSettings, context: ssl.SSLContext, log: Log, port: int = paths.PORT_JUROR
    ) -> None:
        self.acceptor = Acceptor(path, pair_id=own.pair_id, log=log)
        self.listening = asyncio.Event()
        self._path = path
        self._pair_id = own.pair_id
        self._log = log
        self._listener = TlsListener(
            address=own.listen, port=port, context=context, serve=self._serve, log=log, connections_max=64
        )

    async def run(self) -> None:
        """Serve until cancelled; where the port or the file is taken, try again: runs must not suffer from it."""
        claim = await self._claim()
        try:
            await self.acceptor.load()
            while True:
                try:
                    with self._listener.bind() as sock:
                        self.listening.set()
                        await self._listener.run(sock)
                except OperatorFault as e:
                    self._log.error("juror.cannot_listen", error=str(e))
                    await asyncio.sleep(REBIND_S)
        finally:
            os.close(claim)

    async def _claim(self) -> int:
        """Return the descriptor that keeps other processes from the file, as soon as none has it."""
        lock = self._path.with_name(f"{self._path.name}.lock")
        is_said = False
        while True:
            try:
                fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as e:
                self._log.error("juror.cannot_claim", error=str(e))
                await asyncio.sleep(REBIND_S)
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return fd
            except OSError as e:
                os.close(fd)
                if not is_said:
                    self._log.error("juror.file_in_use", error=f"another process holds {lock}: {e.strerror}")
                is_said = True
                await asyncio.sleep(REBIND_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls.require(writer, pair_id=self._pair_id, kind="member")
        stream: FrameStream[JurorRequest] = FrameStream(reader, writer, JurorRequest, frame_bytes_max=FRAME_BYTES_MAX)
        while True:
            async with asyncio.timeout(IDLE_S_MAX):
                request = await stream.receive()
            reply = await self.acceptor.answer(request)
            async with asyncio.timeout(WRITE_S_MAX):
                await stream.send(reply)
