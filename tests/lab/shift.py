"""One fault's load on the lab's pair, light enough for a walk through all of them, and its reckoning.

As a night (load.py), but of half a minute: about 250 numbered messages a second to both members, traps among them; a net
of jobs; a ping of every host; a host whose cable is pulled, so that two mails are due; a client that writes through the
floating IP, which is the measure of the outage; and one that writes to each member's own address, so that a member that
acknowledges beside the other would be caught. All that is expected is known from outside the product.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count, pairwise

from api import Api
from oracles import Difference, JobStarts, SmtpSink, compare
from senders import ApiWriter, Senders, Write
from wire import WireTap, most

from futago.lab.lab import Lab
from futago.lab.pair import apply

RATES = {"rsudp": 100.0, "rstcp": 100.0, "logudp": 25.0, "logtcp": 25.0, "trap": 4.0}
JOB_HOSTS = ("host1", "host2", "host3")
LAYERS = 6
SECONDS_PER_JOB = 1.5
NET = "shift"
SENDING_HOST = "dev1"
PULLED = "host4"  # no juror, and no job runs there
MAIL_HOST = "10.91.1.50"
DRAIN_S = 40.0
NET_S = 60.0
_shifts = count(1)


def definitions() -> str:
    """Return what the pair is configured with, as YAML."""
    documents: list[dict[str, object]] = [
        {"kind": "Scope", "name": "farm", "hosts": [*JOB_HOSTS, PULLED]},
        {
            "kind": "Notification",
            "name": "ops",
            "channel": "mail",
            "to": ["ops@lab.test"],
            "from": "futago@lab.test",
            "smtp": {"host": MAIL_HOST, "port": 25},
        },
        {
            "kind": "Monitor",
            "name": "ping-farm",
            "check": "ping",
            "scope": "farm",
            "interval": "1s",
            "timeout": "800ms",
            "failures": 2,
            "notify": ["ops"],
        },
        _messages("numbered", "syslog"),
        _messages("traps", "snmptrap"),
        {"kind": "JobNet", "name": NET, "jobs": [_job(layer, h) for layer in range(LAYERS) for h in JOB_HOSTS]},
    ]
    return "\n---\n".join(json.dumps(d) for d in documents) + "\n"  # JSON is YAML


def _messages(name: str, check: str) -> dict[str, object]:
    pattern = {"match": r"SEQ=(?P<seq>[a-z0-9]+-\d+)", "message": "{seq}", "priority": "info"}
    return {"kind": "Monitor", "name": name, "check": check, "scope": "*", "patterns": [pattern]}


def _job(layer: int, host: str) -> dict[str, object]:
    name = f"s{layer}-{host}"
    code = JOB_HOSTS.index(host) + 3 if layer == LAYERS - 1 else 0
    command = JobStarts.command(name, f"sleep {SECONDS_PER_JOB}; exit {code}")
    job: dict[str, object] = {"name": name, "host": host, "command": command}
    return {**job, "after": [f"s{layer - 1}-{h}" for h in JOB_HOSTS]} if layer else job


EXPECTED = {
    f"s{layer}-{h}": JOB_HOSTS.index(h) + 3 if layer == LAYERS - 1 else 0 for layer in range(LAYERS) for h in JOB_HOSTS
}


class World:
    """What outlives a shift: the configuration, the mail server, the hosts' own records. Once in a lab's life.

    Args:
        lab: a lab with a protected pair.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.api = Api(lab)
        self.sink = SmtpSink(lab)
        self.starts = JobStarts(lab)
        self.sink.start()
        self.starts.install()
        apply(lab, definitions())

    def close(self) -> None:
        self.sink.stop()


@dataclass
class Tally:
    """What was lost and what happened twice, of everything together; and how many messages their sender sent again."""

    sent: int = 0
    lost: int = 0
    twice: int = 0
    resent: int = 0
    why: list[str] = field(default_factory=list)

    def add(self, what: str, difference: Difference) -> None:
        self.lost += difference.lost
        self.twice += difference.twice
        if not difference.is_none:
            self.why.append(f"{what}: {difference.lost} lost, {difference.twice} twice: {difference.examples[:4]}")


