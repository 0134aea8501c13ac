"""A whole night's load on the lab's pair, and the reckoning afterwards: what the world saw against what the product says.

Messages from real senders, a net of 40 jobs, a ping of every host each second, a client that writes through the floating IP, and a host whose cable is
pulled so that a status changes and is mailed. Every expectation comes from outside the product: the senders' logs, the hosts' own notes of process
starts, the SMTP server's box, the client's acknowledgements.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count

import night
from api import Api
from oracles import Difference, JobStarts, Mail, SmtpSink, compare
from senders import ApiWriter, Senders, Write

from futago.lab.lab import Lab
from futago.lab.pair import apply

DRAIN_S = 90.0
NET_S = 180.0
PULLED = "host4"  # no juror
_nights = count(1)


@dataclass(frozen=True, slots=True)
class Cut:
    """One fault under load: when it began and how long clients waited."""

    at: int
    outage_s: float


class Night:
    """The load. Start it once; break things; then `reckon`.

    Args:
        lab: the lab with a protected pair.
        rates: messages a second of each stream; the senders' own by default.
    """

    def __init__(self, lab: Lab, *, rates: dict[str, float] | None = None) -> None:
        self.lab = lab
        self.api = Api(lab)
        self.sink = SmtpSink(lab)
        self.starts = JobStarts(lab)
        self.senders = Senders(lab, rates=rates)
        self.mark = (
            f"n{next(_nights)}x{time.time_ns() // 1_000_000_000}"  # no number of another night is taken for ours
        )
        for stream in self.senders.streams:
            stream.name += self.mark
        self.began_utc = datetime.now(UTC)
        self.writer = ApiWriter(lab, rate=20, threads=6)
        self.sessions: list[int] = []
        self.cuts: list[Cut] = []
        self.pulls = 0

    def start(self) -> None:
        """Configure everything and begin to send."""
        self.sink.start()
        self.starts.install()
        apply(self.lab, night.definitions(seconds_per_job=1.5))
        before = self.api.event_count(monitor="numbered")
        for (
            member
        ) in self.lab.members:  # UDP that waits for an address to be resolved is dropped by the sender's kernel
            self.senders.host.run(["ping", "-c", "2", "-i", "0.2", "-W", "2", member.address])
        self._wait_for_rules()
        self.senders.start()
        self.writer.start(prefix=f"api{time.monotonic_ns()}")
        wanted = before + 2000
        assert self.api.wait_for_events(monitor="numbered", count=wanted, deadline_s=60) >= wanted, "no messages arrive"

    def _wait_for_rules(self) -> None:
        """Wait until the monitors that were just applied are at work: what came before them made no event, rightly."""
        before, end = self.api.event_count(monitor="numbered"), time.monotonic() + 30
        for number in count(1):
            assert time.monotonic() < end, "the monitors that were applied do not work"
            text = f"SEQ=probe{time.time_ns()}-{number}"
            self.senders.host.run(["logger", "-n", self.lab.members[0].address, "-P", "514", "-d", text])
            time.sleep(0.2)
            if self.api.event_count(monitor="numbered") > before:
                return

    def start_net(self) -> int:
        """Start the net of 40 jobs; return its session."""
        started = self.api.ask(f"/job-nets/{night.NET}/runs", post={})
        self.sessions.append(int(started["session_id"]))
        return self.sessions[-1]

    def wait_for_starts(self, count: int, *, deadline_s: float = 30) -> None:
        """Wait until the hosts have noted `count` starts of processes."""
        end = time.monotonic() + deadline_s
        while (found := len(self.starts.starts())) < count:
            assert time.monotonic() < end, f"only {found} of {count} jobs were started: {self._sessions()}"
            time.sleep(0.2)

    def pull(self) -> None:
        """Pull the cable of a host: two pings later its status changes."""
        self.lab.fault("link-down", PULLED, "svc")
        self.pulls += 1

    def plug(self) -> None:
        """Plug it in again."""
        self.lab.heal("link-down", PULLED)

    def wait_for_mails(self, count: int, *, deadline_s: float = 30) -> list[Mail]:
        """Wait until the SMTP server has `count` mails."""
        end = time.monotonic() + deadline_s
        while len(found := self.sink.mails()) < count:
            assert time.monotonic() < end, f"{len(found)} of {count} mails: {[m.subject for m in found]}"
            time.sleep(0.2)
        return found

    def note(self, at: int, *, deadline_s: float = 30) -> Cut:
        """Wait until the client writes again after the fault at `at`; remember how long it waited."""
        write = self.writer.wait_for_write_after(at, deadline_s=deadline_s)
        self.cuts.append(Cut(at, (write.acked_at - at) / 1e9))
        return self.cuts[-1]

    # ---- the reckoning

    def reckon(self) -> None:
        """Stop the load, let everything drain, and compare."""
        self.senders.stop()
        sessions = [self._wait_ended(s) for s in self.sessions]
        writes = self.writer.stop()
        self.check_messages()
        self.check_jobs(sessions)
        self.check_samples()
        self.check_mails()
        self.check_writes(writes)
        self.senders.close()
        self.sink.stop()

    def check_messages(self) -> None:
        """Every number sent is there exactly once."""
        sent = self.senders.sent()
        traps = {k for k in sent if k.startswith("trap")}
        for monitor, wanted in (("numbered", sent - traps), ("traps", traps)):
            found = self._compare(monitor, wanted)
            end = time.monotonic() + DRAIN_S
            while found.lost and time.monotonic() < end:
                time.sleep(3)
                found = self._compare(monitor, wanted)
            assert found.is_none, f"{monitor}: of {len(wanted)} sent: {found}"

    def _compare(self, monitor: str, wanted: set[str]) -> Difference:
        told = (str(e["message"]) for e in self.api.event_messages(monitor=monitor))
        return compare(wanted, (m for m in told if f"{self.mark}-" in m))

    def check_jobs(self, sessions: list[dict[str, object]]) -> None:
        """Every job ran exactly once, on its host, with its true result."""
        expected = {j.name: j for j in night.jobs()}
        starts = self.starts.starts()
        ran = Counter((s.name, s.host) for s in starts)
        wanted = {(j.name, j.host): len(sessions) for j in expected.values()}
        assert dict(ran) == wanted, (
            f"starts noted by the hosts differ: {ran - Counter(wanted)}, {Counter(wanted) - ran}"
        )
        for session in sessions:
            jobs = session["jobs"]
            assert isinstance(jobs, list)
            told = {j["job_name"]: j["exit_code"] for j in jobs}
            assert told == {name: j.exit_code for name, j in expected.items()}
            assert {j["run_id"] for j in jobs} <= {s.run_id for s in starts}

    def check_samples(self) -> None:
        """The monitor's samples have no hole longer than the longest switch."""
        # a sample that was in flight when the power went is lost: the hole begins with the one before it, an interval
        # and the timeout of a host that does not answer earlier; half a second for the spread
        allowed = max((c.outage_s for c in self.cuts), default=0.0) + 1.0 + 0.8 + 0.5
        by_host: dict[str, list[datetime]] = {}
        for sample in self.api.samples("ping-farm"):
            at = datetime.fromisoformat(sample["at_utc"])
            if at >= self.began_utc:
                by_host.setdefault(sample["host_name"], []).append(at)
        assert set(by_host) == set(night.HOSTS)
        for host, instants in by_host.items():
            instants.sort()
            assert len(instants) == len(set(instants)), f"{host}: a sample was taken twice"
            hole = max((b - a).total_seconds() for a, b in itertools.pairwise(instants))
            assert hole <= allowed, f"{host}: a hole of {hole:.1f} s; {allowed:.1f} s is allowed"

    def check_mails(self) -> None:
        """Each status change was mailed once: a pulled cable makes two, critical and normal again."""
        changes = self.pulls * 2
        ends = len(self.sessions)  # the net ends abnormally, by its last layer; it names no notification
        mails = [m for m in self.wait_for_mails(changes) if "x-futago-possible-duplicate" not in m.headers]
        about = Counter(m.headers.get("message-id") for m in mails)
        assert len(mails) == changes, (
            f"{changes} changes, {len(mails)} mails: {[m.subject for m in mails]} ({ends} nets)"
        )
        assert all(PULLED in m.subject for m in mails), [m.subject for m in mails]
        assert max(about.values(), default=1) == 1

    def check_writes(self, writes: list[Write]) -> None:
        """Every acknowledged write is there exactly once; one that was never acknowledged at most once."""
        found = Counter(e["message"].removeprefix("written ") for e in self.api.event_messages(source="api"))
        acked = {w.key for w in writes if w.status}
        difference = compare(acked, (k for k in found.elements() if k in acked))
        assert difference.is_none, str(difference)
        assert max(found.values(), default=0) <= 1

    def _wait_ended(self, session: int) -> dict[str, object]:
        end = time.monotonic() + NET_S
        while (told := self.api.ask(f"/runs/{session}"))["ended_utc"] is None:
            assert time.monotonic() < end, f"the net has not ended: {told['job_states']}"
            time.sleep(0.5)
        return told

    def _sessions(self) -> list[object]:
        return [self.api.ask(f"/runs/{s}")["job_states"] for s in self.sessions]
