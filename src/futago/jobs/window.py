"""The manager's local window: the web's questions about what running jobs write, passed on to their agents.

One request a line, JSON, one answer a line. The web has no connection to agents, and what a running job writes is in no
row; so it asks here. Nothing can be ordered through this window.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import msgspec

from futago.jobs.hub import READ_S, AgentHub
from futago.link.orders import PART_BYTES_MAX
from futago.runtime.log import Log
from futago.runtime.unreadable import UNREADABLE
from futago.setup import paths

LINE_BYTES_MAX = 2 * PART_BYTES_MAX  # base64 makes four bytes of three
IDLE_S_MAX = 60.0


class AskedOutput(msgspec.Struct, frozen=True):
    """What has this run written, from byte `offset` on?"""

    host: str
    run_id: str
    offset: int = 0


class Part(msgspec.Struct, frozen=True):
    """The answer. `size` -1: the host does not have this run; null: the host does not answer."""

    offset: int = 0
    data: bytes = b""
    size: int | None = None
    is_ended: bool = False


class OutputWindow:
    """The socket. `run` serves until cancelled."""

    def __init__(self, hub: AgentHub, *, path: Path = paths.MANAGER_SOCKET, log: Log) -> None:
        self._hub, self._path, self._log = hub, path, log
        self._decode = msgspec.json.Decoder(AskedOutput).decode

    async def run(self) -> None:
        """Serve until cancelled. Without this window jobs run all the same, so a failure is logged and no more."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._path.with_suffix(".new")
            fresh.unlink(missing_ok=True)
            server = await asyncio.start_unix_server(self._serve, str(fresh), limit=LINE_BYTES_MAX)
            fresh.chmod(0o660)
            fresh.rename(self._path)
        except OSError as e:
            self._log.error("jobs.no_window", error=str(e))
            return
        try:
            await asyncio.Event().wait()
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(IDLE_S_MAX):
                    line = await reader.readline()
                if not line:
                    return
                writer.write(msgspec.json.encode(await self._answer(line)) + b"\n")
                async with asyncio.timeout(IDLE_S_MAX):
                    await writer.drain()
        except (OSError, TimeoutError, *UNREADABLE):
            pass  # the web went away, or it is not the web
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> Part:
        asked = self._decode(line)
        part = await self._hub.read_output(asked.host, asked.run_id, asked.offset)
        return Part() if part is None else Part(part.offset, part.data, part.size, part.is_ended)


async def ask(asked: AskedOutput, *, path: Path = paths.MANAGER_SOCKET) -> Part:
    """Return what the manager of this member knows of a run's output; an empty part if it cannot be asked."""
    try:
        async with asyncio.timeout(READ_S + 1):
            reader, writer = await asyncio.open_unix_connection(str(path), limit=LINE_BYTES_MAX)
            try:
                writer.write(msgspec.json.encode(asked) + b"\n")
                await writer.drain()
                return msgspec.json.decode(await reader.readline(), type=Part)
            finally:
                with contextlib.suppress(OSError):
                    writer.close()
    except (OSError, TimeoutError, *UNREADABLE):
        return Part()
