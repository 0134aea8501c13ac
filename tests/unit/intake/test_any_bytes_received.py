"""A real receiver, asked at IPv4 and IPv6: every byte of a message is kept, whatever it is and however it is framed."""

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path

import pytest
from receivers import ReceiverProcess, free_port, make_pair

from futago.intake.model import DATA_BYTES_MAX, Flag, Protocol, Record

WORDS = "障害が発生しました"
ODD = [
    b"<13>nul \0 inside",
    b"<13>not utf-8 \xff\xfe\x80",
    b"<13>" + WORDS.encode("cp932"),
    b"<13>" + WORDS.encode("euc_jp"),
    b"<13>two\nlines",
    b"\x1b[31mno priority",
]
LONGEST_DATAGRAM = 65_507  # over IPv4; over IPv6 20 bytes more


@pytest.fixture
def receiver(tmp_path: Path, pki: Path) -> ReceiverProcess:
    one, _ = make_pair(tmp_path, pki)
    one.peer, one.hosts = "", ["0.0.0.0", "::"]
    return one


def taken(one: ReceiverProcess, counter: str, count: int) -> list[Record]:
    one.wait(lambda s: s["counters"][counter] == count and s["own"]["last"] == s["own"]["synced"])
    return one.own()


@pytest.mark.parametrize(
    ("family", "host", "source"),
    [
        (socket.AF_INET, "127.0.0.1", bytes(10) + b"\xff\xff\x7f\0\0\x01"),
        (socket.AF_INET6, "::1", bytes(15) + b"\x01"),
    ],
    ids=["IPv4", "IPv6"],
)
def test_every_byte_is_kept_by_datagram_and_on_a_connection_with_both_framings(
    receiver: ReceiverProcess, family: socket.AddressFamily, host: str, source: bytes
) -> None:
    datagrams = [*ODD, b"<13>" + b"x" * (LONGEST_DATAGRAM - 4)]
    # what begins with digits and no priority is a line (framing.py)
    counted = [*(one for one in ODD if one.startswith(b"<")), b"<13>" + b"y" * (DATA_BYTES_MAX - 4)]
    lines = [one for one in ODD if b"\n" not in one]
    too_long = b"<13>" + b"z" * DATA_BYTES_MAX
    receiver.start()
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            for one in datagrams:
                s.sendto(one, (host, receiver.syslog_udp))
        found = taken(receiver, "syslog_udp", len(datagrams))
        assert [r.data for r in found] == datagrams
        with socket.create_connection((host, receiver.syslog_tcp)) as line:
            for one in counted:  # each followed by a line, on the same connection
                line.sendall(b"%d %b" % (len(one), one) + lines[0] + b"\n")
            for one in lines:
                line.sendall(one + b"\n")
            line.sendall(b"%d %b" % (len(too_long), too_long))
            found = taken(receiver, "syslog_tcp", 2 * len(counted) + len(lines) + 1)[len(datagrams) :]
        assert [r.data for r in found[:-1]] == [x for one in counted for x in (one, lines[0])] + lines
        assert found[-1].data == too_long[:DATA_BYTES_MAX] and found[-1].flags & Flag.CUT
        assert {r.source for r in found} == {source}
        assert {r.protocol for r in found} == {Protocol.SYSLOG_TCP}
        assert not any(r.flags & Flag.CUT for r in found[:-1])
    finally:
        receiver.stop()


def test_tls_and_relp_take_messages_by_ipv6(receiver: ReceiverProcess) -> None:
    tls, relp = free_port(), free_port()
    receiver.write_options(f"[syslog_tls]\nport = {tls}\n[relp]\nport = {relp}\ntls = false\n")
    receiver.start()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with connected("::1", tls) as plain, context.wrap_socket(plain) as line:
            line.sendall(b"13 <13>over tls \n")
            taken(receiver, "syslog_tls", 1)
        with connected("::1", relp) as client:
            client.sendall(b"1 open 30 relp_version=0\ncommands=syslog\n2 syslog 13 <13>over relp\n3 close 0\n")
            said = b""
            while piece := client.recv(4096):
                said += piece
        assert b"2 rsp 6 200 OK\n" in said
        found = taken(receiver, "syslog_relp", 1)
        assert [(r.protocol, r.data, r.source) for r in found] == [
            (Protocol.SYSLOG_TLS, b"<13>over tls ", bytes(15) + b"\x01"),
            (Protocol.SYSLOG_RELP, b"<13>over relp", bytes(15) + b"\x01"),
        ]
    finally:
        receiver.stop()


def connected(host: str, port: int) -> socket.socket:
    """Return a connection, as soon as the port that the options ask for is served."""
    end = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection((host, port), timeout=30)
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.05)
