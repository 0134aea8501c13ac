"""The floating IP in a network namespace of its own: held, announced, lost, taken by another."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from futago.cluster.address import netlink
from futago.cluster.address.announce import announcement, claimant, probe
from futago.cluster.address.floating import FloatingAddress
from futago.runtime.faults import Refused
from futago.runtime.log import Log

CLONE_NEWNET = 0x40000000
IP = "192.0.2.77"
RAW = socket.inet_aton(IP)
OWN, OTHER = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace")


def in_namespace(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `work` in a thread that has a network namespace of its own, with a pair of connected interfaces in it."""
    faults: list[BaseException] = []

    def body() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(CLONE_NEWNET) != 0:
                pytest.skip("no network namespaces here")
            for words in ("link add a0 type veth peer name b0", "link set a0 up", "link set b0 up", "link set lo up"):
                subprocess.run(["ip", *words.split()], check=True)
            await_carrier()
            asyncio.run(work())
        except BaseException as e:  # noqa: BLE001  handed to the test
            faults.append(e)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(30)
    if faults:
        raise faults[0]


def await_carrier() -> None:
    """A kernel takes up the carrier of a cable some time after both its ends are up."""
    ends = time.monotonic() + 20
    while (
        "LOWER_UP"
        not in subprocess.run(["ip", "link", "show", "a0"], check=True, text=True, capture_output=True).stdout
    ):
        assert time.monotonic() < ends, "no carrier"
        time.sleep(0.01)


def listener(interface: str) -> socket.socket:
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
    s.bind((interface, 0x0806))
    s.settimeout(5)
    return s


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


@needs_root
def test_address_is_added_once_seen_and_removed() -> None:
    async def work() -> None:
        assert netlink.addresses("a0") == []
        netlink.add("a0", IP)
        netlink.add("a0", IP)
        assert netlink.holds("a0", IP) and not netlink.holds("b0", IP)
        subprocess.run(["ip", "addr", "add", "192.0.2.5/24", "dev", "a0"], check=True)
        assert dict(netlink.addresses("a0")) == {IP: 32, "192.0.2.5": 24}
        netlink.remove("a0", IP)
        netlink.remove("a0", IP)
        assert [a for a, _ in netlink.addresses("a0")] == ["192.0.2.5"]
        with pytest.raises(Refused):
            netlink.add("nosuch0", IP)

    in_namespace(work)


@needs_root
def test_address_with_any_prefix_is_removed() -> None:
    async def work() -> None:
        subprocess.run(["ip", "addr", "add", f"{IP}/24", "dev", "a0"], check=True)
        netlink.remove("a0", IP)
        assert netlink.addresses("a0") == []

    in_namespace(work)


@needs_root
def test_holding_announces_in_both_forms_and_again() -> None:
    async def work() -> None:
        heard, changes = listener("b0"), []
        address = FloatingAddress(interface="a0", addresses=(IP,), on_change=lambda: changes.append(1), log=Log())
        assert address.is_held is False and address.has_carrier
        address.hold()
        assert address.is_held is True and changes
        operations: list[int] = []
        heard.setblocking(False)

        def is_heard_twice() -> bool:
            with contextlib.suppress(BlockingIOError):
                while f := heard.recv(200):
                    operations.extend(struct.unpack_from("!H", f, 20) if f[28:32] == RAW else ())
            return operations.count(2) >= 2 and operations.count(1) >= 2  # at 0 and at 0.1 s

        await until(is_heard_twice)
        address.drop()
        assert address.is_held is False
        address.close()

    in_namespace(work)


@needs_root
def test_deletion_by_somebody_else_is_noticed_at_once() -> None:
    async def work() -> None:
        address = FloatingAddress(interface="a0", addresses=(IP,), on_change=lambda: None, log=Log())
        address.hold()
        subprocess.run(["ip", "addr", "del", f"{IP}/32", "dev", "a0"], check=True)
        await until(lambda: address.is_held is False)
        address.close()

    in_namespace(work)


@needs_root
def test_lost_carrier_is_noticed_at_once() -> None:
    async def work() -> None:
        address = FloatingAddress(interface="a0", addresses=(IP,), on_change=lambda: None, log=Log())
        await until(lambda: address.has_carrier)
        subprocess.run(["ip", "link", "set", "b0", "down"], check=True)
        await until(lambda: not address.has_carrier)
        address.close()

    in_namespace(work)


@needs_root
def test_other_machine_that_answers_for_the_address_is_shown() -> None:
    async def work() -> None:
        address = FloatingAddress(interface="a0", addresses=(IP,), on_change=lambda: None, log=Log())
        address.hold()
        other = listener("b0")
        mac = other.getsockname()[4]
        other.send(announcement(mac, RAW, operation=2))
        await until(address.conflict)
        assert address.conflict() == mac.hex(":")
        address.close()

    in_namespace(work)


@needs_root
def test_address_that_is_taken_away_again_and_again_is_trouble() -> None:
    async def work() -> None:
        address = FloatingAddress(interface="a0", addresses=(IP,), on_change=lambda: None, log=Log())
        for _ in range(5):
            assert not address.trouble()
            address.hold()
            subprocess.run(["ip", "addr", "del", f"{IP}/32", "dev", "a0"], check=True)
            await until(lambda: address.is_held is False)
        assert "5 times in a row" in address.trouble()
        address.hold()
        address.drop()  # giving up what one has is no loss
        address.close()

    in_namespace(work)


@needs_root
def test_address_that_the_kernel_refuses_for_long_is_trouble_until_it_takes_it() -> None:
    async def work() -> None:
        changes: list[bool | None] = []
        address = FloatingAddress(
            interface="later0", addresses=(IP,), on_change=lambda: changes.append(address.is_held), log=Log()
        )
        for _ in range(12):
            with pytest.raises(Refused):
                address.hold()
            await asyncio.sleep(0.1)
        assert "no interface later0" in address.trouble()
        subprocess.run(["ip", "link", "add", "later0", "type", "veth", "peer", "name", "later1"], check=True)
        address.hold()
        assert address.is_held is True and not address.trouble()
        address.close()

    in_namespace(work)


@needs_root
def test_no_address_at_all_is_held_and_given_up_as_told() -> None:
    async def work() -> None:
        changes: list[bool | None] = []
        address = FloatingAddress(
            interface="a0", addresses=(), on_change=lambda: changes.append(address.is_held), log=Log()
        )
        assert address.is_held is False and address.has_carrier
        address.hold()
        address.hold()
        address.drop()
        assert changes == [True, False]
        address.close()

    in_namespace(work)


@needs_root
def test_restarted_holder_finds_what_it_holds() -> None:
    async def work() -> None:
        netlink.add("a0", IP)
        address = FloatingAddress(interface="a0", addresses=(IP,), on_change=lambda: None, log=Log())
        assert address.is_held is True
        address.close()
        assert netlink.holds("a0", IP)  # ending the watch changes nothing

    in_namespace(work)


def test_own_announcement_and_a_probe_claim_nothing() -> None:
    assert claimant(announcement(OWN, RAW, operation=1), RAW, own=OWN) is None
    assert claimant(probe(OTHER, RAW), RAW, own=OWN) is None
    assert claimant(announcement(OTHER, RAW, operation=1), RAW, own=OWN) == OTHER
    assert claimant(announcement(OTHER, socket.inet_aton("192.0.2.1"), operation=1), RAW, own=OWN) is None


@given(st.binary(max_size=80))
def test_any_frame_can_be_looked_at(frame: bytes) -> None:
    claimant(frame, RAW, own=OWN)
