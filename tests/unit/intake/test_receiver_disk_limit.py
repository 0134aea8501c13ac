"""A disk that is full, really: a small file system. Who is acknowledged waits, what was taken stays, and people hear of it."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from receivers import ReceiverProcess, everything, make_pair

from free_ports import free_port
from futago.intake.model import Protocol
from futago.intake.notices import read


@pytest.fixture
def small(tmp_path: Path, pki: Path) -> Iterator[ReceiverProcess]:
    """A receiver without a peer whose journal is on a file system of 12 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    one, _ = make_pair(tmp_path, pki)
    one.peer = ""
    one.root.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "futago-test", str(one.root)], check=False)
    if mounted.returncode:
        pytest.skip("this place does not let us mount")
    try:
        yield one
    finally:
        one.stop()
        subprocess.run(["umount", "-l", str(one.root)], check=True)


def test_senders_wait_for_a_full_disk_and_nothing_that_was_taken_is_lost(small: ReceiverProcess) -> None:
    one, relp = small, free_port()
    one.write_options(f"[relp]\nport = {relp}\n")
    one.start()
    one.wait(lambda s: not s["unbound"])
    sent = Sender(one.syslog_tcp)
    status = one.wait(lambda s: s["counters"]["congested"] and s["fault"], limit_s=30)
    assert "No space left" in status["fault"]
    with socket.create_connection(("127.0.0.1", relp), timeout=1.0) as client:
        client.sendall(b"1 syslog 8 <13>mine\n")
        with pytest.raises(TimeoutError):
            client.recv(100)  # what is not on the disk is not acknowledged
        until = time.monotonic() + 20
        while sent.is_moving():
            assert time.monotonic() < until, "a sender by TCP does not wait"
        subprocess.run(["mount", "-o", "remount,size=400m", str(one.root)], check=True)
        sent.stop()
        client.settimeout(20)
        assert client.recv(100) == b"1 rsp 6 200 OK\n"
    one.wait(lambda s: s["own"]["synced"] == s["own"]["last"] and s["counters"]["syslog_tcp"] == sent.count, limit_s=30)
    records = everything(one.root / "own")
    numbers = [int(r.data[4:14]) for r in records if r.protocol == Protocol.SYSLOG_TCP]
    assert numbers == list(range(sent.count)), "in order, each once"
    assert any("m1 does not take messages" in message for message in notices(one))
    until = time.monotonic() + 20
    while notices(one)[-1] != "m1 takes messages again.":  # told by the next look, after what waited was written
        assert time.monotonic() < until, notices(one)
        time.sleep(0.05)


def notices(one: ReceiverProcess) -> list[str]:
    """What the receiver's own journal tells people, in order."""
    own = [read(r.data) for r in everything(one.root / "own") if r.protocol == Protocol.NOTICE]
    return [notice.message for notice in own if notice is not None]


class Sender:
    """Sends numbered messages by TCP as fast as it is let, in a thread."""

    def __init__(self, port: int) -> None:
        self.count = 0
        self._is_ending = False
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_ending:
            first, self.count = self.count, self.count + 100
            self._sock.sendall(b"".join(b"<13>%010d" % n + b"x" * 2000 + b"\n" for n in range(first, first + 100)))
        self._sock.close()

    def is_moving(self) -> bool:
        before = self.count
        time.sleep(1.0)
        return self.count != before

    def stop(self) -> None:
        self._is_ending = True
        self._thread.join(30)
        assert not self._thread.is_alive()
