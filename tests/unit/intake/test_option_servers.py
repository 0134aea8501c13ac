"""Syslog over TLS and RELP with real senders (openssl, rsyslog): received, acknowledged when safe, never twice."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from receivers import ReceiverProcess, make_pair, make_pki

from free_ports import free_port
from futago.intake.model import Protocol

Pair = tuple[ReceiverProcess, ReceiverProcess]


@pytest.fixture
def senders_pki(tmp_path: Path) -> Path:
    """An authority of the senders, and certificates of two of them."""
    return make_pki(tmp_path / "senders", "web1", "web2")


@pytest.fixture
def served(tmp_path: Path, pki: Path, senders_pki: Path) -> Iterator[tuple[Pair, dict[str, int]]]:
    """Two receivers that serve everything, and the ports of the first."""
    pair = make_pair(tmp_path, pki)
    ports = {"tls": free_port(), "relp": free_port()}
    try:
        for one in pair:
            ca = senders_pki / "ca.crt"
            tls, relp = (ports["tls"], ports["relp"]) if one is pair[0] else (free_port(), free_port())
            one.write_options(
                f'[syslog_tls]\nport = {tls}\nclient_ca = "{ca}"\nclients = ["web1"]\n[relp]\nport = {relp}\n'
            )
            one.start()
        for one in pair:
            one.wait(lambda status: status["complete"])
            assert one.status()["unbound"] == []
        yield pair, ports
    finally:
        for one in pair:
            one.stop()


def sender_context(pki: Path, senders: Path, name: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.check_hostname = False
    if name is not None:
        context.load_cert_chain(senders / f"{name}.crt", senders / f"{name}.key")
    return context


def test_tls_takes_senders_with_the_right_certificate_only(
    served: tuple[Pair, dict[str, int]], pki: Path, senders_pki: Path
) -> None:
    (one, two), ports = served
    where = ("127.0.0.1", ports["tls"])
    mixed = b"<13>1 - counted" + b"\n<13>a line\n" + b"10 <13>second<13>third\n"
    with sender_context(pki, senders_pki, "web1").wrap_socket(socket.create_connection(where)) as s:
        s.sendall(b"15 " + mixed)
    one.wait(lambda s: s["counters"]["syslog_tls"] == 4)
    for name in ("web2", None):
        with (
            pytest.raises((ssl.SSLError, OSError)),
            sender_context(pki, senders_pki, name).wrap_socket(socket.create_connection(where, timeout=5)) as s,
        ):
            for _ in range(50):
                s.sendall(b"<13>not let in\n")
                time.sleep(0.02)
    status = one.wait(lambda s: s["counters"]["tls_refused"] == 1 and s["complete"])
    assert status["counters"]["syslog_tls"] == 4
    assert [r.data for r in one.own()] == [b"<13>1 - counted", b"<13>a line", b"<13>second", b"<13>third"]
    assert {r.protocol for r in one.own()} == {Protocol.SYSLOG_TLS}
    one.wait(lambda s: s["sync"]["peer_has"] == s["own"]["last"])
    assert two.copy() == one.own()


def test_openssl_speaks_tls_with_us(served: tuple[Pair, dict[str, int]], pki: Path, senders_pki: Path) -> None:
    (one, _), ports = served
    command = ["openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{ports['tls']}", "-CAfile", str(pki / "ca.crt")]
    command += ["-cert", str(senders_pki / "web1.crt"), "-key", str(senders_pki / "web1.key"), "-no_ign_eof"]
    subprocess.run(command, input=b"<13>from openssl\n", check=True, capture_output=True, timeout=10)
    one.wait(lambda s: s["counters"]["syslog_tls"] == 1)


class Rsyslog:
    """A real rsyslogd that forwards what comes to a local socket by RELP, in the foreground."""

    def __init__(self, folder: Path, port: int) -> None:
        self.socket = folder / "log"
        config = folder / "rsyslog.conf"
        config.write_text(
            'module(load="imuxsock" SysSock.Use="off")\nmodule(load="omrelp")\n'
            f'input(type="imuxsock" Socket="{self.socket}" RateLimit.Interval="0" UsePIDFromSystem="off")\n'
            f'action(type="omrelp" target="127.0.0.1" port="{port}" timeout="2" conn.timeout="1"'
            ' action.resumeRetryCount="-1" action.resumeInterval="1" queue.type="LinkedList" queue.size="100000")\n'
        )
        command = ["rsyslogd", "-n", "-f", str(config), "-i", str(folder / "pid")]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 30
        while not self.socket.exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        self._client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._client.connect(str(self.socket))

    def log(self, first: int, last: int) -> None:
        for number in range(first, last):
            self._client.send(b"<13>Nov 22 11:00:00 app[1]: SEQ=%d" % number)

    def stop(self) -> None:
        self._client.close()
        self.process.terminate()
        self.process.wait(15)


@pytest.fixture
def rsyslog(tmp_path: Path, served: tuple[Pair, dict[str, int]]) -> Iterator[Rsyslog]:
    if not shutil.which("rsyslogd") or not Path("/usr/lib/x86_64-linux-gnu/rsyslog/omrelp.so").exists():
        pytest.skip("rsyslog-relp is not installed")
    made = Rsyslog(tmp_path, served[1]["relp"])
    yield made
    made.stop()


def numbers(receiver: ReceiverProcess) -> list[int]:
    return [int(r.data.rpartition(b"=")[2]) for r in receiver.own()]


def test_rsyslog_by_relp_through_deaths_of_both_members_has_everything_once(
    served: tuple[Pair, dict[str, int]], rsyslog: Rsyslog
) -> None:
    (one, two), _ = served
    rsyslog.log(0, 300)
    one.wait(lambda s: s["counters"]["relp_acknowledged"] == 300)
    two.kill()
    rsyslog.log(300, 500)
    status = one.wait(lambda s: s["counters"]["syslog_relp"] > 300)
    time.sleep(0.5)
    assert one.status()["counters"]["relp_acknowledged"] == 300, "the other member's disk has it not"
    assert status["counters"]["syslog_relp"] <= 500
    one.kill()  # unacknowledged, and recorded: rsyslog sends them again
    one.start()
    two.start()
    rsyslog.log(500, 600)
    one.wait(lambda s: sorted(numbers(one)) == list(range(600)) and s["complete"], limit_s=20)
    one.wait(lambda s: s["counters"]["relp_repeated"] > 0)
    one.wait(lambda s: s["sync"]["peer_has"] == s["own"]["last"])
    assert two.copy() == one.own()


def test_a_relp_client_of_our_own_says_open_and_close_and_is_told_of_unknown_commands(
    served: tuple[Pair, dict[str, int]],
) -> None:
    (one, _), ports = served
    with socket.create_connection(("127.0.0.1", ports["relp"]), timeout=5) as s:
        s.sendall(b"1 open 30 relp_version=0\ncommands=syslog\n2 syslog 5 <13>a\n3 dance 0\n4 close 0\n")
        said = b""
        while chunk := s.recv(4096):
            said += chunk
    assert b"1 rsp " in said
    assert b"3 rsp 25 500 command not supported\n" in said
    assert said.endswith(b"2 rsp 6 200 OK\n4 rsp 0\n0 serverclose 0\n")
    assert [r.data for r in one.own()] == [b"<13>a"]
    with socket.create_connection(("127.0.0.1", ports["relp"]), timeout=5) as s:
        s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert s.recv(100) == b""
    assert one.status()["counters"]["relp_faults"] == 1


def test_two_connections_of_one_sender_leave_each_other_alone(served: tuple[Pair, dict[str, int]]) -> None:
    (one, _), ports = served
    clients = [socket.create_connection(("127.0.0.1", ports["relp"]), timeout=5) for _ in range(3)]
    for turn in range(20):
        for n, client in enumerate(clients):
            client.sendall(b"%d syslog 9 <13>a%04d\n" % (turn + 1, 100 * n + turn))
        if turn == 10:
            clients.append(socket.create_connection(("127.0.0.1", ports["relp"]), timeout=5))
    one.wait(lambda s: s["counters"]["relp_acknowledged"] == 20 * 3 + 9)
    for client in clients:
        client.sendall(b"99 close 0\n")
        client.close()
    assert one.status()["counters"]["relp_repeated"] == 0


def test_a_change_of_names_takes_effect_on_the_same_port(
    served: tuple[Pair, dict[str, int]], pki: Path, senders_pki: Path
) -> None:
    (one, _), ports = served
    ca = senders_pki / "ca.crt"
    one.write_options(f'[syslog_tls]\nport = {ports["tls"]}\nclient_ca = "{ca}"\nclients = ["web2"]\n')
    until = time.monotonic() + 30
    while one.status()["counters"]["syslog_tls"] == 0:
        assert time.monotonic() < until
        with (
            contextlib.suppress(OSError),
            sender_context(pki, senders_pki, "web2").wrap_socket(
                socket.create_connection(("127.0.0.1", ports["tls"]), timeout=5)
            ) as s,
        ):
            s.sendall(b"<13>of web2\n")
        time.sleep(0.1)
    assert one.status()["unbound"] == []


def test_options_take_effect_without_a_restart(served: tuple[Pair, dict[str, int]]) -> None:
    (one, _), ports = served
    fresh = free_port()
    one.write_options(f"[relp]\nport = {fresh}\n")
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", fresh)).close()
            break
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.05)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", ports["tls"]))
    one.write_options("[relp]\nport = 'x'\n")
    one.wait(lambda s: "intake.toml" in s["options_fault"])
    socket.create_connection(("127.0.0.1", fresh)).close()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_port_that_is_taken_fails_alone_is_told_and_is_served_when_it_is_free(
    served: tuple[Pair, dict[str, int]], senders_pki: Path
) -> None:
    (one, _), ports = served
    with socket.create_connection(("127.0.0.1", ports["relp"]), timeout=5) as before, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        one.write_options(f"[syslog_tls]\nport = {port}\n[relp]\nport = {ports['relp']}\n")
        status = one.wait(lambda s: s["unbound"])
        assert status["unbound"] == [f"syslog_tls: tcp 127.0.0.1 {port}: Address already in use"]
        until = time.monotonic() + 3
        while time.monotonic() < until:
            assert listens(ports["relp"]), "the other server was closed"
            time.sleep(0.05)
        assert not listens(ports["tls"])
        before.sendall(b"1 syslog 5 <13>a\n")
        assert before.recv(100) == b"1 rsp 6 200 OK\n"
    assert (one.root / "log").read_text().count("receiver.not_served") == 1
    one.wait(lambda s: not s["unbound"], limit_s=20)
    assert listens(port)
