"""A client that knocks where an address was a moment ago is told so at once."""

from __future__ import annotations

import errno
import os
import socket
import time

import pytest
from address_world import FLOATING, Lan, lan
from hypothesis import given
from hypothesis import strategies as st

from futago.cluster.address.farewell import reset_for

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")
PORT = 7443


def serve(world: Lan, address: str) -> None:
    """Listen on the address in `a`, as the web does on every address."""

    def listen() -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server(("::" if ":" in address else "0.0.0.0", PORT), family=family)

    world.keep.append(world.a.do(listen))


def knock(address: str, limit_s: float = 1.5) -> tuple[str, float]:
    """Connect; return how it ended, and after how long."""
    began = time.monotonic()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(limit_s)
        try:
            s.connect((address, PORT))
            said = "connected"
        except TimeoutError:
            said = "silence"
        except OSError as e:
            said = errno.errorcode[e.errno or 0]
    return said, time.monotonic() - began


@needs_root
@pytest.mark.parametrize("address", FLOATING)
def test_client_that_comes_too_late_is_refused_at_once(address: str) -> None:
    with lan() as world:
        serve(world, address)
        a = world.floating(world.a)
        world.a.do(a.hold)
        assert world.client.do(lambda: knock(address))[0] == "connected"
        world.a.do(a.drop)
        said, after_s = world.client.do_elsewhere(lambda: knock(address, 20))
        assert said == "ECONNREFUSED" and after_s < 10


@needs_root
def test_without_the_farewell_it_would_hear_nothing() -> None:
    with lan() as world:
        serve(world, FLOATING[0])
        a = world.floating(world.a)
        world.a.do(a.hold)
        assert world.client.do(lambda: knock(FLOATING[0]))[0] == "connected"
        world.a.do(a.drop)
        world.a.do(a._farewell.end)
        assert world.client.do_elsewhere(lambda: knock(FLOATING[0], 0.7))[0] == "silence"


@needs_root
def test_new_holder_is_not_disturbed_by_the_old_one() -> None:
    with lan() as world:
        serve(world, FLOATING[0])
        a, b = world.floating(world.a), world.floating(world.b)
        world.keep.append(world.b.do(lambda: socket.create_server(("0.0.0.0", PORT))))
        world.a.do(a.hold)
        assert world.client.do(lambda: knock(FLOATING[0]))[0] == "connected"
        world.a.do(a.drop)
        world.b.do(b.hold)
        for _ in range(20):
            assert world.client.do_elsewhere(lambda: knock(FLOATING[0]))[0] == "connected"


@given(st.binary(max_size=120), st.sampled_from([4, 16]))
def test_any_frame_can_be_answered_or_not(frame: bytes, size: int) -> None:
    reset_for(frame, bytes(size))


def test_reset_is_not_answered_by_a_reset() -> None:
    ip = bytes((0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0)) + bytes((192, 0, 2, 3)) + bytes((192, 0, 2, 100))
    tcp = bytes((0x10, 0, 0x1B, 0x5F)) + bytes(8) + bytes((0x50, 0x04)) + bytes(6)
    frame = bytes(12) + b"\x08\x00" + ip + tcp
    assert reset_for(frame, bytes((192, 0, 2, 100))) is None
    asked = frame[:47] + b"\x02" + frame[48:]
    assert reset_for(asked, bytes((192, 0, 2, 100))) is not None
