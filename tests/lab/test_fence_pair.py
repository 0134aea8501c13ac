"""A pair that is fenced by levels (Redfish, then a ClusterLabs agent) and by its own watchdogs: what it shows, the proof of a
device on the standby, and a hung primary whose BMC hangs too.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from futago.lab.lab import PROGRAM, Lab
from futago.lab.pair import form_pair, wait_protected
from futago.lab.progress import say
from futago.lab.topology import standard


@pytest.fixture(scope="module")
def guarded() -> Iterator[Lab]:
    """A protected pair whose members have two power devices and a watchdog each."""
    made = Lab(f"g{os.getpid()}")
    nodes = standard(hosts=3, device=False, client=False)
    try:
        made.up(nodes=nodes, owner_pid=os.getpid(), fence=("redfish", "agent"), watchdog=True, say=say)
        form_pair(made, say=say)
        yield made
    finally:
        made.down(say=say, keep_logs=True)


def until(what: str, found: Callable[[], bool], *, deadline_s: float) -> float:
    """Wait until it is so; return after how many seconds it was."""
    began = time.monotonic()
    while not found():
        assert time.monotonic() - began < deadline_s, f"no {what} within {deadline_s:g} s"
        time.sleep(0.1)
    return time.monotonic() - began


def rows(lab: Lab, member: str) -> dict[tuple[str, int], dict[str, Any]]:
    """What a member says of power devices: by owner and level."""
    status = json.loads(lab.host(member).run([PROGRAM, "status", "--json"], check=False).stdout)
    return {(f["member"], f["level"]): f for f in status["fences"]}


def test_status_shows_every_level_of_both_members_and_the_own_watchdog(guarded: Lab) -> None:
    for member in ("m1", "m2"):
        until(
            "fresh answer of every device",
            lambda m=member: all(f["ok"] for f in rows(guarded, m).values()),
            deadline_s=40,
        )  # type: ignore[misc]
        found = rows(guarded, member)
        assert set(found) == {("m1", 1), ("m1", 2), ("m2", 1), ("m2", 2), (member, 0)}
        assert [found["m1", level]["driver"] for level in (1, 2)] == ["redfish", "agent"]
        assert found[member, 0]["driver"] == "watchdog" and "3 s" in found[member, 0]["device"]


def test_power_device_is_proved_on_the_standby_and_the_pair_is_paired_again(guarded: Lab) -> None:
    primary, standby = (guarded.host(guarded.resolve(w)) for w in ("primary", "standby"))
    boots = standby.status()["boots"]
    refused = primary.run(
        [PROGRAM, "fence", "test", primary.name, "--power-cycle", "--confirm", primary.name], check=False
    )
    assert refused.returncode == 2 and "is not the standby" in refused.stderr, refused
    assert standby.status()["boots"] == boots and primary.is_on()
    command = [PROGRAM, "fence", "test", standby.name, "--power-cycle", "--level", "2", "--confirm", standby.name]
    done = primary.run(command, deadline_s=120)
    print(done.stdout, done.stderr)
    assert "powered" in done.stdout and "off in" in done.stdout
    assert "has not gone on" not in done.stderr
    assert standby.status()["boots"] == boots + 1, "one power cycle, not two"
    wait_protected(guarded, deadline_s=120)
    assert guarded.resolve("primary") == primary.name


def test_hung_primary_whose_bmc_hangs_is_reset_by_its_own_watchdog_and_rejoins(guarded: Lab) -> None:
    """Nobody else can reach it: the vote lets the other one serve, the watchdog brings it back."""
    old, new = (guarded.host(guarded.resolve(w)) for w in ("primary", "standby"))
    boots = old.status()["boots"]
    guarded.fault("bmc-hang", old.name)
    old.fault("freeze")
    reset_s = until("reset", lambda: old.status()["boots"] == boots + 1, deadline_s=10)
    taken_s = until("takeover", lambda: guarded.resolve("primary") == new.name, deadline_s=30)
    print(f"reset {reset_s:.1f} s after it froze; {new.name} serves {taken_s:.1f} s later at the latest")
    guarded.heal("bmc-hang")
    wait_protected(guarded, deadline_s=180)
    assert guarded.resolve("primary") == new.name
