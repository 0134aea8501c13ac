"""The third vote in an etcd on a host of its own: seated in place of the jury on a living pair, lost, deciding a takeover,
wiped, and replaced by a jury again. A client writes all the time.

The tests run in the order in which they stand.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from senders import ApiWriter, longest_gap_s

from futago.lab.lab import PROGRAM, Lab
from futago.lab.pair import form_pair, wait_for_pair, wait_protected
from futago.lab.progress import say
from futago.lab.topology import standard
from futago.runtime.clock import S

PROGRAM_OF_ETCD = "/usr/local/bin/etcd"
DATA = "/var/lib/etcd"
UNIT = """[Service]
ExecStart={program} --data-dir {data} --listen-client-urls {url} --advertise-client-urls {url} --log-level warn --logger zap
"""


@dataclass
class Stage:
    """The lab, the host with the etcd, and the client that writes."""

    lab: Lab
    writer: ApiWriter

    @property
    def host(self) -> str:
        return "host4"

    @property
    def url(self) -> str:
        return f"http://{self.lab.host(self.host).address}:2379"

    def etcd(self, verb: str) -> None:
        self.lab.host(self.host).run(["systemctl", verb, "etcd"])

    def seat(self, member: str) -> str:
        return str(self.lab.host(member).run([PROGRAM, "vote", "set", "etcd", "--endpoint", self.url]).stdout)

    def vote(self) -> dict[str, Any]:
        found = self.lab.pair_status()
        assert found is not None
        told: dict[str, Any] = found["third_vote"]
        return told

    def until(self, is_so: Callable[[dict[str, Any]], bool], *, deadline_s: float = 20) -> None:
        """Wait until the third vote is so."""
        end = time.monotonic() + deadline_s
        while not is_so(vote := self.vote()):
            assert time.monotonic() < end, vote
            time.sleep(0.3)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    made = Lab(f"e{os.getpid()}")
    try:
        made.up(nodes=standard(hosts=4, device=False), owner_pid=os.getpid(), say=say)
        form_pair(made, say=say)
        found = Stage(made, ApiWriter(made, rate=20, threads=4))
        host = made.host(found.host)
        host.write(PROGRAM_OF_ETCD, Path("/usr/bin/etcd").read_bytes(), mode=0o755)
        text = UNIT.format(program=PROGRAM_OF_ETCD, data=DATA, url=found.url)
        host.write("/etc/systemd/system/etcd.service", text)
        host.run(["systemctl", "daemon-reload"])
        found.etcd("start")
        found.writer.start(prefix=f"etcd{time.monotonic_ns()}")
        yield found
    finally:
        made.down(say=say, keep_logs=True)


def other(member: str) -> str:
    return "m2" if member == "m1" else "m1"


def test_etcd_takes_the_place_of_the_jury_while_the_pair_works(stage: Stage) -> None:
    before = wait_protected(stage.lab)
    assert "holds the third vote" in stage.seat(other(str(before["primary"])))  # either member may seat it
    after = wait_protected(stage.lab)
    assert (after["epoch"], after["primary"]) == (before["epoch"], before["primary"])
    vote = after["third_vote"]
    assert (vote["kind"], vote["version"] > before["third_vote"]["version"]) == ("etcd", True)
    assert [j["ok"] for j in vote["jurors"]] == [True]
    for member in stage.lab.members:
        assert "third vote: etcd" in member.run([PROGRAM, "vote", "show"]).stdout


def test_etcd_that_is_gone_changes_nothing_but_the_status(stage: Stage) -> None:
    before = wait_protected(stage.lab)
    at = int(stage.lab.fault("isolate", stage.host)["at"])
    stage.until(lambda vote: not vote["ok"])
    time.sleep(3)
    after = stage.lab.pair_status()
    assert after is not None
    assert (after["state"], after["epoch"], after["protected"]) == ("paired", before["epoch"], False)
    assert longest_gap_s([w for w in stage.writer.writes() if w.acked_at >= at]) < 1
    stage.lab.heal()
    wait_protected(stage.lab)


def test_etcd_decides_a_takeover(stage: Stage) -> None:
    primary = str(wait_protected(stage.lab)["primary"])
    at = int(stage.lab.host(primary).power_cut()["at"])
    write = stage.writer.wait_for_write_after(at, deadline_s=30)
    after = wait_for_pair(stage.lab, key="primary", value=other(primary), deadline_s=5)
    outage_s = (write.acked_at - at) / S
    print(f"takeover by the etcd: outage {outage_s:.2f} s; {after['last_switch']}")
    assert outage_s < 10
    stage.lab.heal()
    wait_protected(stage.lab)


def test_etcd_that_lost_everything_has_no_vote_until_it_is_seated_anew(stage: Stage) -> None:
    before = wait_protected(stage.lab)
    stage.etcd("stop")
    stage.lab.host(stage.host).run(["rm", "-rf", DATA])
    stage.etcd("start")
    stage.until(lambda vote: not vote["ok"] and "lost its memory" in vote["jurors"][0]["error"])
    stage.seat(str(before["primary"]))
    after = wait_protected(stage.lab)
    assert after["third_vote"]["version"] > before["third_vote"]["version"]
    assert (after["epoch"], after["primary"]) == (before["epoch"], before["primary"])


def test_jury_takes_its_place_again(stage: Stage) -> None:
    names = ["host1", "host2", "host3"]
    stage.lab.members[1].run([PROGRAM, "vote", "set", "jury", *names], deadline_s=60)
    stage.until(lambda vote: vote["kind"] == "jury" and [j["ok"] for j in vote["jurors"]] == [True] * 3)
    wait_protected(stage.lab)
    stage.etcd("stop")
    stage.writer.stop()
