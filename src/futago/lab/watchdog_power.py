"""The watchdog of one lab host as the daemon sees it: on while the host is on, and a line to the reset button.

One device process a boot (lab/watchdog.py), in a cgroup of its own, because its power is not the host's: a frozen host
has a running watchdog.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from futago.lab import machine
from futago.lab.machine import Cgroup
from futago.lab.places import SOURCE
from futago.runtime.faults import Refused

NAME = "watchdog"
_START_S_MAX = 10.0
_RESET = """import json, socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(60); s.connect(sys.argv[1])
s.sendall(json.dumps({"op": "watchdog", "member": sys.argv[2]}).encode() + b"\\n"); s.makefile().readline()
"""


class WatchdogDevice:
    """The device of one member.

    Args:
        member: the host that it resets.
        home: the host's folder.
        cgroup: of the device's process.
        control_socket: the daemon's socket, for the reset.
    """

    def __init__(self, member: str, home: Path, *, cgroup: Cgroup, control_socket: Path) -> None:
        self._member, self._cgroup, self._socket = member, cgroup, control_socket
        self._mount = home / "watchdog"
        self._log = home / "watchdog.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def file(self) -> Path:
        """What becomes the host's /dev/watchdog."""
        return self._mount / NAME

    def start(self) -> None:
        """Start it, not armed. Raises Refused if it does not come up."""
        self.stop()
        self._mount.mkdir(parents=True, exist_ok=True)
        self._cgroup.make()
        reset = [sys.executable, "-c", _RESET, str(self._socket), self._member]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                machine.within(self._cgroup, [sys.executable, "-m", "futago.lab.watchdog", str(self._mount), *reset]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**machine.CLEAN_ENV, "PYTHONPATH": str(SOURCE / "src")},
            )
        end = time.monotonic() + _START_S_MAX
        while not self.file.exists():
            if self._process.poll() is not None or time.monotonic() > end:
                raise Refused(f"the watchdog of {self._member} does not start; see {self._log}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Take its power away. What it is just doing, such as resetting the host, is ended too: it is being done."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None
        machine.succeeds("umount", "-l", str(self._mount))
