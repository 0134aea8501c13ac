"""What really happened, told by things outside the product: a real SMTP server, the hosts' own record of process
starts.

The senders' own logs are in senders.py. The product's answers are compared with these, never with themselves.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from senders import end, install

from futago.lab.lab import HostProcess, Lab, LabHost


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail that the SMTP server accepted."""

    at: int
    peer: str
    mail_from: str
    rcpt_tos: tuple[str, ...]
    headers: dict[str, str]
    text: str

    @property
    def subject(self) -> str:
        return self.headers.get("subject", "")


class SmtpSink:
    """A real SMTP server on the client host; every mail it accepted is on its disk before it says so.

    Args:
        lab: the lab.
        port: where it listens, on 10.91.1.50.
    """

    FILE = "/var/log/mail.jsonl"

    def __init__(self, lab: Lab, *, host: str = "c1", port: int = 25) -> None:
        self.host = lab.host(host)
        self.port = port
        self._process: HostProcess[bytes] | None = None

    def start(self) -> None:
        """Begin to accept mail, with an empty box."""
        self.host.run(["rm", "-f", self.FILE])
        program = install(self.host, "smtp_sink.py")
        args = ["/opt/labtools/bin/python", program, self.host.address, str(self.port), self.FILE]
        self._process = self.host.start(args, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "the SMTP server does not start"

    def stop(self) -> None:
        """Accept no more; the mails stay."""
        if self._process is not None:
            end(self._process)

    def mails(self) -> list[Mail]:
        """Return every accepted mail, in order."""
        text = self.host.run(["sh", "-c", f"cat {self.FILE} 2>/dev/null || true"]).stdout
        rows = [json.loads(line) for line in text.splitlines()]
        return [Mail(**{**row, "rcpt_tos": tuple(row["rcpt_tos"])}) for row in rows]


@dataclass(frozen=True, slots=True)
class JobStart:
    """One start of a job's process, as the host noted it. `boot` tells the host's boots apart."""

    host: str
    run_id: str
    name: str
    pid: int
    boot: str
    at: int


class JobStarts:
    """The managed hosts' own durable record of what was started on them.

    A job's command begins with `lab-job NAME && ...` (see `command`); that note is synced before the command goes on.
    """

    FILE = "/var/log/job-starts"

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    @staticmethod
    def command(name: str, rest: str) -> str:
        """Return a job's command that notes its start, then does `rest`."""
        return f"/usr/local/bin/lab-job {name} && {{ {rest}; }}"

    def install(self) -> None:
        """Put the noting program on every managed host, with an empty record."""
        for host in self._lab.managed:
            program = install(host, "job_note.py")
            host.write("/usr/local/bin/lab-job", f'#!/bin/sh\nexec python3 -IS {program} "$@"\n', mode=0o755)
            host.run(["rm", "-f", self.FILE])

    def starts(self) -> list[JobStart]:
        """Return every noted start, in order."""
        return sorted((s for host in self._lab.managed for s in self._of(host)), key=lambda s: s.at)

    def _of(self, host: LabHost) -> list[JobStart]:
        text = host.run(["sh", "-c", f"cat {self.FILE} 2>/dev/null || true"]).stdout
        rows = [line.split() for line in text.splitlines()]
        return [JobStart(host.name, r[0], r[1], int(r[2]), r[3], int(r[4])) for r in rows]


@dataclass(frozen=True, slots=True)
class Difference:
    """How what arrived differs from what was sent; each list holds at most `SHOWN` examples beside the true count."""

    lost: int
    twice: int
    unknown: int
    examples: tuple[str, ...]

    @property
    def is_none(self) -> bool:
        return self.lost == self.twice == self.unknown == 0


SHOWN = 10


def compare(sent: Iterable[str], arrived: Iterable[str], carried: Counter[str] | None = None) -> Difference:
    """Compare what a sender says it sent with what the product says arrived; every key must be there exactly once.

    `carried`: how often the wire carried a key to one member (wire.py); so often it may be there.
    """
    wanted, found, rightly = set(sent), Counter(arrived), carried or Counter()
    lost = sorted(wanted - found.keys())
    twice = sorted(k for k, n in found.items() if n > max(1, rightly[k]))
    unknown = sorted(found.keys() - wanted)
    examples = [f"lost {k}" for k in lost[:SHOWN]] + [f"{found[k]} times {k}" for k in twice[:SHOWN]]
    examples += [f"never sent {k}" for k in unknown[:SHOWN]]
    return Difference(len(lost), len(twice), len(unknown), tuple(examples))
