"""INFORMs of real senders to real receivers: answered when both disks have them, from the address that was asked, and
a repetition is no second message."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pysnmp.hlapi.v3arch.asyncio import (  # type: ignore[import-untyped]
    ContextData,
    NotificationType,
    ObjectIdentity,
    SnmpEngine,
    UdpTransportTarget,
    UsmUserData,
    send_notification,
    usmAesCfb128Protocol,
    usmHMACSHAAuthProtocol,
)
from receivers import Controller, ReceiverProcess, make_pair
from test_snmp_decoder import encoded
from test_snmp_security import NET_SNMP

from futago.intake import usm
from futago.intake.model import Record
from futago.intake.options import Options, parse
from futago.intake.snmp import decode, is_v3
from futago.intake.traps import TrapCounters, TrapReader

LINK_DOWN = "1.3.6.1.6.3.1.1.5.3"
OPTIONS = """
[snmp]
communities = ["public"]
users = [
    { name = "plain" },
    { name = "auth", auth = "sha256", auth_password = "auth-password" },
    { name = "priv", auth = "sha512", auth_password = "auth-password", priv = "aes128", priv_password = "priv-password" },
    { name = "old", auth = "sha1", auth_password = "auth-password", priv = "aes128", priv_password = "priv-password" },
]
"""
KNOWN: Options = parse(OPTIONS, where=Path("intake.toml"))
Pair = tuple[ReceiverProcess, ReceiverProcess]


@contextlib.contextmanager
def started(tmp: Path, pki: Path) -> Iterator[Pair]:
    """Two receivers that know users."""
    if not shutil.which("snmpinform"):
        pytest.skip("snmpinform is not installed")
    one, two = make_pair(tmp, pki)
    try:
        for each in (one, two):
            each.write_options(OPTIONS)
            each.start()
        for each in (one, two):
            each.wait(lambda status: status["complete"])
        yield one, two
    finally:
        one.stop()
        two.stop()


@pytest.fixture
def pair_with_users(tmp_path: Path, pki: Path) -> Iterator[Pair]:
    """For tests that kill."""
    with started(tmp_path, pki) as pair:
        yield pair


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory, pki: Path) -> Iterator[Pair]:
    """For tests that do not: one pair for all of them."""
    with started(tmp_path_factory.mktemp("standing"), pki) as pair:
        yield pair


class Since:
    """What a receiver has got since this was made."""

    def __init__(self, receiver: ReceiverProcess) -> None:
        self._receiver = receiver
        self._records = len(receiver.own())
        self._counters = receiver.status()["counters"]

    def records(self) -> list[Record]:
        return self._receiver.own()[self._records :]

    def counted(self, name: str) -> int:
        return int(self._receiver.status()["counters"][name] - self._counters[name])


def inform(
    receiver: ReceiverProcess, *sender: str, retries: int = 8, number: int = 1, wait: bool = True
) -> subprocess.Popen[str]:
    """Send an INFORM with net-snmp; it ends with 0 if, and only if, a valid answer came."""
    process = subprocess.Popen(
        [
            *("snmpinform", "-m", "", "-t", "0.3", "-r", str(retries), *sender, f"127.0.0.1:{receiver.snmp_udp}"),
            *("", LINK_DOWN, "1.3.6.1.2.1.2.2.1.1.2", "i", str(number)),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    if wait:
        _, said = process.communicate(timeout=15)
        assert process.returncode == 0, said
    return process


def v3(name: str) -> list[str]:
    user = next(user for user in KNOWN.snmp.users if user.name == name)
    args = ["-v3", "-u", name, "-l", "authPriv" if user.priv else "authNoPriv" if user.auth else "noAuthNoPriv"]
    args += ["-a", NET_SNMP[user.auth], "-A", user.auth_password] if user.auth else []
    return [*args, "-x", "AES", "-X", user.priv_password] if user.priv else args


def numbers(got: ReceiverProcess | Since) -> list[str]:
    reader = TrapReader(KNOWN.snmp, TrapCounters())
    records = got.records() if isinstance(got, Since) else got.own()
    return [reader.text(record).rpartition("=")[2] for record in records]


def test_informs_of_every_version_are_answered_and_recorded_once_on_both_disks(standing: Pair) -> None:
    one, two = standing
    since = Since(one)
    senders = [["-v2c", "-c", "public"], v3("plain"), v3("auth"), v3("priv"), v3("old")]
    for number, sender in enumerate(senders):
        inform(one, *sender, number=number)
    assert numbers(since) == [str(n) for n in range(len(senders))]
    assert two.copy() == one.own()
    assert [is_v3(r.data) for r in since.records()] == [False, True, True, True, True]
    assert since.counted("informs") == since.counted("informs_answered") == len(senders)
    assert since.counted("snmp_reports") > 0, "v3 senders asked for our engine first"


async def test_pysnmp_takes_our_answer(standing: Pair) -> None:
    one, _ = standing
    since = Since(one)
    user = UsmUserData(
        *("old", "auth-password", "priv-password"),
        authProtocol=usmHMACSHAAuthProtocol,
        privProtocol=usmAesCfb128Protocol,
    )
    engine = SnmpEngine()
    target = await UdpTransportTarget.create(("127.0.0.1", one.snmp_udp), timeout=1, retries=5)
    error, status, _, _ = await send_notification(
        engine, user, target, ContextData(), "inform", NotificationType(ObjectIdentity(LINK_DOWN))
    )
    engine.close_dispatcher()
    assert (error, int(status)) == (None, 0)
    assert len(await asyncio.to_thread(since.records)) == 1


def test_wrong_communities_and_passwords_get_no_answer(standing: Pair) -> None:
    one, _ = standing
    since = Since(one)
    priv = v3("priv")
    priv[priv.index("-A") + 1] = "wrong-password"
    lower = ["-v3", "-u", "priv", "-l", "noAuthNoPriv"]
    processes = [
        inform(one, *sender, retries=2, wait=False)
        for sender in (["-v2c", "-c", "private"], priv, lower, ["-v3", "-u", "nobody", "-l", "noAuthNoPriv"])
    ]
    for process in processes:
        _, said = process.communicate(timeout=15)
        assert process.returncode != 0, said
    assert since.counted("informs") == 0
    assert {is_v3(r.data) for r in since.records()} == {False}, "a wrong community is recorded, and then refused"


@pytest.mark.parametrize("sender", [["-v2c", "-c", "public"], v3("priv")], ids=["v2c", "v3"])
def test_an_inform_is_not_answered_before_the_other_member_has_it(pair_with_users: Pair, sender: list[str]) -> None:
    one, two = pair_with_users
    inform(one, *sender, number=1)
    two.kill()
    process = inform(one, *sender, number=2, retries=60, wait=False)
    one.wait(lambda s: s["counters"]["informs"] == 2 and s["counters"]["informs_repeated"] >= 3)
    assert process.poll() is None, "answered although only one disk has it"
    two.start()
    _, said = process.communicate(timeout=15)
    assert process.returncode == 0, said
    assert numbers(one) == ["1", "2"], "a repetition is no second message"
    assert two.copy() == one.own()


def test_a_member_that_serves_alone_answers_alone(pair_with_users: Pair) -> None:
    """The controller says so; its socket is played here, its line is the real one."""
    one, two = pair_with_users
    two.kill()
    process = inform(one, "-v2c", "-c", "public", retries=60, wait=False)
    one.wait(lambda s: s["counters"]["informs_repeated"] >= 1)
    assert process.poll() is None
    with Controller(one, role="primary", solo=True, epoch=3, gate="open", outward=True) as controller:
        _, said = process.communicate(timeout=15)
        assert process.returncode == 0, said
        assert not one.status()["settled"], "more may be answered alone"
        controller.line |= {"solo": False, "turn": 9}
        assert not one.wait(lambda s: s["turn"] == 9)["settled"], "the other does not have what was answered"
        two.start()
        one.wait(lambda s: s["turn"] == 9 and s["settled"])
        assert two.copy() == one.own() != []


@pytest.mark.parametrize("sender", [["-v2c", "-c", "public"], v3("priv")], ids=["v2c", "v3"])
def test_a_repetition_is_known_after_a_restart_and_on_the_other_member(
    pair_with_users: Pair, sender: list[str]
) -> None:
    one, two = pair_with_users
    relay = Relay(one.snmp_udp)
    command = [*("snmpinform", "-m", "", "-t", "0.3", "-r", "100"), *sender, f"127.0.0.1:{relay.port}"]
    process = subprocess.Popen([*command, "", LINK_DOWN, "1.3.6.1.2.1.2.2.1.1.2", "i", "8"])
    try:
        relay.carry_until(lambda: "8" in numbers(one), loses_informs_answers=True)
        one.wait(lambda s: s["complete"])
        before = one.own()
        one.kill()
        one.start()
        one.wait(lambda s: s["complete"])
        relay.carry_until(lambda: one.status()["counters"]["informs_repeated"] >= 1, loses_informs_answers=True)
        relay.target = two.snmp_udp
        relay.carry_until(lambda: process.poll() is not None, loses_informs_answers=False)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        relay.close()
    assert one.own() == before, "recorded anew after a restart"
    assert two.own() == [], "recorded anew on the other member"
    assert two.status()["counters"]["informs_repeated"] >= 1


class Relay:
    """Carries datagrams between a sender and a receiver, always from the same port, and loses answers on demand."""

    def __init__(self, target: int) -> None:
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.bind(("127.0.0.1", 0))
        self._back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._back.bind(("127.0.0.1", 0))
        self._sides = {one.fileno(): one for one in (self._front, self._back)}
        self._poll = select.poll()  # select(2) cannot look at descriptors from 1024 on
        for fd in self._sides:
            self._poll.register(fd, select.POLLIN)
        self._sender: tuple[str, int] = ("127.0.0.1", 0)
        self.port = self._front.getsockname()[1]
        self.target = target

    def carry_until(self, is_done: Callable[[], bool], *, loses_informs_answers: bool) -> None:
        until, is_question = time.monotonic() + 15, False
        while not is_done():
            assert time.monotonic() < until, "not within its time"
            for one in [self._sides[fd] for fd, _ in self._poll.poll(50)]:
                if one is self._front:
                    data, self._sender = one.recvfrom(65536)
                    is_question = is_v3(data) and usm.parse(data).boots == 0
                    self._back.sendto(data, ("127.0.0.1", self.target))
                    continue
                answer, source = one.recvfrom(65536)
                is_late = source[1] != self.target  # of the member that was asked before
                if not is_late and (is_question or not loses_informs_answers):
                    self._front.sendto(answer, self._sender)

    def close(self) -> None:
        self._front.close()
        self._back.close()


def test_the_program_that_opens_v3_may_die_at_any_time(standing: Pair) -> None:
    one, _ = standing
    since = Since(one)
    inform(one, *v3("priv"), number=1)
    assert one.process is not None
    (child,) = Path(f"/proc/{one.process.pid}/task/{one.process.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    inform(one, *v3("priv"), number=2, retries=40)
    assert numbers(since) == ["1", "2"]


def test_a_malformed_inform_is_recorded_and_stops_nothing(standing: Pair) -> None:
    one, _ = standing
    since = Since(one)
    good = encoded([]).replace(b"\xa7", b"\xa6", 1)
    at = good.index(b"public") + 6
    bad = [good[: at + 2] + b"\x05" + good[at + 3 :], good[:-1], good.replace(b"\x06\x08", b"\x07\x08", 1)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        for data in bad:
            s.sendto(data, ("127.0.0.1", one.snmp_udp))
        s.sendto(good, ("127.0.0.1", one.snmp_udp))
        assert s.recv(65536) == good.replace(b"\xa6", b"\xa2", 1)
    assert [r.data for r in since.records()] == [*bad, good]


def test_the_answer_leaves_from_the_address_that_was_asked(tmp_path: Path, pki: Path) -> None:
    """A receiver that listens everywhere, asked at two of its addresses, IPv4 and IPv6."""
    one, _ = make_pair(tmp_path, pki)
    one.peer, one.hosts = "", ["0.0.0.0", "::"]
    one.start()
    try:
        data = encoded([]).replace(b"\xa7", b"\xa6", 1)
        for family, asked in ((socket.AF_INET, "127.0.0.2"), (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family, socket.SOCK_DGRAM) as s:
                s.settimeout(5)
                s.sendto(data, (asked, one.snmp_udp))
                answer, source = s.recvfrom(65536)
            assert source[:2] == (asked, one.snmp_udp)
            assert answer == data.replace(b"\xa6", b"\xa2", 1)
            assert decode(data).community == b"public"
    finally:
        one.stop()
