"""A small door from the machine's loopback into a lab: bytes from 127.0.0.1:PORT go to the pair's floating IP and back;
nothing else passes.

The listening socket belongs to the machine's network; each outgoing socket is made inside a namespace of the lab. The
process lives in the lab's cgroup and ends with the lab.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress

from futago.lab import machine
from futago.lab.daemon import RELAY
from futago.lab.network import NAMESPACES
from futago.lab.places import SOURCE, Places, places
from futago.lab.state import load_state, page_url, relay_file
from futago.lab.topology import FLOATING_IP
from futago.runtime.faults import OperatorFault, Refused

PORTS_TRIED_MAX = 50
CHUNK_BYTES = 65536
CONNECT_S = 5.0
TARGET = (FLOATING_IP.split("/")[0], 443)


def start(where: Places, *, first_port: int) -> str:
    """Start the relay on the first free port from `first_port`; return the page's URL. One that runs is kept.

    Raises:
        Refused: it does not start.
    """
    if (running := page_url(where)) is not None:
        return running
    relay_file(where).unlink(missing_ok=True)
    cgroup = machine.Cgroup(machine.lab_cgroup(where.name).path / "relay")
    cgroup.make()
    env = {**machine.CLEAN_ENV, "PYTHONPATH": str(SOURCE / "src"), "FUTAGO_LAB_STATE": str(where.home.parent)}
    command = [sys.executable, "-m", "futago.lab.relay", where.name, str(first_port)]
    with (where.home / "relay.log").open("ab") as log:
        process = subprocess.Popen(
            machine.within(cgroup, command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=env,
            cwd="/",
        )
    end = time.monotonic() + 15
    while (found := page_url(where)) is None:
        if process.poll() is not None or time.monotonic() > end:
            said = (where.home / "relay.log").read_text(encoding="utf-8", errors="replace")[-500:]
            raise Refused(f"the relay to the lab does not start: {said}")
        time.sleep(0.05)
    return found


class Relay:
    """The running relay.

    Args:
        inside: an open file of the lab's network namespace.
    """

    def __init__(self, inside: int) -> None:
        self._inside = inside
        self._outside = os.open("/proc/self/ns/net", os.O_RDONLY)

    def _socket(self) -> socket.socket:
        """Return a socket of the lab's namespace; there is no await between going in and coming back."""
        machine.set_netns(self._inside)
        try:
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        finally:
            machine.set_netns(self._outside)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a member without power says nothing: notice it
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side ends it."""
        upstream: asyncio.StreamWriter | None = None
        try:
            sock = self._socket()
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().sock_connect(sock, TARGET)
            back, upstream = await asyncio.open_connection(sock=sock)
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, upstream))
                both.create_task(_pump(back, writer))
        except (OSError, TimeoutError, ExceptionGroup):
            pass  # either side is gone: so is the connection; the browser comes again
        finally:
            for side in (upstream, writer):
                if side is not None:
                    side.close()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(CHUNK_BYTES):
        target.write(data)
        await target.drain()
    with suppress(OSError):
        target.write_eof()


async def _run(where: Places, first_port: int) -> None:
    state = load_state(where)
    inside = os.open(f"/proc/{state.daemon_pid}/root{NAMESPACES}/{RELAY}", os.O_RDONLY)
    relay = Relay(inside)
    for port in range(first_port, first_port + PORTS_TRIED_MAX):
        try:
            server = await asyncio.start_server(relay.serve, "127.0.0.1", port)
            break
        except OSError:
            continue
    else:
        raise OperatorFault(
            f"No port from {first_port} on is free.", hint="Name another one with --port.", code="lab.port"
        )
    found = {"port": port, "pid": os.getpid(), "started": machine.started_ticks(os.getpid())}
    new = relay_file(where).with_suffix(".new")
    new.write_text(json.dumps(found), encoding="utf-8")
    new.rename(relay_file(where))
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_run(places(sys.argv[1]), int(sys.argv[2])))
