"""A pair without a third vote, whose fence devices decide: power cuts of each member, and a device that does not answer."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from walk import Logs

from futago.lab.lab import PROGRAM, Lab
from futago.lab.pair import form_pair, wait_for_pair, wait_protected
from futago.lab.progress import say
from futago.lab.topology import standard


@pytest.fixture(scope="module")
def fenced() -> Iterator[Lab]:
    """A protected pair in which the fence decides."""
    made = Lab(f"d{os.getpid()}")
    nodes = standard(hosts=3, device=False, client=False)
    try:
        made.up(nodes=nodes, owner_pid=os.getpid(), say=say)
        form_pair(made, say=say)
        made.host(made.resolve("primary")).run([PROGRAM, "vote", "set", "none", "--yes"], deadline_s=60)
        yield made
    finally:
        made.down(say=say, keep_logs=True)


def status(lab: Lab, member: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lab.host(member).run([PROGRAM, "status", "--json"], check=False).stdout)
    return found


def until(what: str, found: Callable[[], bool], *, deadline_s: float) -> float:
    """Wait until it is so; return after how many seconds it was."""
    began = time.monotonic()
    while not found():
        assert time.monotonic() - began < deadline_s, f"no {what} within {deadline_s:g} s"
        time.sleep(0.1)
    return time.monotonic() - began


def roles(lab: Lab) -> tuple[str, str]:
    primary = str(wait_protected(lab)["primary"])
    return primary, "m1" if primary == "m2" else "m2"


def test_standby_takes_over_when_the_device_says_off_and_the_other_comes_back_by_itself(fenced: Lab) -> None:
    primary, standby = roles(fenced)
    assert status(fenced, standby)["third_vote"]["kind"] == "none"
    fenced.host(primary).power_cut()
    taken_s = until("takeover", lambda: fenced.resolve("primary") == standby, deadline_s=20)
    print(
        f"{standby} serves {taken_s:.1f} s after the power cut of {primary}: {status(fenced, standby)['last_switch']}"
    )
    back_s = until("power", fenced.host(primary).is_on, deadline_s=60)
    wait_protected(fenced, deadline_s=120)
    print(f"{primary} was powered on again {back_s:.1f} s later, unasked")
    assert fenced.resolve("primary") == standby


def test_primary_goes_on_when_the_device_says_off_and_powers_the_standby_on(fenced: Lab) -> None:
    primary, standby = roles(fenced)
    before = status(fenced, primary)["epoch"]
    fenced.host(standby).power_cut()
    solo_s = until("solo", lambda: status(fenced, primary)["epoch"] > before, deadline_s=20)
    back_s = until("power", fenced.host(standby).is_on, deadline_s=60)
    wait_protected(fenced, deadline_s=120)
    print(f"{primary} went on alone {solo_s:.1f} s after the power cut of {standby}, which was on {back_s:.1f} s later")
    assert fenced.resolve("primary") == primary


def test_nobody_takes_over_while_the_device_does_not_answer(fenced: Lab) -> None:
    primary, standby = roles(fenced)
    before = status(fenced, standby)["epoch"]
    fenced.fault("bmc-hang", primary)
    fenced.host(primary).fault("freeze")
    until("F2 rule", lambda: str(status(fenced, standby)["rule"]).startswith("F2."), deadline_s=20)
    until("verdict", lambda: status(fenced, standby)["rule"] == "F2.failed", deadline_s=60)
    said = status(fenced, standby)
    assert said["epoch"] == before and said["command"] == "futago force-primary", said
    fenced.heal("bmc-hang")
    until("takeover", lambda: status(fenced, standby)["epoch"] > before, deadline_s=60)
    fenced.heal()
    wait_for_pair(fenced, key="protected", value=True, deadline_s=180)
    assert fenced.resolve("primary") == standby


def test_a_jury_takes_the_fences_place_and_the_gate_stays_open(fenced: Lab) -> None:
    primary, _ = roles(fenced)
    epoch, logs = status(fenced, primary)["epoch"], Logs(fenced)
    fenced.host(primary).run([PROGRAM, "vote", "set", "jury", *(h.name for h in fenced.managed)], deadline_s=60)
    until("jury", lambda: status(fenced, primary)["third_vote"]["kind"] == "jury", deadline_s=60)
    after = wait_protected(fenced)
    assert (after["primary"], after["epoch"]) == (primary, epoch)
    said = [line["event"] for _, _, line in logs.lines()]
    assert "vote.seated" in said
    assert not {"gate.closed", "address.dropped"} & set(said), said
