"""Moving IPv4 and IPv6 floating addresses between two machines, as a third machine sees it."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time

import pytest
from address_world import FLOATING, Answers, Client, Lan, lan

from futago.cluster.address import netlink

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")

GAP_S_MAX = 0.5  # measured 2 to 15 ms; the bound leaves room for a machine that is busy with other things


def watch(world: Lan, address: str, move: object, *, to: str, limit_s: float = 30) -> tuple[Client, bool]:
    """Have a client talk to the address while it is moved; return what it heard, and whether `to` answered at last."""
    client, answered = Client(address), threading.Event()

    def talk() -> bool:
        client.run(until=lambda c: c.is_answered_by("a"))
        answered.set()
        return client.run(until=lambda c: c.is_answered_by(to) and len(c.heard) > 50, limit_s=limit_s)

    result: list[bool] = []
    thread = threading.Thread(target=lambda: result.append(world.client.do(talk)))
    thread.start()
    assert answered.wait(10)
    time.sleep(0.02)
    assert callable(move)
    move()
    thread.join(20)
    return client, result == [True]


@pytest.mark.parametrize("address", FLOATING)
def test_planned_move_is_a_gap_of_milliseconds_for_a_client(address: str) -> None:
    with lan() as world:
        Answers(world.a), Answers(world.b)
        a, b = world.floating(world.a), world.floating(world.b)
        world.a.do(a.hold)

        def move() -> None:
            world.a.do(a.drop)
            world.b.do(b.hold)

        client, is_moved = watch(world, address, move, to="b")
        assert is_moved
        assert client.gap_s() < GAP_S_MAX
        assert a.is_held is False and b.is_held is True


@pytest.mark.parametrize("address", FLOATING)
def test_takeover_from_a_machine_that_was_unplugged_is_a_gap_of_milliseconds(address: str) -> None:
    with lan() as world:
        Answers(world.a), Answers(world.b)
        a, b = world.floating(world.a), world.floating(world.b)
        world.a.do(a.hold)

        def move() -> None:
            world.switch.ip("link set p1 down")
            world.b.do(b.hold)

        client, is_moved = watch(world, address, move, to="b")
        assert is_moved
        assert client.gap_s() < GAP_S_MAX


@pytest.mark.parametrize("address", FLOATING)
def test_without_announcements_a_client_would_go_on_talking_to_the_old_place(address: str) -> None:
    """The oracle can fail: what the two tests above see comes from the announcements."""
    with lan() as world:
        Answers(world.a), Answers(world.b)
        a, b = world.floating(world.a), world.floating(world.b, is_announced=False)
        world.a.do(a.hold)

        def move() -> None:
            world.switch.ip("link set p1 down")
            world.b.do(b.hold)

        _client, is_moved = watch(world, address, move, to="b", limit_s=1.0)
        assert not is_moved


def test_both_addresses_are_held_together_and_usable_at_once() -> None:
    with lan() as world:
        a = world.floating(world.a)
        assert a.is_held is False
        world.a.do(a.hold)
        found = {f.address: f for f in world.a.do(lambda: netlink.find("e0"))}
        assert all(found[x].is_usable for x in FLOATING)
        assert (found[FLOATING[0]].prefix, found[FLOATING[1]].prefix) == (32, 128)
        world.a.ip(f"-6 addr del {FLOATING[1]}/128 dev e0")
        wait(lambda: a.is_held is None)  # one of two: neither held nor given up
        world.a.do(a.hold)
        assert a.is_held is True
        world.a.do(a.drop)
        assert a.is_held is False
        assert not {f.address for f in world.a.do(lambda: netlink.find("e0"))} & set(FLOATING)


def test_address_is_never_the_source_of_what_this_machine_begins() -> None:
    with lan() as world:
        a = world.floating(world.a)
        world.a.do(a.hold)
        said = world.a.do(lambda: say("route", "get", "fd00:0:0:1::3"))
        assert "src fd00:0:0:1::1 " in said


def test_address_that_failed_duplicate_detection_is_put_right() -> None:
    with lan() as world:
        world.b.ip(f"addr add {FLOATING[1]}/64 dev e0 nodad")
        world.a.ip(f"addr add {FLOATING[1]}/64 dev e0")  # somebody adds it plainly: detection finds b's
        a = world.floating(world.a)
        wait(lambda: any(not f.is_usable for f in world.a.do(lambda: netlink.find("e0")) if f.address == FLOATING[1]))
        assert a.is_held is False
        world.a.do(a.hold)
        assert a.is_held is True


def test_other_machine_that_advertises_the_address_is_shown() -> None:
    with lan() as world:
        a, b = world.floating(world.a), world.floating(world.b)
        world.a.do(a.hold)
        assert a.conflict() == ""
        world.b.do(b.hold)
        wait(a.conflict)
        assert f"link/ether {a.conflict()} " in world.b.do(lambda: say("-o", "link", "show", "e0"))


def test_machine_without_the_address_knows_whether_another_answers_for_it() -> None:
    with lan() as world:
        a, b = world.floating(world.a), world.floating(world.b)
        assert world.a.do(a.answers) is None  # nobody has been asked yet
        world.b.do(b.hold)
        wait(lambda: world.a.do(a.answers) is True)
        assert world.b.do(b.answers) is None  # its own
        world.b.do(b.drop)
        wait(lambda: world.a.do(a.answers) is None)  # its own network may be the dead one: nobody else was ever heard
        world.a.do(lambda: speak("192.0.2.3"))
        wait(lambda: world.a.do(a.answers) is False)  # the client answers, so the silence is the address'
        world.switch.ip("link set p1 down")
        wait(lambda: world.a.do(a.answers) is None)


def speak(address: str) -> None:
    """Send one datagram there, so that the kernel asks for its hardware address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"good evening", (address, 9))


def say(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=10).stdout


def wait(condition: object, limit_s: float = 30) -> None:
    assert callable(condition)
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)
