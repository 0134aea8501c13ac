"""How others speak with the controller: programs and people of this machine over a local socket, the other member and
strangers over TLS.

Lives here: who may ask what, and the form of questions and answers. Must not live here: what is done about them
(`Desk`). The idea: a counter with two windows. Nothing behind it needs the database, so it is open when the database
is not.

Local: one JSON object a line, answers likewise; long operations answer `{"progress": ...}` lines and end with `ok`.
Between members: the same objects as msgpack frames over mutual TLS. A client without a certificate gets admission
(setup/admission.py), in a short process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import pwd
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from futago.cluster.pgconf import addresses
from futago.link import tls
from futago.link.frames import FrameStream
from futago.link.listener import TlsListener
from futago.runtime import process
from futago.runtime.faults import FutagoFault, OperatorFault, Refused, RemoteProtocolFault, Unknown, WorldFault
from futago.runtime.log import Log
from futago.runtime.unreadable import UNREADABLE
from futago.setup import paths
from futago.setup.settings import Settings

LINE_BYTES_MAX = 64 * 1024
FRAME_BYTES_MAX = 1 << 20
IDLE_S_MAX = 600.0
REQUEST_S_MAX = 10.0  # from the handshake to the first request of a stranger
ADMISSION_S_MAX = 20.0
ADMISSIONS_MAX = 4
CONNECT_S_MAX = 1.0
ROLE_EVERY_S = 0.4
OPERATIONS = frozenset({"recover", "switchover", "jury", "vote", "force-primary", "maintenance", "fence-test"})

Message = dict[str, Any]
"""One request or answer: a JSON object whose `op` or `ok` says what it is. The one place where a bare mapping crosses
a border."""

Say = Callable[[str], Awaitable[None]]


class Desk(Protocol):
    """What is behind the counter."""

    def status(self) -> Message:
        """Return the whole status."""

    def role(self) -> Message:
        """Return the role line."""

    def facts(self) -> Message:
        """Return everything that this member knows, for whoever wants to think it through (explain.py)."""

    async def role_changed(self, known: Message) -> None:
        """Return when the role differs from `known`."""

    def beat(self, program: str) -> None:
        """Note that a program's loop turns."""

    async def operate(self, request: Message, say: Say) -> Message:
        """Carry out an operator's request; return the final answer. Raises FutagoFault."""

    async def serve_peer(self, request: Message, say: Say) -> Message:
        """Answer the other member. Raises FutagoFault."""


def refusal(fault: FutagoFault) -> Message:
    """Return a fault as an answer."""
    hint = fault.hint if isinstance(fault, OperatorFault) else ""
    what = fault.what if isinstance(fault, OperatorFault) else str(fault)
    code = fault.code if isinstance(fault, OperatorFault) else ""
    return {"ok": False, "error": what, "hint": hint, "code": code, "unknown": isinstance(fault, Unknown)}


# --- the local window -----------------------------------------------------------------------------------------------


class LocalWindow:
    """The socket for programs and people of this machine."""

    def __init__(self, desk: Desk, *, path: Path = paths.CONTROLLER_SOCKET, log: Log) -> None:
        self._desk, self._path, self._log = desk, path, log
        self._open: set[asyncio.StreamWriter] = set()

    async def run(self) -> None:
        """Serve until cancelled."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._serve, str(fresh), limit=LINE_BYTES_MAX)
        with contextlib.suppress(KeyError):
            os.chown(fresh, 0, grp.getgrnam("futago").gr_gid)
        fresh.chmod(0o660)
        fresh.rename(self._path)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            for writer in self._open:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                async with asyncio.timeout(IDLE_S_MAX):
                    line = await reader.readline()
                if not line:
                    return
                await self._answer(line, writer)
        except (OSError, TimeoutError, ValueError, asyncio.LimitOverrunError):
            pass  # the client went away, or sent a line without an end
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        async def say(text: str) -> None:
            await _write_line(writer, {"progress": text})

        try:
            request = _request(line)
            op = request.get("op")
            if op == "role":
                await self._stream_role(writer)
            elif op == "status":
                await _write_line(writer, {"ok": True, "status": self._desk.status()})
            elif op == "facts":
                await _write_line(writer, {"ok": True, **self._desk.facts()})
            elif op == "beat":
                self._desk.beat(str(request.get("program", "")))
                await _write_line(writer, {"ok": True})
            elif op in OPERATIONS:
                _require_operator(writer)
                await _write_line(writer, await self._desk.operate(request, say))
            else:
                raise OperatorFault(f"There is no operation `{op}`.", code="control.request")
        except FutagoFault as e:
            await _write_line(writer, refusal(e))

    async def _stream_role(self, writer: asyncio.StreamWriter) -> None:
        while True:
            role = self._desk.role()
            await _write_line(writer, role)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ROLE_EVERY_S):
                    await self._desk.role_changed(role)


async def _write_line(writer: asyncio.StreamWriter, message: Message) -> None:
    try:
        writer.write(msgspec.json.encode(message) + b"\n")
    except RuntimeError as e:  # uvloop's word for a transport that was closed under it
        raise ConnectionError(str(e)) from e
    await writer.drain()


def _request(line: bytes) -> Message:
    try:
        request = msgspec.json.decode(line)
    except UNREADABLE as e:
        raise OperatorFault(f"A request is a JSON object: {e}.", code="control.request") from e
    if not isinstance(request, dict):
        raise OperatorFault("A request is a JSON object.", code="control.request")
    return request


def _require_operator(writer: asyncio.StreamWriter) -> None:
    """Only root and the programs' own user may change anything."""
    sock: socket.socket = writer.get_extra_info("socket")
    _pid, uid, _gid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    allowed = {0, os.geteuid()}
    with contextlib.suppress(KeyError):
        allowed.add(pwd.getpwnam("futago").pw_uid)
    if uid not in allowed:
        raise OperatorFault("Only root may do this.", hint="Use sudo.", code="control.permission")


