"""How long a message waits for its event: a real sender and reader outside the product (programs/event_probe.py)."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass

from senders import MEMBERS, end, install

from futago.lab.lab import HostProcess, Lab
from futago.lab.pair import admin_token, apply
from futago.lab.topology import FLOATING_IP

MONITOR = "probed"
PERIOD_S = 0.02


def definitions() -> str:
    """Return the monitor that makes an event of each message of the probe."""
    pattern = {"match": r"SEQ=(?P<seq>p[0-9]+-\d+)", "message": "{seq}", "priority": "info"}
    return json.dumps({"kind": "Monitor", "name": MONITOR, "check": "syslog", "scope": "*", "patterns": [pattern]})


@dataclass(frozen=True, slots=True)
class Seen:
    """One message whose event was read; instants in nanoseconds."""

    number: int
    sent_at: int
    seen_at: int


class EventProbe:
    """Sends a message every 20 ms to both members, and reads the events through the floating IP.

    Args:
        lab: the lab with a pair in it.
        host: where it runs.
    """

    RECORD = "/var/log/event-probe"

    def __init__(self, lab: Lab, *, host: str = "c1") -> None:
        self._lab = lab
        self.host = lab.host(host)
        self._process: HostProcess[bytes] | None = None

    def start(self) -> None:
        """Begin; returns once the first event was seen, so the monitor is at work."""
        apply(self._lab, definitions())
        member = next(m for m in self._lab.members if m.is_on())
        self.host.write("/etc/lab-ca.crt", member.read("/etc/futago/pki/ca.crt"))
        settings = {
            "members": list(MEMBERS), "url": f"https://{FLOATING_IP.split('/')[0]}/api/v1/events",
            "token": admin_token(self._lab), "ca": "/etc/lab-ca.crt", "monitor": MONITOR,
            "prefix": f"p{time.time_ns()}", "period_s": PERIOD_S, "record": self.RECORD,
        }  # fmt: skip
        self.host.run(["rm", "-f", self.RECORD])
        self._process = self.host.start(
            ["python3", install(self.host, "event_probe.py"), json.dumps(settings)], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        self.wait_for_event_after(0, deadline_s=30)

    def wait_for_event_after(self, at: int, *, deadline_s: float) -> Seen:
        """Wait for the event of a message that was sent after the instant `at`; return the one that was seen first."""
        limit = time.monotonic() + deadline_s
        while True:
            later = [s for s in self.seen() if s.sent_at >= at]
            if later:
                return min(later, key=lambda s: s.seen_at)
            assert time.monotonic() < limit, f"no message made an event within {deadline_s} s"
            time.sleep(0.1)

    def seen(self) -> list[Seen]:
        """Return every message whose event was read so far."""
        text = self.host.run(["sh", "-c", f"cat {self.RECORD} 2>/dev/null || true"]).stdout
        return [Seen(**json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()]

    def stop(self) -> None:
        """Send and read no more."""
        if self._process is not None:
            end(self._process, deadline_s=30)
