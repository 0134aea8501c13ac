"""The third vote under fire: jurors lost before, during and after a takeover; jurors replaced; one with an empty disk; a
witness in their place. A client writes all the time, and what was acknowledged to it is there at the end, once.

The tests run in the order in which they stand. The lab is one of their own: five hosts, since a jury may have five.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from api import Api
from oracles import compare
from senders import ApiWriter, longest_gap_s

from futago.lab.lab import PROGRAM, Lab
from futago.lab.pair import form_pair, wait_for_pair, wait_protected
from futago.lab.progress import say
from futago.lab.topology import standard
from futago.runtime.clock import MS, S, now_at
from futago.runtime.faults import Refused, Unknown

DETECTED_MS = 2000  # the default profile: the other member's silence counts from then on
BLOCKED_S = 6.0  # how long nobody may serve: three times as long as a takeover takes
RESUMED_S = 10.0


@dataclass
class Court:
    """The lab, and the client that writes."""

    lab: Lab
    writer: ApiWriter

    def status(self) -> dict[str, Any]:
        status = self.lab.pair_status()
        assert status is not None
        return status

    def wait_vote(self, *, ok: bool, deadline_s: float = 20) -> dict[str, Any]:
        """Wait until the third vote is, or is not, in order; return the status."""
        end = time.monotonic() + deadline_s
        while (status := self.status())["third_vote"]["ok"] is not ok:
            assert time.monotonic() < end, status["third_vote"]
            time.sleep(0.3)
        return status

    def bring_back(self) -> dict[str, Any]:
        """Heal everything, and wait until the pair is whole: it comes back by itself."""
        self.lab.heal()
        for node in self.lab.state.nodes:
            self.lab.host(node.name).wait_booted()
        return wait_protected(self.lab)

    def acks_between(self, begin: int, end: int) -> int:
        return sum(1 for w in self.writer.writes() if w.status and w.sent_at >= begin and w.acked_at <= end)


@pytest.fixture(scope="module")
def court() -> Iterator[Court]:
    made = Lab(f"j{os.getpid()}")
    try:
        made.up(nodes=standard(hosts=5, device=False), owner_pid=os.getpid(), say=say)
        form_pair(made, say=say)
        writer = ApiWriter(made, rate=20, threads=4)
        writer.start(prefix=f"court{time.monotonic_ns()}")
        yield Court(made, writer)
    finally:
        made.down(say=say, keep_logs=True)


def other(member: str) -> str:
    return "m2" if member == "m1" else "m1"


def test_loss_of_the_third_vote_in_steady_state_changes_nothing_but_the_status(court: Court) -> None:
    before = wait_protected(court.lab)
    at = int(court.lab.fault("isolate", "host1")["at"])
    court.lab.fault("power-cut", "host2")
    status = court.wait_vote(ok=False)
    time.sleep(4)  # twice the members' patience with each other
    after = court.status()
    assert (after["state"], after["epoch"], after["primary"]) == ("paired", before["epoch"], before["primary"])
    assert not after["protected"] and any("third vote does not answer" in n for n in after["not_protected"])
    assert {j["name"] for j in status["third_vote"]["jurors"] if j["ok"]} == {"host3"}
    assert longest_gap_s([w for w in court.writer.writes() if w.acked_at >= at]) < 1, "clients noticed"
    court.bring_back()
    assert all(j["ok"] for j in court.wait_vote(ok=True)["third_vote"]["jurors"])


def test_two_of_three_jurors_lost_during_a_takeover_block_it_until_one_is_back(court: Court) -> None:
    primary = str(wait_protected(court.lab)["primary"])
    heir = other(primary)
    at = int(court.lab.host(primary).power_cut()["at"])
    court.lab.fault("isolate", "host1")
    court.lab.fault("power-cut", "host2")
    assert now_at() - at < DETECTED_MS * MS, "the jurors were lost too late to be lost during the takeover"
    time.sleep(BLOCKED_S)
    status = court.status()
    assert status["state"] == "blocked" and "third vote" in status["reason"], status["reason"]
    assert court.acks_between(at + S // 2, now_at()) == 0, "somebody serves without a vote"
    healed_at = now_at()
    court.lab.heal("isolate", "host1")
    write = court.writer.wait_for_write_after(healed_at, deadline_s=30)
    resumed_s = (write.acked_at - healed_at) / S
    after = wait_for_pair(court.lab, key="primary", value=heir, deadline_s=5)
    print(f"blocked for {BLOCKED_S:.0f} s; {resumed_s:.2f} s after the second juror was back: {after['last_switch']}")
    assert resumed_s < RESUMED_S
    court.bring_back()


def test_two_of_five_jurors_lost_during_a_takeover_do_not_matter(court: Court) -> None:
    names = [h.name for h in court.lab.managed]
    member = court.lab.host(court.lab.resolve("standby"))  # either member may seat it
    assert "The jury is seated" in member.run([PROGRAM, "jury", "set", *names], deadline_s=60).stdout
    before = wait_protected(court.lab)
    assert len(before["third_vote"]["jurors"]) == 5
    primary = str(before["primary"])
    at = int(court.lab.host(primary).power_cut()["at"])
    court.lab.fault("isolate", "host1")
    court.lab.fault("power-cut", "host2")
    assert now_at() - at < DETECTED_MS * MS
    write = court.writer.wait_for_write_after(at, deadline_s=30)
    after = wait_for_pair(court.lab, key="primary", value=other(primary), deadline_s=5)
    outage_s = (write.acked_at - at) / S
    print(f"two of five jurors lost during the takeover: outage {outage_s:.2f} s; {after['last_switch']}")
    assert outage_s < RESUMED_S
    court.bring_back()


def test_juror_that_lost_its_disk_has_no_vote_until_it_is_seated_anew(court: Court) -> None:
    lost = court.lab.host("host4")
    lost.run(["systemctl", "stop", "futago-agent"])
    lost.run(["rm", "/var/lib/futago-agent/juror.slots"])
    lost.run(["systemctl", "start", "futago-agent"])
    juror = wait_juror(court, "host4", error="wrong-acceptor")
    assert not juror["ok"]
    assert court.status()["third_vote"]["ok"], "four of five are a majority"
    names = [h.name for h in court.lab.managed]
    court.lab.members[0].run([PROGRAM, "vote", "set", "jury", *names], deadline_s=60)
    wait_juror(court, "host4", error="")


def test_juror_that_was_restored_from_an_old_copy_is_noticed(court: Court) -> None:
    old = court.lab.host("host5")
    file, copy = "/var/lib/futago-agent/juror.slots", "/root/juror.copy"
    old.run(["cp", file, copy])
    court.lab.members[0].run([PROGRAM, "switchover"], deadline_s=60)  # a new view, which the jurors are told
    after = wait_protected(court.lab)
    assert after["third_vote"]["knows_view"]
    old.run(["systemctl", "stop", "futago-agent"])
    old.run(["cp", copy, file])
    old.run(["systemctl", "start", "futago-agent"])
    wait_juror(court, "host5", error="restored from an old copy")
    assert court.status()["third_vote"]["ok"]


def wait_juror(court: Court, name: str, *, error: str, deadline_s: float = 20) -> dict[str, Any]:
    """Wait until the serving member says this of a juror."""
    end = time.monotonic() + deadline_s
    while True:
        jurors = {j["name"]: j for j in court.status()["third_vote"]["jurors"]}
        found: dict[str, Any] = jurors[name]
        if error in found["error"] and found["ok"] is not bool(error):
            return found
        assert time.monotonic() < end, jurors
        time.sleep(0.3)


def test_witness_process_takes_the_place_of_the_jury_and_decides_a_takeover(court: Court) -> None:
    first, nas = court.lab.members[0], court.lab.host("host5")
    token = json.loads(first.run([PROGRAM, "token", "enroll", "--json"]).stdout)["enroll_token"]
    enroll = [PROGRAM, "agent", "enroll", "--token", token, "--name", nas.name]
    with pytest.raises((Refused, Unknown), match="futago-agent"):
        nas.run([*enroll, "--witness"], deadline_s=60)
    nas.run(["systemctl", "disable", "--now", "futago-agent"])
    assert "listens" in nas.run([*enroll, "--witness"], deadline_s=60).stdout
    first.run([PROGRAM, "vote", "set", "witness", f"{nas.name}={nas.address}"], deadline_s=60)
    before = wait_protected(court.lab)
    assert (before["third_vote"]["kind"], len(before["third_vote"]["jurors"])) == ("witness", 1)
    for juror in ("host1", "host2", "host3"):
        court.lab.host(juror).run(["systemctl", "stop", "futago-agent"])  # nobody needs them any more
    primary = str(before["primary"])
    at = int(court.lab.host(primary).power_cut()["at"])
    write = court.writer.wait_for_write_after(at, deadline_s=30)
    wait_for_pair(court.lab, key="primary", value=other(primary), deadline_s=5)
    print(f"takeover by the witness: outage {(write.acked_at - at) / S:.2f} s")
    court.bring_back()


def test_what_was_acknowledged_is_there_once(court: Court) -> None:
    writes = court.writer.stop()
    acked = {w.key for w in writes if w.status}
    assert len(acked) > 500
    found = Counter(e["message"].removeprefix("written ") for e in Api(court.lab).event_messages(source="api"))
    difference = compare(acked, (k for k in found.elements() if k in acked))
    assert difference.is_none, str(difference)
    assert max(found.values()) == 1
