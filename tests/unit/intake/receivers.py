"""Real receivers on loopback for tests: programs of their own, with real TLS, started, killed and asked."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from free_ports import free_port
from futago.intake.model import Protocol, Record
from futago.intake.reader import JournalReader
from futago.setup.authority import Holder, make_authority, make_key, make_request, sign_request

PROGRAM = Path(__file__).parent / "receiver_program.py"
PAIR = "pair-of-tests"


def make_pki(folder: Path, *names: str, pair_id: str = PAIR) -> Path:
    """Make an authority and a member's certificate for each name."""
    folder.mkdir(parents=True, exist_ok=True)
    ca_key = make_key()
    ca = make_authority(pair_id, ca_key)
    (folder / "ca.crt").write_bytes(ca)
    for name in names:
        key = make_key()
        (folder / f"{name}.key").write_bytes(key)
        holder = Holder(kind="member", name=name, pair_id=pair_id)
        (folder / f"{name}.crt").write_bytes(sign_request(make_request(key), holder, ca_cert=ca, ca_key=ca_key))
    return folder


@dataclass
class ReceiverProcess:
    """One receiver program."""

    name: str
    root: Path
    pki: Path
    peer: str
    peer_port: int
    journal_port: int
    syslog_udp: int = field(default_factory=free_port)
    syslog_tcp: int = field(default_factory=free_port)
    snmp_udp: int = field(default_factory=free_port)
    peer_addresses: tuple[str, ...] = ("127.0.0.1",)
    hosts: list[str] = field(default_factory=lambda: ["127.0.0.1"])
    process: subprocess.Popen[bytes] | None = None

    @property
    def options(self) -> Path:
        return self.root / "intake.toml"

    def write_options(self, text: str) -> None:
        """Write /etc/futago/intake.toml of this receiver, as the manual says: for the owner only."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.options.touch(0o600)
        self.options.write_text(text)

    def start(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        config = self.root / "config.json"
        config.write_text(
            json.dumps(
                {
                    "me": self.name,
                    "pair_id": PAIR,
                    "peer": self.peer,
                    "peer_addresses": self.peer_addresses,
                    "peer_port": self.peer_port,
                    "journal_port": self.journal_port,
                    "root": str(self.root),
                    "pki": str(self.pki),
                    "hosts": self.hosts,
                    "ports": {
                        "syslog_udp": self.syslog_udp,
                        "syslog_tcp": self.syslog_tcp,
                        "snmp_udp": self.snmp_udp,
                    },
                }
            )
        )
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, str(PROGRAM), str(config)], stderr=log)
        self.wait(lambda status: True)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        (self.root / "receiver.sock").unlink(missing_ok=True)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(str(self.root / "receiver.sock"))
            s.sendall(json.dumps(request).encode() + b"\n")
            line = s.makefile("rb").readline()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def status(self) -> dict[str, Any]:
        return self.ask({"op": "status"})

    def wait(self, holds: Any, *, limit_s: float = 30) -> dict[str, Any]:
        """Return the first status for which `holds`."""
        until, last = time.monotonic() + limit_s, "no answer"
        while time.monotonic() < until:
            try:
                status = self.status()
                last = json.dumps(status)
                if holds(status):
                    return status
            except (OSError, ValueError):
                pass
            assert self.process is None or self.process.poll() is None, (self.root / "log").read_text()[-2000:]
            time.sleep(0.02)
        raise AssertionError(f"{self.name}: not within {limit_s} s: {last}\n{(self.root / 'log').read_text()[-2000:]}")

    def own(self) -> list[Record]:
        return messages(self.root / "own")

    def copy(self) -> list[Record]:
        return messages(self.root / "peer")


def everything(root: Path) -> list[Record]:
    """Return what a journal holds."""
    reader, found = JournalReader(root, {}), list[Record]()
    while (read := reader.read()) is not None:
        found += read.records
    reader.close()
    return found


def messages(root: Path) -> list[Record]:
    """Return what a journal holds, without what the receiver says of itself."""
    return [r for r in everything(root) if r.protocol not in (Protocol.CONTROL, Protocol.NOTICE)]


def make_pair(tmp: Path, pki: Path) -> tuple[ReceiverProcess, ReceiverProcess]:
    """Return two receivers that know each other, not started."""
    ports = free_port(), free_port()
    return (
        ReceiverProcess("m1", tmp / "m1", pki, "m2", ports[1], ports[0]),
        ReceiverProcess("m2", tmp / "m2", pki, "m1", ports[0], ports[1]),
    )


class Controller:
    """Says the same role line again and again to whoever connects."""

    def __init__(self, receiver: ReceiverProcess, **line: object) -> None:
        self.line = line
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(receiver.root / "controller.sock"))
        self._server.listen()
        self._server.settimeout(0.2)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._say)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._server.close()

    def _say(self) -> None:
        while not self._is_over.is_set():
            with contextlib.suppress(OSError), self._server.accept()[0] as connection:
                while not self._is_over.is_set():
                    connection.sendall(json.dumps(self.line).encode() + b"\n")
                    self._is_over.wait(0.1)
