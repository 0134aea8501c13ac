"""Speaking with systemd: a real datagram socket on the other side."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from futago.runtime import service


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Listen where NOTIFY_SOCKET says."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@futago-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        s.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield s


def test_what_is_said_arrives_as_systemd_reads_it(systemd: socket.socket) -> None:
    assert service.notify_ready("serving")
    assert systemd.recv(1000) == b"READY=1\nSTATUS=serving"
    assert service.notify_watchdog()
    assert systemd.recv(1000) == b"WATCHDOG=1"
    assert service.notify_status("two\nlines" + "x" * 500)
    said = systemd.recv(1000)
    assert said.startswith(b"STATUS=two linesx")
    assert said.count(b"\n") == 0 and len(said) == len("STATUS=") + service.STATUS_CHARS_MAX


def test_without_systemd_nothing_happens_and_nothing_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not service.notify_ready()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not service.notify_watchdog()


def test_a_supervisor_that_does_not_read_never_makes_a_program_wait(systemd: socket.socket) -> None:
    sent = [service.notify_watchdog() for _ in range(5000)]
    assert sent[0] and not sent[-1]


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [("2000000", "own", 2.0), ("2000000", "", 2.0), ("2000000", "1", None), ("", "own", None), ("x", "own", None)],
)
def test_the_watchdogs_time_is_read_for_this_process_only(
    usec: str, pid: str, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    assert service.watchdog_s() == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_ends_in_order_on_a_signal_and_passes_its_exit_code_on(number: signal.Signals) -> None:
    code = """
import sys
from futago.runtime import service
async def main(stop):
    print("up", flush=True)
    await stop.wait()
    print("down", flush=True)
    return 5
sys.exit(service.run(main))
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "up\n"
        program.send_signal(number)
        assert program.stdout.readline() == "down\n"
        assert program.wait(timeout=60) == 5
