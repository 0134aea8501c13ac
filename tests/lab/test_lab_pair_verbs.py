"""The operator's other verbs on a real pair: tests of power devices, explanations, maintenance, the forced start."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from test_lab_recover_rungs import members, recover, shut_down

from futago.lab.lab import PROGRAM, Lab, LabHost
from futago.lab.pair import wait_for_pair, wait_protected


def ask(host: LabHost, *words: str, code: int = 0) -> dict[str, Any]:
    """Run a verb with --json; return its object."""
    done = host.run([PROGRAM, *words, "--json"], check=False, deadline_s=180)
    print(words, done.stdout, done.stderr)
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def whole(pair: Lab) -> Lab:
    wait_protected(pair)
    return pair


def test_power_devices_are_asked_from_both_members_and_a_dead_one_is_named(whole: Lab) -> None:
    primary, standby = members(whole)
    found = ask(standby, "fence", "test")
    assert found["passed"] and {(r["from"], r["member"]) for r in found["tests"]} == {
        (a, b) for a in ("m1", "m2") for b in ("m1", "m2")
    }
    whole.fault("bmc-dead", primary.name)
    found = ask(standby, "fence", "test", primary.name, code=1)
    assert not found["passed"] and all(r["member"] == primary.name and r["error"] for r in found["tests"])
    whole.heal()
    ask(standby, "fence", "test")


def test_state_and_failures_are_explained_on_either_member(whole: Lab) -> None:
    for host in members(whole):
        assert ask(host, "explain")["why"]
        answers = ask(host, "explain", "--if", "all")["answers"]
        power = next(a for a in answers if a["failure"] == "primary-power")
        assert power["outcome"] == "switches" and power["serves"] == whole.resolve("standby")
        assert 1000 < power["pause_ms"] < 6000 and power["steps"]


def test_in_maintenance_nothing_is_switched_unasked(whole: Lab) -> None:
    primary, standby = members(whole)
    ask(standby, "maintenance", "on")
    wait_for_pair(whole, key="maintenance", value=True, deadline_s=5)
    whole.fault("kill", primary.name, "postgres")
    time.sleep(8)  # without the sign the standby would serve by now
    after = whole.pair_status()
    assert after is not None and after["primary"] == primary.name  # it may have gone on alone
    ask(primary, "maintenance", "off")
    assert wait_protected(whole)["primary"] == primary.name


def test_forced_start_needs_the_name_and_is_refused_while_the_other_lives(whole: Lab) -> None:
    primary, standby = members(whole)
    done = standby.run([PROGRAM, "force-primary", "--confirm", "nonsense"], check=False)
    assert done.returncode == 2 and "pair.confirm" in done.stderr
    done = standby.run([PROGRAM, "force-primary", "--confirm", "lab"], check=False, deadline_s=60)
    assert done.returncode == 2 and "alive" in done.stderr
    assert wait_protected(whole)["primary"] == primary.name


def test_member_without_the_newest_data_serves_only_when_forced_and_the_other_comes_back(whole: Lab) -> None:
    primary, standby = members(whole)
    shut_down(whole, standby)
    primary.run([PROGRAM, "event", "post", "written alone"], deadline_s=40)
    whole.fault("power-cut", primary.name)
    whole.fault("power-on", standby.name)
    standby.wait_booted()
    status = wait_for_pair(whole, key="state", value="blocked", deadline_s=30)
    assert status["rule"] == "R2.alone", status["reason"]
    done = standby.run([PROGRAM, "force-primary", "--confirm", "lab"], check=False, deadline_s=120)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    wait_for_pair(whole, key="primary", value=standby.name, deadline_s=30)
    standby.run([PROGRAM, "event", "post", "written by the forced one"], deadline_s=60)
    answer = recover(standby)
    assert answer["climb"]["member"] == primary.name and answer["rung"] in ("rewind", "basebackup")
    assert wait_protected(whole)["primary"] == standby.name
