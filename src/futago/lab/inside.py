"""The inside of a lab host: running programs, reading and writing files, on a host that is on.

A program is one of the host's own processes: in its namespaces and its cgroup, so a power cut ends it like any other.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, AnyStr

from futago.lab import machine
from futago.lab.topology import Node
from futago.runtime.faults import Refused, Unknown
from futago.setup import paths

if TYPE_CHECKING:
    from futago.lab.lab import Lab

_BOOT_DEADLINE_S = 90.0
_FORK_DEADLINE_S = 2.0


class HostProcess(subprocess.Popen[AnyStr]):
    """A program that runs inside a host; signals reach the program itself.

    What stands between is `nsenter`, which has the program as its only child, waits for it, and ends as it ended.
    """

    def send_signal(self, sig: int) -> None:
        """Send a signal to the program; nothing happens if it has ended."""
        end = time.monotonic() + _FORK_DEADLINE_S
        while self.poll() is None:
            if inner := machine.children(self.pid):
                with suppress(ProcessLookupError):
                    os.kill(inner[0], sig)
                # A host that shuts down stops all its programs for a moment (systemd-shutdown), and nsenter stops with
                # its own; nobody inside can wake it.
                super().send_signal(signal.SIGCONT)
                return
            if time.monotonic() > end:
                super().send_signal(sig)
                return
            time.sleep(0.002)


class LabHost:
    """One host of a lab.

    Args:
        lab: the lab.
        node: what it is.
    """

    def __init__(self, lab: Lab, node: Node) -> None:
        self._lab = lab
        self.node = node
        self.name = node.name

    @property
    def address(self) -> str:
        """Its address on the service network."""
        return self.node.address()

    def status(self) -> dict[str, Any]:
        """Return what the daemon says of it: power, boots, init_pid, frozen, cgroup, addresses."""
        found: dict[str, Any] = self._lab.request(op="status")["hosts"][self.name]
        return found

    def is_on(self) -> bool:
        return bool(self.status()["power"] == "on")

    def command(self, args: Sequence[str], *, env: dict[str, str] | None = None) -> list[str]:
        """Return the command line, for this machine, that runs `args` inside the host, as one of its own processes.

        Raises:
            Refused: the host is off.
        """
        status = self.status()
        if status["power"] != "on":
            raise Refused(f"{self.name} is off")
        if status["frozen"]:
            raise Refused(f"{self.name} is frozen")
        full = {
            **machine.CLEAN_ENV,
            "PATH": f"/opt/futago/bin:{machine.CLEAN_ENV['PATH']}",
            "TERM": os.environ.get("TERM", "dumb"),
            **(env or {}),
        }
        words = [
            "nsenter",
            "-t",
            str(status["init_pid"]),
            "-a",
            "env",
            "-i",
            *[f"{k}={v}" for k, v in full.items()],
            *args,
        ]
        return machine.within(machine.Cgroup(Path(status["cgroup"])), words)

    def ask_controller(self, request: dict[str, Any], *, deadline_s: float) -> dict[str, Any]:
        """Return the answer of this member's controller to one request over its local socket, as the host's root would get it.

        Raises:
            Refused: the host is off or frozen, or no controller listens there; Unknown: no usable answer in time.
        """
        status = self.status()
        if status["power"] != "on" or status["frozen"]:
            raise Refused(f"{self.name} is off or frozen")
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(deadline_s)
            try:
                line.connect(f"/proc/{status['init_pid']}/root{paths.CONTROLLER_SOCKET}")
            except OSError as e:
                raise Refused(f"{self.name}: no controller answers: {e}") from e
            try:
                line.sendall(json.dumps(request).encode() + b"\n")
                answer = json.loads(line.makefile("rb").readline())
            except (OSError, ValueError) as e:
                raise Unknown(f"{self.name}: the controller gave no usable answer: {e}") from e
        if not isinstance(answer, dict):
            raise Unknown(f"{self.name}: the controller answered something else than an object")
        return answer

    def run(
        self,
        args: Sequence[str],
        *,
        stdin: str | None = None,
        check: bool = True,
        deadline_s: float = 60,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside the host and wait for it.

        Raises:
            Refused: the host is off, or (with `check`) the program failed; the message holds what it printed.
            Unknown: it did not end by the deadline.
        """
        feed = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        with HostProcess(
            self.command(args, env=env),
            stdin=feed,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            try:
                out, err = process.communicate(stdin, timeout=deadline_s)
            except subprocess.TimeoutExpired as e:
                process.kill()
                raise Unknown(f"{self.name}: `{shlex.join(args)}` did not end within {deadline_s:.0f} s") from e
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(list(args), process.returncode, out, err)
        if check and done.returncode:
            said = (done.stderr + done.stdout).strip()[-3000:]
            raise Refused(f"{self.name}: `{shlex.join(args)[:300]}` ended with {done.returncode}: {said}")
        return done

    def start(
        self,
        args: Sequence[str],
        *,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.DEVNULL,
        stderr: int | IO[Any] = subprocess.DEVNULL,
        env: dict[str, str] | None = None,
    ) -> HostProcess[bytes]:
        """Start a program inside the host.

        The caller reads it, and ends it. A power cut of the host ends it too.
        """
        return HostProcess(self.command(args, env=env), stdin=stdin, stdout=stdout, stderr=stderr)

    def write(self, path: str, content: str | bytes, *, mode: int = 0o644) -> None:
        """Write a file of the running host, and sync it."""
        data = content if isinstance(content, bytes) else content.encode()
        script = 'mkdir -p "$(dirname "$1")" && cat > "$1.new" && chmod "$2" "$1.new" && mv "$1.new" "$1" && sync "$1"'
        done = subprocess.run(
            self.command(["sh", "-c", script, "write", path, f"{mode:o}"]),
            input=data,
            capture_output=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise Refused(f"{self.name}: {path} cannot be written: {done.stderr.decode(errors='replace')}")

    def read(self, path: str) -> str:
        """Return a file of the running host."""
        return self.run(["cat", path]).stdout

    def fault(self, name: str, *words: str) -> dict[str, Any]:
        """Begin a fault on this host; the answer holds the instant `at` (ns since boot of the machine) and `utc`."""
        return self._lab.fault(name, self.name, *words)

    def power_cut(self) -> dict[str, Any]:
        return self.fault("power-cut")

    def power_on(self) -> dict[str, Any]:
        return self.fault("power-on")

    def wait_booted(self, *, deadline_s: float = _BOOT_DEADLINE_S) -> str:
        """Wait until its systemd has started everything; return its word for it (running or degraded)."""
        end = time.monotonic() + deadline_s
        while True:
            done = self.run(["timeout", "10", "systemctl", "is-system-running", "--wait"], check=False, deadline_s=30)
            word = done.stdout.strip()
            if word in ("running", "degraded"):
                return word
            if time.monotonic() > end:
                raise Unknown(f"{self.name} has not booted within {deadline_s:.0f} s: {word or done.stderr.strip()}")
            time.sleep(0.1)
