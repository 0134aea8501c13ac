"""The door from the machine's loopback into the lab: bytes to the floating IP, wherever it is, and to nothing else."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from futago.lab import relay
from futago.lab.lab import HostProcess, Lab, LabHost
from futago.lab.topology import standard

SERVER = (
    "import socket,sys\ns=socket.create_server(('10.91.1.100',443))\n"
    "while True:\n  c,_=s.accept(); c.send(sys.argv[1].encode()+b':'+c.recv(99)); c.close()"
)


@pytest.fixture
def alone() -> Iterator[Lab]:
    """A small lab without the product's pair, so that the test may hold the floating IP itself."""
    made = Lab(f"r{os.getpid()}")
    try:
        made.up(nodes=standard(hosts=0, device=False, client=False), owner_pid=os.getpid())
        yield made
    finally:
        made.down()


def hold(member: LabHost) -> HostProcess[bytes]:
    """Let a member hold the floating IP and answer there with its name."""
    member.run(["ip", "addr", "add", "10.91.1.100/24", "dev", "eth0"])
    process = member.start(["python3", "-c", SERVER, member.name])
    while ":443" not in member.run(["ss", "-ltn"]).stdout:
        time.sleep(0.05)
    member.run(["arping", "-q", "-U", "-c1", "-I", "eth0", "10.91.1.100"])
    return process


def ask(port: int) -> bytes:
    """Send through the relay until somebody answers; a browser would come again too."""
    end = time.monotonic() + 15
    while time.monotonic() < end:
        with socket.create_connection(("127.0.0.1", port), 5) as s:
            s.settimeout(8)
            s.sendall(b"hello")
            if answer := s.recv(99):
                return answer
        time.sleep(0.2)
    raise AssertionError("nobody answered")


def test_the_relay_reaches_the_floating_ip_and_follows_it_to_the_other_member(alone: Lab) -> None:
    with socket.create_server(("127.0.0.1", 18443)):  # the first port is taken
        url = relay.start(alone.places, first_port=18443)
    port = urlsplit(url).port
    assert port is not None
    assert port > 18443
    assert relay.start(alone.places, first_port=18443) == url
    hold(alone.host("m1"))
    assert ask(port) == b"m1:hello"
    alone.host("m1").power_cut()
    hold(alone.host("m2"))
    assert ask(port) == b"m2:hello"
    alone.down()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)
