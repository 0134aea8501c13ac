"""Real receiver programs on loopback: real senders, real TLS, real kills."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
from receivers import ReceiverProcess, everything, make_pki

from futago.intake.model import Mark, Protocol

Pair = tuple[ReceiverProcess, ReceiverProcess]


def send_udp(port: int, *messages: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for message in messages:
            s.sendto(message, ("127.0.0.1", port))


def data_of(records: list) -> list[bytes]:  # type: ignore[type-arg]
    return [r.data for r in records]


def test_what_one_receives_is_on_both_disks(pair: Pair) -> None:
    one, two = pair
    sent = [b"<13>message %d" % n for n in range(500)]
    for n in range(0, 500, 50):
        send_udp(one.syslog_udp, *sent[n : n + 50])
        time.sleep(0.01)
    one.wait(lambda s: s["own"]["synced"] == s["sync"]["peer_has"] and s["counters"]["syslog_udp"] == 500)
    one.wait(lambda s: s["complete"])
    assert data_of(one.own()) == sent
    assert two.copy() == one.own()
    assert two.own() == []
    assert {r.source[-4:] for r in one.own()} == {bytes([127, 0, 0, 1])}


def test_real_logger_and_snmptrap_are_received(pair: Pair) -> None:
    one, _ = pair
    if not (shutil.which("logger") and shutil.which("snmptrap")):
        pytest.skip("logger or snmptrap is not installed")

    def run(*args: str) -> None:
        subprocess.run(args, check=True, timeout=10)

    run("logger", "-n", "127.0.0.1", "-P", str(one.syslog_udp), "-d", "over udp")
    run("logger", "-n", "127.0.0.1", "-P", str(one.syslog_tcp), "-T", "--octet-count", "over tcp counted")
    run("logger", "-n", "127.0.0.1", "-P", str(one.syslog_tcp), "-T", "over tcp lines")
    run(
        *("snmptrap", "-v2c", "-c", "public", f"127.0.0.1:{one.snmp_udp}", "", "1.3.6.1.6.3.1.1.5.3"),
        *("1.3.6.1.2.1.2.2.1.1.2", "i", "2"),
    )
    one.wait(lambda s: s["counters"]["syslog_udp"] + s["counters"]["syslog_tcp"] + s["counters"]["snmp_udp"] == 4)
    one.wait(lambda s: s["own"]["last"] == s["own"]["synced"])
    found = one.own()
    assert sorted(r.protocol for r in found) == [
        Protocol.SYSLOG_UDP,
        Protocol.SYSLOG_TCP,
        Protocol.SYSLOG_TCP,
        Protocol.SNMP_UDP,
    ]
    texts = [r.data for r in found if r.protocol != Protocol.SNMP_UDP]
    assert [t.split(b" ", 7)[-1] for t in texts] != []
    for text, end in zip(sorted(texts, key=len), (b"over udp", b"over tcp lines", b"over tcp counted"), strict=True):
        assert text.endswith(end)
        assert text.startswith(b"<13>")


def test_garbage_stops_nothing(pair: Pair) -> None:
    one, _ = pair
    send_udp(one.syslog_udp, b"", bytes(3000), os.urandom(60000), b"\xff\x00<")
    send_udp(one.snmp_udp, b"", os.urandom(500))
    with socket.create_connection(("127.0.0.1", one.syslog_tcp)) as s:
        s.sendall(os.urandom(200_000))
    with socket.create_connection(("127.0.0.1", one.journal_port)) as s:
        s.sendall(os.urandom(2000))
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(one.root / "receiver.sock"))
        s.sendall(b"not json\n")
        assert b'"ok":false' in s.recv(1000)
    send_udp(one.syslog_udp, b"<1>still here")
    one.wait(lambda s: s["counters"]["syslog_udp"] == 5)
    one.wait(lambda s: s["own"]["synced"] == s["own"]["last"])
    assert b"<1>still here" in data_of(one.own())


def test_kill_under_load_loses_nothing_that_was_synced_and_fetches_nothing_twice(pair: Pair) -> None:
    one, two = pair
    stop, sent = threading.Event(), [0]

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            while not stop.is_set():
                for _ in range(20):
                    s.sendto(b"<13>n %d" % sent[0], ("127.0.0.1", one.syslog_udp))
                    sent[0] += 1
                time.sleep(0.01)

    sender = threading.Thread(target=send)
    sender.start()
    known: list[tuple[str, int]] = []
    try:
        for _ in range(3):
            begun = one.status()
            status = one.wait(lambda s, begun=begun: s["own"]["synced"] > begun["own"]["synced"] + 300)
            known.append((status["incarnation"], status["own"]["synced"]))
            one.kill()
            one.start()
    finally:
        stop.set()
        sender.join()
    last = one.wait(lambda s: s["own"]["synced"] > 1)["incarnation"]
    one.wait(lambda s: s["complete"] and s["incarnation"] == last)
    assert len({incarnation for incarnation, _ in known}) == 3
    mine = one.own()
    assert two.copy() == mine
    numbers = [int(r.data.split()[-1]) for r in mine]
    assert len(set(numbers)) == len(numbers)
    assert numbers == sorted(numbers)
    for (incarnation, synced), folder in zip(known, sorted((one.root / "own").iterdir()), strict=False):
        assert folder.name.endswith(incarnation)
        assert int((folder / "end").read_text()) >= synced


def test_a_member_that_was_away_delivers_what_it_had_and_fetches_what_it_missed(pair: Pair) -> None:
    one, two = pair
    two.kill()
    send_udp(one.syslog_udp, *[b"<13>while away %d" % n for n in range(100)])
    one.wait(lambda s: s["own"]["synced"] == s["own"]["last"] and s["counters"]["syslog_udp"] == 100)
    assert not one.status()["complete"]
    one.kill()
    two.start()
    send_udp(two.syslog_udp, b"<13>at the other")
    two.wait(lambda s: s["counters"]["syslog_udp"] == 1)
    one.start()
    for each in (one, two):
        each.wait(lambda s: s["complete"])
    assert data_of(two.copy()) == [b"<13>while away %d" % n for n in range(100)]
    assert data_of(one.copy()) == [b"<13>at the other"]


def test_a_wiped_member_is_filled_again_with_what_had_no_effect_yet(pair: Pair) -> None:
    one, two = pair
    send_udp(one.syslog_udp, *[b"<13>%d" % n for n in range(50)])
    one.wait(lambda s: s["complete"] and s["counters"]["syslog_udp"] == 50 and s["own"]["last"] == s["own"]["synced"])
    consumed = one.own()[29].sequence
    incarnation = one.status()["incarnation"]
    assert one.ask({"op": "prune", "positions": {"m1": {incarnation: consumed}}}) == {"ok": True}
    two.kill()
    shutil.rmtree(two.root)
    two.start()
    two.wait(lambda s: s["complete"])
    assert data_of(two.copy()) == [b"<13>%d" % n for n in range(30, 50)]


def test_a_stranger_is_refused_and_counted(pair: Pair, tmp_path: Path) -> None:
    one, two = pair
    two.kill()
    other = make_pki(tmp_path / "other", "m2")
    shutil.copy(two.pki / "ca.crt", tmp_path / "real-ca.crt")
    pki = two.pki
    two.pki = other
    two.start()
    time.sleep(1)
    assert not one.status()["sync"]["connected"]
    two.stop()
    two.pki = pki
    two.name, two.root = "m1", tmp_path / "impostor"
    two.start()  # a member of the pair, but not the one expected
    one.wait(lambda s: s["counters"]["sync_refused"] > 0)


def test_datagrams_that_waited_while_the_program_was_stopped_keep_the_time_of_their_arrival(pair: Pair) -> None:
    one, _ = pair
    send_udp(one.syslog_udp, b"<1>before")
    one.wait(lambda s: s["counters"]["syslog_udp"] == 1)
    assert one.process is not None
    one.process.send_signal(signal.SIGSTOP)
    sent = []
    for n in range(3):
        before_s = time.time()
        send_udp(one.syslog_udp, b"<1>stopped %d" % n)
        sent.append((before_s, time.time()))
        time.sleep(0.6)
    one.process.send_signal(signal.SIGCONT)
    one.wait(lambda s: s["counters"]["syslog_udp"] == 4 and s["own"]["last"] == s["own"]["synced"])
    assert one.status()["counters"]["stalls"] >= 1
    times = [r.time_ns / 1e9 for r in one.own()]
    for at_s, (before_s, after_s) in zip(times[1:], sent, strict=True):
        assert before_s - 0.02 <= at_s <= after_s + 0.02


def test_a_mark_never_says_that_time_has_passed_for_which_datagrams_still_wait(pair: Pair) -> None:
    one, _ = pair
    assert one.process is not None
    for _ in range(2):
        one.process.send_signal(signal.SIGSTOP)
        for n in range(1500):  # more than one drain, in one socket of several
            send_udp(one.syslog_udp, b"<1>stopped %d" % n)
            time.sleep(0.001)
        one.process.send_signal(signal.SIGCONT)
    one.wait(lambda s: s["counters"]["syslog_udp"] == 3000 and s["own"]["last"] == s["own"]["synced"])
    said = len(everything(one.root / "own"))

    def is_drained() -> bool:
        records = everything(one.root / "own")[said:]
        marks = [msgspec.msgpack.decode(r.data, type=Mark) for r in records if r.protocol == Protocol.CONTROL]
        return bool(marks) and marks[-1].open_since_ns is None

    end = time.monotonic() + 60
    while not is_drained():
        assert time.monotonic() < end, "sockets that nothing is sent to count as drained"
        time.sleep(0.1)
    records = everything(one.root / "own")
    passed_ns = 0
    for record in records:
        assert record.time_ns >= passed_ns
        if record.protocol == Protocol.CONTROL:
            mark = msgspec.msgpack.decode(record.data, type=Mark)
            passed_ns = max(passed_ns, record.time_ns if mark.open_since_ns is None else mark.open_since_ns)


def test_orderly_stop_makes_everything_durable(pair: Pair) -> None:
    one, _ = pair
    send_udp(one.syslog_udp, *[b"<13>%d" % n for n in range(200)])
    time.sleep(0.05)
    one.stop()
    assert data_of(one.own()) == [b"<13>%d" % n for n in range(200)]


async def test_a_second_receiver_does_not_share_the_ports(pair: Pair, tmp_path: Path) -> None:
    one, _ = pair
    thief = ReceiverProcess("m1", tmp_path / "thief", one.pki, "", 1, one.journal_port)
    thief.syslog_udp, thief.syslog_tcp, thief.snmp_udp = one.syslog_udp, one.syslog_tcp, one.snmp_udp
    with pytest.raises(AssertionError, match="No port to receive on"):
        await asyncio.to_thread(thief.start)


def test_the_receiver_imports_nothing_heavy() -> None:
    code = "import sys, futago.intake.receiver as r; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    heavy = {"psycopg", "pydantic", "fastapi", "typer", "hyperscan", "cryptography", "sqlalchemy", "pyroute2", "rich"}
    assert not heavy & set(out)