# --- the window to the network --------------------------------------------------------------------------------------


class NetworkWindow:
    """The TLS port for the other member, and for those who want to join or be enrolled."""

    def __init__(self, desk: Desk, settings: Settings, *, context: ssl.SSLContext, log: Log) -> None:
        self._desk, self._pair_id, self._log = desk, settings.pair.id, log
        self._own = settings.own
        self._context = context
        self._admissions = asyncio.Semaphore(ADMISSIONS_MAX)

    async def run(self, port: int = paths.PORT_CONTROL) -> None:
        """Serve on both of this member's addresses until cancelled."""
        async with asyncio.TaskGroup() as group:
            for address in addresses(self._own):
                group.create_task(self._listen(address, port))

    async def _listen(self, address: str, port: int) -> None:
        listener = TlsListener(
            address=address, port=port, context=self._context, serve=self._serve, log=self._log, connections_max=128
        )
        while True:
            try:
                await listener.run()
            except OperatorFault as e:  # the interface is down: the other network goes on
                self._log.warning("control.cannot-listen", error=str(e))
                await asyncio.sleep(1)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream: FrameStream[Message] = FrameStream(reader, writer, dict[str, Any], frame_bytes_max=FRAME_BYTES_MAX)
        if tls.identity(writer) is None:
            async with asyncio.timeout(REQUEST_S_MAX):
                request = await stream.receive()
            await stream.send(await self._admit(request))
            await stream.close()
            return
        tls.require(writer, pair_id=self._pair_id, kind="member")

        async def say(text: str) -> None:
            await stream.send({"progress": text})

        while True:
            async with asyncio.timeout(IDLE_S_MAX):
                request = await stream.receive()
            try:
                answer = await self._desk.serve_peer(request, say)
            except FutagoFault as e:
                answer = refusal(e)
            await stream.send(answer)

    async def _admit(self, request: Message) -> Message:
        if self._admissions.locked():
            return {
                "ok": False,
                "error": "Too many machines ask at once.",
                "hint": "Try again.",
                "code": "admission.busy",
            }
        async with self._admissions:
            command = [sys.executable, "-m", "futago.setup.admission"]
            try:
                ended = await process.run(command, deadline_s=ADMISSION_S_MAX, stdin=msgspec.json.encode(request))
                answer = msgspec.json.decode(ended.out)
            except (WorldFault, *UNREADABLE) as e:
                self._log.error("admission.failed", error=str(e))
                return {"ok": False, "error": "Admission failed.", "hint": "See the log.", "code": "admission.failed"}
            return answer if isinstance(answer, dict) else {"ok": False, "error": "Admission failed.", "hint": ""}


# --- asking the other member ----------------------------------------------------------------------------------------


class PeerLine:
    """Our line to the other member's controller: one conversation for each question, over whichever network
    answers."""

    def __init__(self, settings: Settings, *, context: ssl.SSLContext) -> None:
        self.settings = settings
        self._context = context

    async def ask(self, op: str, *, deadline_s: float, say: Say | None = None, **fields: object) -> Message:
        """Send one request; return the final answer.

        Raises:
            Refused: it could not be reached, or refused. Unknown: it was asked, and no answer came.
        """
        async with self._open() as stream:
            try:
                async with asyncio.timeout(deadline_s):
                    await stream.send({"op": op, **fields})
                    while "progress" in (answer := await stream.receive()):
                        if say is not None:
                            await say(str(answer["progress"]))
            except (OSError, EOFError, TimeoutError, RemoteProtocolFault) as e:
                raise Unknown(f"the other member did not answer `{op}`: {str(e) or 'late'}") from e
        if answer.get("ok"):
            return answer
        if answer.get("unknown"):
            raise Unknown(str(answer.get("error", "")))
        raise OperatorRefused(str(answer.get("error", "refused")), hint=str(answer.get("hint", "")))

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[FrameStream[Message]]:
        peer = self.settings.peer
        if peer is None:
            raise Refused("there is no second member")
        problems = []
        for address in addresses(peer):
            try:
                async with asyncio.timeout(CONNECT_S_MAX):
                    reader, writer = await asyncio.open_connection(address, paths.PORT_CONTROL, ssl=self._context)
            except (OSError, TimeoutError) as e:
                problems.append(f"{address}: {str(e) or 'late'}")
                continue
            try:
                tls.require(writer, pair_id=self.settings.pair.id, kind="member", name=peer.name)
                yield FrameStream(reader, writer, dict[str, Any], frame_bytes_max=FRAME_BYTES_MAX)
            except RemoteProtocolFault as e:
                raise Refused(str(e)) from e
            finally:
                writer.transport.abort()
            return
        raise Refused(f"{peer.name} cannot be reached ({'; '.join(problems)})")


class OperatorRefused(Refused):
    """The other member refused, with a hint for people."""

    def __init__(self, what: str, *, hint: str) -> None:
        super().__init__(what)
        self.hint = hint
