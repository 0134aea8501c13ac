"""What real controllers recorded while the service moved from one to the other is decided again on the members themselves."""

from __future__ import annotations

import json
import re
import time

from futago.lab.lab import PROGRAM, Lab
from futago.lab.pair import wait_protected

PLACE = "/var/lib/futago/cluster/decisions"
REPLAY = [PROGRAM, "simulate", "--replay", PLACE]


def replayed(lab: Lab, member: str) -> list[str]:
    """The rules of every recorded decision of a member, oldest first; fails if one comes out otherwise."""
    done = lab.host(member).run([*REPLAY, "--json"], check=False, deadline_s=60)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    return [str(json.loads(line)["rule"]) for line in done.stdout.splitlines()]


def replayed_with(lab: Lab, member: str, *rules: str) -> list[str]:
    """The same, once the rules are among them in this order: a record reaches the disk a moment after the decision."""
    end = time.monotonic() + 60
    while True:
        found = replayed(lab, member)
        rest = iter(found)
        if all(rule in rest for rule in rules):
            return found
        assert time.monotonic() < end, f"{member}: not {rules} in this order in {found}"
        time.sleep(0.5)


def test_recorded_decisions_come_out_the_same(pair: Lab) -> None:
    before = wait_protected(pair)
    old, new = pair.resolve("primary"), pair.resolve("standby")
    assert before["primary"] == old
    pair.host(old).run([PROGRAM, "switchover"], deadline_s=120)
    pair.host(new).run([PROGRAM, "recover"], deadline_s=300)  # `recovery = "manual"`: every return is ordered
    assert wait_protected(pair)["primary"] == new

    replayed_with(pair, old, "T4.announce", "T4.give")
    took = replayed_with(pair, new, "T4.adopt", "S6.promote", "P7.serve")

    told = pair.host(new).run(REPLAY, deadline_s=60).stdout
    assert "has the vote and all acknowledged data: it is promoted." in told
    summary = re.fullmatch(r"(\d+) decisions replayed, 0 came out otherwise", told.rstrip().splitlines()[-1])
    assert summary, told[-3000:]
    assert int(summary[1]) >= len(took)  # the controller goes on deciding while we read

    for member in (old, new):
        size = int(pair.host(member).run(["du", "-sb", PLACE]).stdout.split()[0])
        assert 0 < size < 10 << 20
