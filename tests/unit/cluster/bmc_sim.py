"""A real simulated BMC (ipmi_sim) for the tests of fencing; the power that it controls is a file."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from futago.setup.fences import FenceDevice

CONF = """name "bmc"
set_working_mc 0x20
  startlan 1
    addr {address} 623
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcde1
  endlan
  chassis_control "{control} 0x20"
  user 2 true "admin" "secret1" admin 10 none md2 md5 straight
"""
EMU = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
sel_enable 0x20 1000 0x0a
mc_enable 0x20
"""
CONTROL = """#!/bin/sh
shift; op=$1; shift
case "$op" in
 get) for p in "$@"; do case $p in power) echo power:$(cat {state});; *) echo $p:0;; esac; done;;
 set) echo "$@" >> {state}.orders; [ "$1" = power ] && [ ! -e {state}.stuck ] && echo $2 > {state};;
esac
exit 0
"""


class Bmc:
    """A running ipmi_sim."""

    def __init__(self, home: Path, address: str) -> None:
        self.home, self.address, self.state = home, address, home / "power"
        self.state.write_text("1\n")
        control = home / "control.sh"
        control.write_text(CONTROL.format(state=self.state))
        control.chmod(0o755)
        (home / "lan.conf").write_text(CONF.format(address=address, control=control))
        (home / "emu").write_text(EMU)
        (home / "state").mkdir()
        (home / "password").write_text("secret1\n")
        command = ["ipmi_sim", "-c", "lan.conf", "-f", "emu", "-s", "state", "-n"]
        self.process = subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @property
    def power(self) -> str:
        return self.state.read_text().strip()

    @property
    def orders(self) -> list[str]:
        """Every order that it took, such as `power 0`."""
        where = self.home / "power.orders"
        return where.read_text().split("\n")[:-1] if where.exists() else []

    def stick(self) -> None:
        """From now on it takes orders and does nothing."""
        (self.home / "power.stuck").write_text("")

    def settings(
        self, *, user: str = "admin", password: Path | None = None, attempts: int = 1, deadline_s: float = 60.0
    ) -> FenceDevice:
        secret = str(password or self.home / "password")
        return FenceDevice("ipmi", self.address, user, secret, attempts=attempts, deadline_s=deadline_s)


@contextlib.contextmanager
def running_bmc(home: Path) -> Iterator[Bmc]:
    """A BMC at an address of its own on the loopback; ended afterwards."""
    found = Bmc(home, f"127.{os.getpid() % 250 + 1}.{time.time_ns() // 251 % 250 + 1}.{time.time_ns() % 250 + 1}")
    try:
        ends = time.monotonic() + 30
        while time.monotonic() < ends and _is_free(found.address):
            time.sleep(0.02)
        yield found
    finally:
        found.process.kill()
        found.process.wait()


def _is_free(address: str) -> bool:
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as s:
        try:
            s.bind((address, 623))
        except OSError:
            return False
    return True