class Shift:
    """The load of one fault: start, break and heal things, reckon.

    Args:
        world: what outlives it.
    """

    def __init__(self, world: World) -> None:
        self.world, self.lab, self.api = world, world.lab, world.api
        self.mark = f"f{next(_shifts)}x{time.time_ns() // 1_000_000}"
        self.writer = ApiWriter(self.lab, rate=20, threads=6)
        self.sides = {m.name: ApiWriter(self.lab, rate=3, threads=1, address=m.address) for m in self.lab.members}
        self._parts = 0
        self._sent: set[str] = set()
        self._senders: Senders | None = None
        self._tap = WireTap(self.lab.host(SENDING_HOST))
        self._first_event = 0
        self._mails = len(self.world.sink.mails())
        self._starts = len(self.world.starts.starts())
        self._session = 0
        self.began_epoch = 0

    # ---- the load

    def start(self) -> None:
        """Begin to send, write and run jobs; returns when messages arrive and the first jobs run."""
        newest = self.api.ask("/events?order=desc&limit=1")["events"]
        self._first_event = max(0, (newest[0]["event_id"] if newest else 0) - 1000)  # ids are drawn before they commit
        status = self.lab.pair_status() or {}
        self.began_epoch = int(status.get("epoch", 0))
        before = self.api.event_count(monitor="numbered")
        self._tap.start()
        self.send()
        self.writer.start(prefix=f"{self.mark}-fip")
        for name, writer in self.sides.items():
            writer.start(prefix=f"{self.mark}-{name}")
        self._session = int(self.api.ask(f"/job-nets/{NET}/runs", post={})["session_id"])
        arrived = self.api.wait_for_events(monitor="numbered", count=before + 100, deadline_s=30)
        assert arrived >= before + 100, "no messages arrive"

    def send(self) -> None:
        """Begin to send messages, also anew after `hush`."""
        if self._senders is not None:
            self._senders.close()
        self._parts += 1
        self._senders = Senders(self.lab, host=SENDING_HOST, rates=RATES)
        for stream in self._senders.streams:
            stream.name += f"{self.mark}p{self._parts}"
        self._senders.start()

    def hush(self) -> None:
        """Send no more messages."""
        if self._senders is not None:
            self._senders.stop()
            self._sent |= self._senders.sent()

    def pull(self) -> None:
        """Pull the cable of a host: two pings later its status changes."""
        self.lab.fault("link-down", PULLED, "svc")

    def plug(self) -> None:
        """Plug it in again."""
        self.lab.heal("link-down", PULLED)

    def wait_for_mails(self, number: int, *, deadline_s: float) -> bool:
        """Wait until `number` mails about the pulled host have come; return whether they have."""
        end = time.monotonic() + deadline_s
        while self._about_pulled() < number:
            if time.monotonic() > end:
                return False
            time.sleep(0.3)
        return True

    def _about_pulled(self) -> int:
        return sum(PULLED in m.subject for m in self.world.sink.mails()[self._mails :])

    def close(self) -> None:
        """End everything, whatever state it is in."""
        if self._senders is not None:
            self._senders.close()
        self._tap.stop()
        for writer in (self.writer, *self.sides.values()):
            writer.stop()

    # ---- the reckoning

    def reckon(self) -> Tally:
        """Stop the load, let everything drain, and compare what was sent with what the product says."""
        self.hush()
        assert self._senders is not None
        tally = Tally()
        session = self._wait_ended()
        writes = self.writer.stop()
        side_writes = {name: w.stop() for name, w in self.sides.items()}
        self._check_messages(tally)
        self._senders.close()
        self._check_jobs(tally, session)
        self._check_writes(tally, [*writes, *(w for some in side_writes.values() for w in some)])
        self._check_sides(tally, side_writes)
        self._check_mails(tally)
        return tally

    def _check_messages(self, tally: Tally) -> None:
        traps = {k for k in self._sent if k.startswith("trap")}
        tally.sent = len(self._sent)
        for monitor, wanted in (("numbered", self._sent - traps), ("traps", traps)):
            found = self._compare(monitor, wanted)
            end = time.monotonic() + DRAIN_S
            while found.lost and time.monotonic() < end:
                time.sleep(2)
                found = self._compare(monitor, wanted)
            tally.add(monitor, self._rightly_more(tally, monitor, wanted) if found.twice else found)

    def _compare(self, monitor: str, wanted: set[str], carried: Counter[str] | None = None) -> Difference:
        told = (str(e["message"]) for e in self.api.event_messages(monitor=monitor, after=self._first_event))
        return compare(wanted, (m for m in told if self.mark in m), carried)

    def _rightly_more(self, tally: Tally, monitor: str, wanted: set[str]) -> Difference:
        """Compare anew with what the wire carried: rsyslogd may say again what stood in its buffer."""
        carried = self._tap.carried()
        tally.resent = sum(n > 1 for n in most(carried.values()).values())
        found = self._compare(monitor, wanted, most(carried.values()))
        if found.twice:
            keys = {e.rpartition(" ")[2] for e in found.examples}
            told = {member: {k: n for k, n in counts.items() if k in keys} for member, counts in carried.items()}
            tally.why.append(f"{monitor}: over TCP the wire carried {told}")
        return found

    def _wait_ended(self) -> dict[str, object]:
        end = time.monotonic() + NET_S
        while True:
            told = self.api.ask(f"/runs/{self._session}", deadline_s=40)
            if told["ended_utc"] is not None or time.monotonic() > end:
                return told
            time.sleep(0.5)

    def _check_jobs(self, tally: Tally, session: dict[str, object]) -> None:
        """Every job was started exactly once, by its host's own record, and its true result is known."""
        starts = self.world.starts.starts()[self._starts :]
        tally.add("jobs", compare(EXPECTED, (s.name for s in starts)))
        jobs = session["jobs"]
        assert isinstance(jobs, list)
        told = {j["job_name"]: j["exit_code"] for j in jobs}
        if told != EXPECTED:
            wrong = {k: told.get(k) for k, code in EXPECTED.items() if told.get(k) != code}
            tally.lost += len(wrong)
            tally.why.append(
                f"results of jobs: {wrong}; the net: {session['job_states']}, ended {session['ended_utc']}"
            )

    def _check_writes(self, tally: Tally, writes: list[Write]) -> None:
        """What was acknowledged is there exactly once; what was not, at most once."""
        told = self.api.event_messages(source="api", after=self._first_event)
        found = Counter(m for e in told if self.mark in (m := str(e["message"]).removeprefix("written ")))
        acked = {w.key for w in writes if w.status}
        tally.add("acknowledged writes", compare(acked, (k for k in found.elements() if k in acked)))
        again = [k for k, n in found.items() if n > 1 and k not in acked]
        if again:
            tally.twice += len(again)
            tally.why.append(f"writes that nobody acknowledged are there more than once: {again[:4]}")

    def _check_sides(self, tally: Tally, sides: dict[str, list[Write]]) -> None:
        """The members acknowledge in turns, and take turns no more often than the epoch grew."""
        acks = sorted((w.acked_at, name) for name, some in sides.items() for w in some if w.status)
        turns = sum(a[1] != b[1] for a, b in pairwise(acks))
        epochs = int((self.lab.pair_status() or {}).get("epoch", 0)) - self.began_epoch
        if turns > epochs:
            tally.twice += 1
            tally.why.append(f"two sides acknowledged: {turns} turns in {epochs} epochs")

    def _check_mails(self, tally: Tally) -> None:
        """Of the pulled host two mails came; of no change two, unless they say that they may be a repetition."""
        self.wait_for_mails(2, deadline_s=20)
        mails = self.world.sink.mails()[self._mails :]
        sure = [m for m in mails if "x-futago-possible-duplicate" not in m.headers]
        ids = Counter(str(m.headers.get("message-id")) for m in sure)
        again = sum(n - 1 for n in ids.values())
        about = {m.headers.get("message-id") for m in mails if PULLED in m.subject}
        if again or len(about) != 2:
            tally.twice += again + max(0, len(about) - 2)
            tally.lost += max(0, 2 - len(about))
            tally.why.append(f"mails: {[(m.subject, m.headers.get('message-id')) for m in mails]}")
