"""A real Redfish service (sushy-emulator, TLS, accounts) for the tests of fencing; its power is a file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from futago.lab import redfish
from futago.setup.fences import FenceDevice

CONTROL = """#!/bin/sh
op=$2; shift 2
case "$op" in
 get) echo power:$(cat {state});;
 set) echo "$@" >> {state}.orders; [ -e {state}.stuck ] || echo $2 > {state};;
esac
"""


class Redfish:
    """A running service at an address of its own on the loopback."""

    def __init__(self, home: Path) -> None:
        self.home, self.state = home, home / "power"
        self.address = f"127.{os.getpid() % 250 + 1}.{time.time_ns() // 251 % 250 + 1}.{time.time_ns() % 250 + 1}"
        self.state.write_text("1\n")
        control = home / "control.sh"
        control.write_text(CONTROL.format(state=self.state))
        control.chmod(0o755)
        (home / "user").write_text("admin\n")
        (home / "password").write_text("secret1\n")
        command = [sys.executable, "-m", "futago.lab.redfish", str(home), self.address, "443", str(control), "m2"]
        with (home / "log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    @property
    def power(self) -> str:
        return self.state.read_text().strip()

    @property
    def orders(self) -> list[str]:
        where = self.home / "power.orders"
        return where.read_text().split("\n")[:-1] if where.exists() else []

    def stick(self) -> None:
        """From now on it takes orders and does nothing."""
        (self.home / "power.stuck").write_text("")

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(redfish.certificate(self.home).read_text())).hexdigest()

    def settings(
        self, *, user: str = "admin", password: Path | None = None, deadline_s: float = 60.0, **options: str
    ) -> FenceDevice:
        secret = str(password or self.home / "password")
        given = {"fingerprint": self.fingerprint, **options}
        kept = {k: v for k, v in given.items() if v}
        return FenceDevice("redfish", self.address, user, secret, options=kept, deadline_s=deadline_s)


@contextlib.contextmanager
def running_redfish(home: Path) -> Iterator[Redfish]:
    """A service that answers; ended afterwards."""
    found = Redfish(home)
    try:
        ends = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), contextlib.closing(socket.create_connection((found.address, 443), 1)):
                break
            if found.process.poll() is not None or time.monotonic() > ends:
                raise RuntimeError((home / "log").read_text()[-2000:])
            time.sleep(0.05)
        yield found
    finally:
        found.process.kill()
        found.process.wait()
