"""Two web programs over one database, behind one address that moves: what a browser sees of a pair.

The address is a forwarder on loopback. `cut()` is a power cut as a client feels it: open connections fall silent
without an end, new ones are not answered. `lead_to()` is the address on another member.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import web_bench
from futago.setup import authority
from futago.web.app import Tls, listen, serve
from web_bench import Bench


@dataclass
class Address:
    """The floating address."""

    target: int = 0
    port: int = 0
    _pipes: set[asyncio.Task[None]] = field(default_factory=set)
    _silent: list[asyncio.StreamWriter] = field(default_factory=list)
    _is_cut: bool = False
    _is_hungry: bool = False

    async def serve(self) -> asyncio.Server:
        """Listen on a free port of loopback."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def cut(self) -> None:
        """Fall silent: nobody is told anything."""
        self._is_cut = True
        for pipe in self._pipes:
            pipe.cancel()

    def lead_to(self, port: int) -> None:
        """Answer again, from this port. Old connections are unknown there: they are reset."""
        self.target, self._is_cut = port, False
        for writer in self._silent:
            writer.transport.abort()
        self._silent.clear()

    def swallow_next_answer(self) -> None:
        """Let the next request through, and end its connection when the answer comes."""
        self._is_hungry = True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._silent.append(writer)
        if self._is_cut:
            return
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        for source, sink, is_answer in ((reader, back, False), (there, writer, True)):
            pipe = asyncio.create_task(self._pump(source, sink, is_answer=is_answer))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if is_answer and self._is_hungry:
                    self._is_hungry = False
                    sink.transport.abort()
                    return
                sink.write(data)
                await sink.drain()
        if not self._is_cut:
            sink.close()


@dataclass
class Twins:
    """Both members and the address."""

    address: Address
    m1: Bench
    m2: Bench
    ports: dict[str, int]

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.address.port}"


def certificate(folder: Path) -> Tls:
    """Return a certificate of a pair's own authority."""
    ca_key, key = authority.make_key(), authority.make_key()
    ca_cert = authority.make_authority("bench", ca_key)
    holder = authority.Holder(kind="member", name="m1", pair_id="bench", names=("127.0.0.1",))
    cert = authority.sign_request(authority.make_request(key), holder, ca_cert=ca_cert, ca_key=ca_key)
    tls = Tls(cert=folder / "own.crt", key=folder / "own.key")
    (folder / "ca.crt").write_bytes(ca_cert)
    tls.cert.write_bytes(cert)
    tls.key.write_bytes(key)
    return tls


@asynccontextmanager
async def running(conninfo: str, folder: Path, *, network: str = "10.91.1") -> AsyncIterator[Twins]:
    """Both members' web programs; m1 serves, the address leads to it."""
    tls = certificate(folder)
    async with AsyncExitStack() as stack:
        benches, ports = {}, {}
        for name in ("m1", "m2"):
            one = await stack.enter_async_context(
                web_bench.bench(conninfo, folder, me=name, loops=False, network=network)
            )
            benches[name] = one
            ports[name] = await stack.enter_async_context(_listening(one, tls))
        benches["m2"].controller.become(web_bench.role("standby", primary="m1"))
        address = Address(target=ports["m1"])
        await stack.enter_async_context(await address.serve())
        await web_bench.until(lambda: benches["m1"].rooms.serving.health().serving)
        yield Twins(address, benches["m1"], benches["m2"], ports)
        address.cut()


@asynccontextmanager
async def _listening(one: Bench, tls: Tls) -> AsyncIterator[int]:
    listening = listen("127.0.0.1", 0)
    stop = asyncio.Event()
    task = asyncio.create_task(serve(one.rooms, watch=one.watch, listening=listening, tls=tls, stop=stop))
    try:
        yield listening.getsockname()[1]
    finally:
        stop.set()
        await task
