"""Silence for the floating IP counts only where somebody else on the network answers."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from pathlib import Path

from test_floating_address import IP, RAW, in_namespace, needs_root, until

from futago.cluster.address.announce import announcement, claimant, probe, sender
from futago.cluster.address.floating import FloatingAddress
from futago.cluster.address.neighbours import KNOWN_MAX, Neighbours
from futago.runtime.log import Log

OWN, OTHER = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
ARP = """\
IP address       HW type     Flags       HW address            Mask     Device
192.0.2.1        0x1         0x2         02:00:00:00:00:01     *        eth0
192.0.2.2        0x1         0x0         00:00:00:00:00:00     *        eth0
192.0.2.77       0x1         0x2         02:00:00:00:00:03     *        eth0
192.0.2.4        0x1         0x2         02:00:00:00:00:04     *        eth1
"""
ROUTE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\tFE0200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


def raw(text: str) -> bytes:
    return socket.inet_aton(text)


def test_routers_and_known_machines_of_the_interface_are_asked_and_never_the_floating_address(tmp_path: Path) -> None:
    (tmp_path / "arp").write_text(ARP)
    (tmp_path / "route").write_text(ROUTE)
    neighbours = Neighbours("eth0", but=(IP,), tables=tmp_path)
    assert neighbours.known() == [raw("192.0.2.254"), raw("192.0.2.1")]
    neighbours.heard(raw("192.0.2.9"), 5, is_answer=False)
    neighbours.heard(RAW, 5, is_answer=True)
    assert neighbours.known()[1] == raw("192.0.2.9") and not neighbours.do_answer(5, within=10)
    for n in range(100):
        neighbours.heard(raw(f"198.51.100.{n}"), 7, is_answer=True)
    assert len(neighbours.known()) == KNOWN_MAX and neighbours.known()[:2] == [raw("192.0.2.254"), raw("198.51.100.99")]
    assert neighbours.do_answer(16, within=10) and not neighbours.do_answer(17, within=10)


def test_tables_that_cannot_be_read_name_nobody(tmp_path: Path) -> None:
    assert Neighbours("eth0", but=(), tables=tmp_path).known() == []


def test_sender_of_a_frame_is_told_and_whether_it_answers_us() -> None:
    told = announcement(OTHER, RAW, operation=2)
    assert sender(told, own=OWN) == (RAW, False) and sender(told, own=OTHER) is None
    answer = told[:32] + OWN + told[38:]
    assert sender(answer, own=OWN) == (RAW, True) and claimant(answer, RAW, own=OWN) == OTHER
    assert (
        sender(probe(OTHER, RAW), own=OWN) is None
        and sender(b"x" * 42, own=OWN) is None
        and sender(b"", own=OWN) is None
    )


@needs_root
def test_silence_for_the_address_says_nothing_until_a_neighbour_answers() -> None:
    async def asked(address: FloatingAddress, seconds: float) -> bool | None:
        said = None
        for _ in range(int(seconds / 0.1)):
            said = address.answers()
            await asyncio.sleep(0.1)
        return said

    async def work() -> None:
        libc_peer = subprocess.Popen(["unshare", "-n", "sleep", "60"])
        try:
            own, its = (Path(f"/proc/{pid}/ns/net") for pid in ("thread-self", libc_peer.pid))
            await until(lambda: own.readlink() != its.readlink())  # it has a network of its own now
            run = lambda words: subprocess.run(words.split(), check=True)  # noqa: E731
            inside = f"nsenter -t {libc_peer.pid} -n "
            run(f"ip link set b0 netns {libc_peer.pid}")
            run("ip addr add 192.0.2.5/24 dev a0")
            run(inside + "ip link set b0 up")
            address = FloatingAddress(interface="a0", addresses=(IP,), on_change=lambda: None, log=Log())
            await until(lambda: address.has_carrier)
            assert await asked(address, 2.0) is None  # a cable that leads to nobody
            run(inside + "ip addr add 192.0.2.6/24 dev b0")
            run("ip neigh replace 192.0.2.6 lladdr 02:00:00:00:00:99 dev a0 nud stale")
            assert await asked(address, 2.0) is False
            run(inside + f"ip addr add {IP}/32 dev b0")
            assert await asked(address, 1.0) is True
            run(inside + f"ip addr del {IP}/32 dev b0")
            run(inside + "ip addr del 192.0.2.6/24 dev b0")
            assert await asked(address, 2.0) is None  # cut off: the neighbour is silent, too
            address.close()
        finally:
            libc_peer.kill()
            libc_peer.wait()

    in_namespace(work)
