"""Every kind of register on its real backend, each behind a relay that can lose replies and delay requests.

The backends: acceptors over mutual TLS on loopback; an etcd process with client certificates and accounts; moto's S3 in a
process of its own, one request at a time (its check and its write are two steps). Moto keeps nothing on a disk, so a
restart of it is a store that lost everything.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import ssl
import sys
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from free_ports import free_port
from futago.agent.juror import Juror as JurorServer
from futago.link import tls
from futago.register import jury as jury_room
from futago.register.cell import CellRegister
from futago.register.compare import Seat
from futago.register.etcd import EtcdCell
from futago.register.http import HttpPlace
from futago.register.jury import Jury
from futago.register.memory import Memory
from futago.register.objectstore import ObjectCell
from futago.register.port import Register
from futago.register.sigv4 import Key
from futago.runtime.clock import now_utc
from futago.runtime.faults import FutagoFault, Refused, Unknown
from futago.runtime.log import Log
from futago.setup.settings import AgentSettings, Juror
from pair_keys import PAIR, Keys

T = TypeVar("T")
PUT_S = 0.4
READ_S = 0.4
MEMBERS = ("m1", "m2")
ACCESS = Key("AKIDEXAMPLE", "secret", "eu-central-1")


@dataclass
class Relay:
    """A TCP path to one backend.

    `replies`: how many more pieces of replies pass, None: all; those that do not pass are lost. `requests`: how many
    more pieces of requests pass; those that do not are kept, and delivered by `deliver`, as a slow network would.
    """

    target: int
    port: int = 0
    replies: int | None = None
    requests: int | None = None
    kept: list[tuple[asyncio.StreamWriter, bytes]] = field(default_factory=list)
    _late: set[asyncio.StreamWriter] = field(default_factory=set)  # with pieces that are kept: not closed before
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()

    async def deliver(self) -> None:
        """Let the delayed requests arrive now."""
        kept, self.kept = self.kept, []
        for writer, data in kept:
            with contextlib.suppress(OSError):
                writer.write(data)
                await writer.drain()
        if kept:
            await asyncio.sleep(0.15)
        for writer, _ in kept:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        try:
            async with asyncio.TaskGroup() as group:
                down = group.create_task(self._down(back_reader, writer))
                await self._up(reader, back_writer)
                if back_writer not in self._late:
                    back_writer.close()
                    down.cancel()
        except* OSError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _up(self, reader: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.requests is None:
                    to.write(data)
                elif self.requests > 0:
                    self.requests -= 1
                    to.write(data)
                else:
                    self.kept.append((to, data))
                    self._late.add(to)

    async def _down(self, reader: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.replies is None:
                    to.write(data)
                elif self.replies > 0:
                    self.replies -= 1
                    to.write(data)
        to.close()


@dataclass
class World:
    """One register of a pair, on a real backend.

    `restart` ends the backend hard and starts it again on what its disk holds; `is_durable`: whether that is all.
    """

    name: str
    open: Callable[[str, int, Memory], Register]
    relays: list[Relay]
    restart: Callable[[], object]
    is_durable: bool = True
    _carriers: list[asyncio.Task[None]] = field(default_factory=list)

    async def member(self, me: str = "m1", *, version: int = 1, memory: Memory | None = None) -> Register:
        """Return what a member works with, connected."""
        register = self.open(me, version, memory or Memory())
        self._carriers.append(asyncio.create_task(register.run()))
        if isinstance(register, Jury):
            await until(lambda: all(m.stream is not None for m in register._messengers.values()))
        else:
            await until(lambda: register.heard_at() > 0)
        return register

    def loses_replies(self, after: int | None) -> None:
        for relay in self.relays:
            relay.replies = after

    def delays_requests(self, after: int | None) -> None:
        for relay in self.relays:
            relay.requests = after

    async def deliver(self) -> None:
        for relay in self.relays:
            relay.requests = relay.replies = None
            await relay.deliver()

    async def close(self) -> None:
        for carrier in self._carriers:
            carrier.cancel()
        await asyncio.gather(*self._carriers, return_exceptions=True)
        for relay in self.relays:
            relay.close()


async def until(done: Callable[[], bool], *, within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not done():
            await asyncio.sleep(0.01)


async def _relayed(*ports: int) -> list[Relay]:
    relays = [Relay(port) for port in ports]
    for relay in relays:
        await relay.open()
    return relays


# --- jury and witness -----------------------------------------------------------------------------------------------


class Jurors:
    """Acceptors on loopback, each with its file."""

    def __init__(self, home: Path, count: int) -> None:
        self.home, self.keys = home, Keys(home)
        self.ports = {f"j{i}": free_port() for i in range(1, count + 1)}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.contexts = {}
        for me in MEMBERS:
            cert, key, ca = self.keys.issue("member", me)
            self.contexts[me] = tls.client_context(cert=cert, key=key, ca=ca)
        self.own = {}
        for name in self.ports:
            cert, key, ca = self.keys.issue("agent", name)
            self.own[name] = tls.server_context(cert=cert, key=key, ca=ca)

    def file(self, name: str) -> Path:
        return self.home / f"{name}.slots"

    def start(self, name: str) -> None:
        own = AgentSettings(name=name, pair_id=PAIR, members=[], listen="127.0.0.1")
        server = JurorServer(self.file(name), own=own, context=self.own[name], log=Log(), port=self.ports[name])
        self.tasks[name] = asyncio.create_task(server.run())

    async def stop(self, name: str) -> None:
        task = self.tasks.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def seat(self, name: str, port: int) -> Juror:
        juror = Juror(name, "127.0.0.1", port)
        async with asyncio.timeout(60):
            while True:
                try:
                    found = await jury_room.identify(juror, pair_id=PAIR, context=self.contexts["m1"])
                except FutagoFault:
                    await asyncio.sleep(0.02)
                else:
                    return msgspec.structs.replace(juror, acceptor=found.acceptor_id)


@contextlib.asynccontextmanager
async def jury(home: Path, count: int) -> AsyncIterator[tuple[World, Jurors]]:
    jurors = Jurors(home, count)
    relays = await _relayed(*jurors.ports.values())
    for name in jurors.ports:
        jurors.start(name)
    seats = [await jurors.seat(name, relay.port) for name, relay in zip(jurors.ports, relays, strict=True)]
    kind = "witness" if count == 1 else "jury"

    def open_(me: str, version: int, memory: Memory) -> Register:
        return Jury(
            pair_id=PAIR,
            me=me,
            jurors=seats,
            version=version,
            context=jurors.contexts[me],
            log=Log(),
            kind=kind,
            memory=memory,
        )

    async def restart() -> None:
        for name in list(jurors.ports):
            await jurors.stop(name)
            jurors.start(name)
            await jurors.seat(name, jurors.ports[name])

    world = World(kind, open_, relays, restart)
    try:
        yield world, jurors
    finally:
        await world.close()
        for name in list(jurors.tasks):
            await jurors.stop(name)


# --- etcd -----------------------------------------------------------------------------------------------------------

USER, PASSWORD = "futago", 'a password with " and é'


def nameless(keys: Keys) -> tuple[Path, Path]:
    """Return a client certificate without a common name: with accounts enabled, etcd's gateway refuses one with."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(keys.ca)
    ca_key = serialization.load_pem_private_key(keys.ca_key, None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    now = now_utc()
    cert = (
        x509.CertificateBuilder(issuer_name=issuer.subject)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "pair")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    where = keys.home / "client.crt", keys.home / "client.key"
    where[0].write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    where[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return where


class Etcd:
    """One etcd process that asks for client certificates and, once `protect` has run, for a password."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.keys = Keys(home)
        self.port, self.peer_port = free_port(), free_port()
        self.cert, self.key, self.ca = self.keys.issue("server", "etcd1")
        self.client = nameless(self.keys)
        self.context = ssl.create_default_context(cafile=str(self.ca))
        self.context.load_cert_chain(*self.client)
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        url, peer = f"https://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.peer_port}"
        places = ["--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer]
        cluster = ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        files = ["--cert-file", str(self.cert), "--key-file", str(self.key), "--trusted-ca-file", str(self.ca)]
        fast = ["--heartbeat-interval", "20", "--election-timeout", "100", "--logger", "zap", "--log-level", "error"]
        fast += ["--bcrypt-cost", "4"]
        command = [
            "etcd",
            "--data-dir",
            str(self.home / "data"),
            *places,
            *cluster,
            *files,
            "--client-cert-auth",
            *fast,
        ]
        with open(self.home / "etcd.log", "ab") as log:
            self.process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(FutagoFault):
                    await self.ask("/v3/maintenance/status", {})
                    return
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def ask(self, path: str, request: object) -> dict[str, object]:
        place = HttpPlace(f"https://127.0.0.1:{self.port}", context=self.context)
        try:
            answer = await place.ask("POST", path, headers={}, body=json.dumps(request).encode(), deadline_s=1)
        finally:
            place.close()
        assert answer.status == 200, (path, answer)
        found: dict[str, object] = json.loads(answer.body)
        return found

    async def protect(self) -> None:
        """Switch authentication on; our account may touch its own keys only."""
        for name, password, role in (("root", "root's", "root"), (USER, PASSWORD, "pairs")):
            await self.ask("/v3/auth/user/add", {"name": name, "password": password})
            await self.ask("/v3/auth/role/add", {"name": role})
            await self.ask("/v3/auth/user/grant", {"user": name, "role": role})
        first, last = (base64.b64encode(k).decode() for k in (b"futago/", b"futago0"))
        permission = {"permType": "READWRITE", "key": first, "range_end": last}
        await self.ask("/v3/auth/role/grant", {"name": "pairs", "perm": permission})
        await self.ask("/v3/auth/enable", {})

    def cell(self, port: int, *, password: str = PASSWORD, key: str = f"futago/{PAIR}/view") -> EtcdCell:
        url = f"https://127.0.0.1:{port}"
        return EtcdCell([url], key=key, context=self.context, user=USER, password=password)


@contextlib.asynccontextmanager
async def etcd(home: Path) -> AsyncIterator[tuple[World, Etcd]]:
    server = Etcd(home)
    await server.start()
    relays = await _relayed(server.port)
    try:
        await server.protect()
        world = World("etcd", _cells("etcd", lambda: server.cell(relays[0].port)), relays, lambda: restart(server))
        yield world, server
        await world.close()
    finally:
        await server.kill()


@contextlib.asynccontextmanager
async def etcd_of_three(home: Path) -> AsyncIterator[tuple[EtcdCell, dict[int, asyncio.subprocess.Process]]]:
    """A cluster of three, without TLS; the cell, and the members' processes by their client port."""
    clients, peers = [free_port() for _ in range(3)], [free_port() for _ in range(3)]
    cluster = ",".join(f"e{i}=http://127.0.0.1:{port}" for i, port in enumerate(peers))
    members: dict[int, asyncio.subprocess.Process] = {}
    try:
        for i, (client, peer) in enumerate(zip(clients, peers, strict=True)):
            url, own = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
            places = ["--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", own]
            member = ["--name", f"e{i}", "--initial-advertise-peer-urls", own, "--initial-cluster", cluster]
            quiet = ["--logger", "zap", "--log-level", "error", "--data-dir", str(home / f"e{i}")]
            with open(home / f"e{i}.log", "ab") as log:
                members[client] = await asyncio.create_subprocess_exec(
                    "etcd", *places, *member, *quiet, stdout=log, stderr=log
                )
        cell = EtcdCell([f"http://127.0.0.1:{port}" for port in clients], key="futago/p/view", context=None)
        await calm(lambda: cell.get(deadline_s=2))
        yield cell, members
        cell.close()
    finally:
        for process in members.values():
            if process.returncode is None:
                process.kill()
            await process.wait()


async def restart(server: Etcd) -> None:
    await server.kill()
    await server.start()


def _cells(kind: str, cell: Callable[[], EtcdCell | ObjectCell]) -> Callable[[str, int, Memory], Register]:
    def open_(me: str, version: int, memory: Memory) -> Register:
        seat = Seat(PAIR, f"seat-{version}", version)
        return CellRegister(cell(), kind=kind, seat=seat, me=me, memory=memory, read_s=READ_S, put_s=PUT_S)

    return open_


# --- object store ---------------------------------------------------------------------------------------------------

_MOTO = """
import logging, sys, threading
from moto.server import create_backend_app
from werkzeug.serving import run_simple
logging.getLogger("werkzeug").setLevel(logging.ERROR)
inner, lock = create_backend_app("s3"), threading.Lock()
def app(environ, start_response):
    with lock:
        return inner(environ, start_response)
run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True)
"""


class Moto:
    """Moto's S3, one request at a time."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with open(self.home / "moto.log", "ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _MOTO, str(self.port), stdout=log, stderr=log, env={**os.environ, "HOME": "/tmp"}
            )
        async with asyncio.timeout(90):
            while True:
                try:
                    await asyncio.to_thread(self._make_bucket)
                    return
                except OSError:
                    await asyncio.sleep(0.1)

    def _make_bucket(self) -> None:
        place = "<CreateBucketConfiguration><LocationConstraint>eu-central-1</LocationConstraint>"
        body = f"{place}</CreateBucketConfiguration>".encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/votes", data=body, method="PUT")
        urllib.request.urlopen(request, timeout=5).close()

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def request(self) -> dict[str, Any]:
        """What `futago vote set objectstore` asks the controller for."""
        place = {"endpoints": [f"http://127.0.0.1:{self.port}"], "bucket": "votes", "region": ACCESS.region}
        return {"vote": {**place, "user": ACCESS.access}, "held": {"password": ACCESS.secret}}

    def cell(self, port: int, *, bucket: str = "votes", key: Key = ACCESS) -> ObjectCell:
        place = HttpPlace(f"http://127.0.0.1:{port}", context=None)
        return ObjectCell(place, bucket=bucket, name=f"futago/{PAIR}/view.json", key=key)


@contextlib.asynccontextmanager
async def store_alone(home: Path) -> AsyncIterator[Moto]:
    """A store alone."""
    server = Moto(home)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


@contextlib.asynccontextmanager
async def objectstore(home: Path) -> AsyncIterator[tuple[World, Moto]]:
    server = Moto(home)
    await server.start()
    relays = await _relayed(server.port)

    async def restart_() -> None:
        await server.kill()
        await server.start()

    try:
        open_ = _cells("objectstore", lambda: server.cell(relays[0].port))
        world = World("objectstore", open_, relays, restart_, is_durable=False)
        yield world, server
        await world.close()
    finally:
        await server.kill()


@contextlib.asynccontextmanager
async def world_of(kind: str, home: Path) -> AsyncIterator[World]:
    """Return a fresh register of this kind: jury, witness, etcd or objectstore."""
    match kind:
        case "jury":
            async with jury(home, 3) as (world, _):
                yield world
        case "witness":
            async with jury(home, 1) as (world, _):
                yield world
        case "etcd":
            async with etcd(home) as (world, _):
                yield world
        case _:
            async with objectstore(home) as (world, _):
                yield world


async def calm(ask: Callable[[], Awaitable[T]], *, but: str = ".") -> T:
    """Return the answer, however long the connections take; faults that do not match `but` are passed on."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await ask()
            except (Refused, Unknown) as e:
                if not re.search(but, str(e)):
                    raise
            await asyncio.sleep(0.05)
