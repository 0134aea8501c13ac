"""Real senders outside the product, each with its own log of what it sent: rsyslogd, `logger`, net-snmp's `snmptrap`,
an API client.

Every message goes to the service address of BOTH members with the same content, and each target has a queue of its own,
so a dead member never holds up what goes to the living one. What a sender had handed to the kernel's TCP buffer towards
a member that
loses its power is lost for that member; the other copy counts.

A number is in the sent log once it was handed to the sender proper, so "sent" means: both queues have it.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from futago.lab.lab import HostProcess, Lab, LabHost
from futago.lab.topology import FLOATING_IP

PROGRAMS = Path(__file__).parent / "programs"
INSTALLED = "/opt/lab"
LOGS = "/var/log/sent"
MEMBERS = ("10.91.1.11", "10.91.1.12")
QUEUE_MESSAGES_MAX = 1_000_000


def install(host: LabHost, program: str) -> str:
    """Copy a program of programs/ onto a host; return its path there."""
    path = f"{INSTALLED}/{program}"
    host.write(path, (PROGRAMS / program).read_text(encoding="utf-8"))
    return path


def end(process: HostProcess[bytes], *, deadline_s: float = 15) -> None:
    """End a program that was started in a host: ask, wait, kill."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class Stream:
    """One stream of numbered messages.

    Args:
        host: where it is sent from.
        name: lower-case letters and digits; messages hold SEQ=<name>-<number>.
        mode: rsyslog, logger or trap.
        rate: messages a second.
        protocol: udp or tcp.
    """

    host: LabHost
    name: str
    mode: str
    rate: float
    protocol: str = "udp"
    targets: Sequence[str] = MEMBERS
    process: HostProcess[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> str:
        return f"{LOGS}/{self.name}"

    def start(self) -> None:
        """Begin to send."""
        program = install(self.host, "feeder.py")
        self.host.run(["mkdir", "-p", LOGS])
        settings = {
            "mode": self.mode, "stream": self.name, "rate": self.rate, "targets": list(self.targets), "log": self.log,
            "socket": rsyslog_socket(self.protocol), "protocol": self.protocol,
        }  # fmt: skip
        self.process = self.host.start(["python3", program, json.dumps(settings)])

    def stop(self) -> None:
        """Send no more; what is queued for a living target is on its way when this returns."""
        if self.process is not None:
            end(self.process)

    def sent(self) -> list[str]:
        """Return the keys (<name>-<number>) that were sent."""
        return [f"{self.name}-{n}" for n in self.host.run(["cat", self.log]).stdout.split()]


def rsyslog_socket(protocol: str) -> str:
    return f"/run/lab-rsyslog-{protocol}.sock"


def rsyslog_config(targets: Sequence[str] = MEMBERS) -> str:
    """Return the configuration of the sending rsyslogd: a local socket a protocol, a queue a target, nothing limited.

    TCP keeps everything for a dead target until it is back (resumeRetryCount -1): such a copy comes minutes after its
    twin. UDP has no
    such memory in the real world and has none here.
    """
    lines = [
        'global(workDirectory="/var/spool/rsyslog" maxMessageSize="8k" net.enableDNS="off")',
        'module(load="imuxsock" SysSock.Use="off")',
        'template(name="wire" type="string" string="<%PRI%>%TIMESTAMP% %HOSTNAME% %syslogtag%%msg%")',
    ]
    for protocol in ("udp", "tcp"):
        socket = f'Socket="{rsyslog_socket(protocol)}" RateLimit.Interval="0" UsePIDFromSystem="off"'
        lines.append(f'input(type="imuxsock" {socket} Ruleset="{protocol}")')
        lines.append(
            f'ruleset(name="{protocol}" queue.type="LinkedList" queue.size="100000" queue.timeoutEnqueue="-1") {{'
        )
        for target in targets:
            queue = f'queue.type="LinkedList" queue.size="{QUEUE_MESSAGES_MAX}" queue.timeoutEnqueue="0"'
            queue += ' queue.dequeueBatchSize="128" queue.timeoutShutdown="2000"'
            retry = "-1" if protocol == "tcp" else "0"
            lines.append(
                f'  action(type="omfwd" target="{target}" port="514" protocol="{protocol}" template="wire" {queue}'
                f' action.resumeRetryCount="{retry}" action.resumeInterval="1")'
            )
        lines.append("}")
    return "\n".join(lines) + "\n"


RATES = {"rsudp": 885.0, "rstcp": 885.0, "logudp": 110.0, "logtcp": 110.0, "trap": 10.0}  # a trap costs two processes
_SHAPE = {
    "rsudp": ("rsyslog", "udp"),
    "rstcp": ("rsyslog", "tcp"),
    "logudp": ("logger", "udp"),
    "logtcp": ("logger", "tcp"),
    "trap": ("trap", "udp"),
}


class Senders:
    """All message senders of a test, 2,000 messages a second together unless told otherwise.

    Args:
        lab: the lab.
        host: where they run.
        rates: messages a second of each stream.
    """

    def __init__(self, lab: Lab, *, host: str = "dev1", rates: dict[str, float] | None = None) -> None:
        self.host = lab.host(host)
        wanted = RATES if rates is None else rates
        self.streams = [Stream(self.host, n, _SHAPE[n][0], r, _SHAPE[n][1]) for n, r in wanted.items() if r]
        self._rsyslogd: HostProcess[bytes] | None = None

    def start(self) -> None:
        """Start rsyslogd and every stream."""
        self.host.run(["rm", "-rf", LOGS])
        if any(s.mode == "rsyslog" for s in self.streams):
            self._start_rsyslogd()
        for stream in self.streams:
            stream.start()

    def _start_rsyslogd(self) -> None:
        self.host.write("/etc/lab-rsyslog.conf", rsyslog_config())
        self.host.run(["rm", "-f", rsyslog_socket("udp"), rsyslog_socket("tcp")])
        self._rsyslogd = self.host.start(
            ["rsyslogd", "-n", "-f", "/etc/lab-rsyslog.conf", "-i", "/run/lab-rsyslog.pid"]
        )
        deadline = time.monotonic() + 10
        while self.host.run(["test", "-S", rsyslog_socket("tcp")], check=False).returncode:
            assert time.monotonic() < deadline and self._rsyslogd.poll() is None, "rsyslogd does not start"
            time.sleep(0.05)

    def stop(self) -> None:
        """Send no more. rsyslogd goes on delivering what it has; `close` ends it."""
        for stream in self.streams:
            stream.stop()

    def close(self) -> None:
        """End everything."""
        self.stop()
        if self._rsyslogd is not None:
            end(self._rsyslogd)

    def sent(self) -> set[str]:
        """Return every key that was sent, from the senders' own logs."""
        keys = [k for s in self.streams for k in s.sent()]
        assert len(keys) == len(set(keys)), "a number was drawn twice: the senders are broken"
        return set(keys)


@dataclass(frozen=True, slots=True)
class Write:
    """One event that the API client wrote. `status` 0: it was never acknowledged."""

    key: str
    first_at: int
    sent_at: int
    acked_at: int
    attempts: int
    status: int


class ApiWriter:
    """A client of the API behind the floating IP that writes without pause; the measure of every outage.

    Args:
        lab: the lab with a pair in it.
        rate: events a second.
        threads: how many write at once.
        address: whom it asks; the floating IP unless told otherwise. One that asks a member itself is refused while
            that member stands by, and is in no hurry to ask again.
    """

    RECORD = "/var/log/api-writes"

    def __init__(
        self, lab: Lab, *, rate: float = 20, threads: int = 4, host: str = "c1", address: str | None = None
    ) -> None:
        self._lab = lab
        self.host = lab.host(host)
        self._rate, self._threads = rate, threads
        self._address = address or FLOATING_IP.split("/")[0]
        self._record = self.RECORD if address is None else f"{self.RECORD}-{address}"
        self._retry_s, self._drain_s = (0.02, 10.0) if address is None else (0.3, 0.5)
        self._process: HostProcess[bytes] | None = None

    def start(self, *, prefix: str = "api") -> None:
        """Begin to write. `prefix` makes the keys of this run unique."""
        from futago.lab.pair import admin_token

        member = next(m for m in self._lab.members if m.is_on())
        self.host.write("/etc/lab-ca.crt", member.read("/etc/futago/pki/ca.crt"))
        settings = {
            "url": f"https://{self._address}/api/v1/events", "token": admin_token(self._lab), "ca": "/etc/lab-ca.crt",
            "threads": self._threads, "rate": self._rate, "record": self._record, "prefix": prefix,
            "connect_s": 0.15, "answer_s": 1.0, "drain_s": self._drain_s, "retry_s": self._retry_s,
        }  # fmt: skip
        self.host.run(["rm", "-f", self._record])
        self._process = self.host.start(
            ["python3", install(self.host, "api_writer.py"), json.dumps(settings)], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def stop(self) -> list[Write]:
        """Write no more; return everything that was written."""
        if self._process is not None:
            end(self._process, deadline_s=30)
        return self.writes()

    def writes(self) -> list[Write]:
        """Return what was acknowledged so far (and, after the end, what never was), in order of acknowledgement."""
        text = self.host.run(["cat", self._record]).stdout
        lines = text[: text.rfind("\n") + 1].splitlines()  # the last line may be half written
        return sorted((Write(**json.loads(line)) for line in lines), key=lambda w: w.acked_at)

    def wait_for_write_after(self, at: int, *, deadline_s: float) -> Write:
        """Wait for the first acknowledged write whose request was begun after `at`; return it."""
        limit = time.monotonic() + deadline_s
        while True:
            found = first_write_after(self.writes(), at)
            if found is not None:
                return found
            assert time.monotonic() < limit, f"no write was acknowledged within {deadline_s} s"
            time.sleep(0.1)


def first_write_after(writes: Sequence[Write], at: int) -> Write | None:
    """Return the first acknowledged write whose acknowledged request was begun after the instant `at`."""
    later = [w for w in writes if w.status and w.sent_at >= at]
    return min(later, key=lambda w: w.acked_at) if later else None


def longest_gap_s(writes: Sequence[Write]) -> float:
    """Return the longest time without an acknowledgement, in seconds."""
    instants = sorted(w.acked_at for w in writes if w.status)
    return max((b - a for a, b in pairwise(instants)), default=0) / 1e9
