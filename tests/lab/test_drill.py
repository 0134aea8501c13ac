"""Drills as an operator holds them: on the members themselves, and from outside the lab with a power cut."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from futago.lab.lab import PROGRAM, Lab
from futago.lab.pair import wait_protected


def result(stdout: str, stderr: str) -> dict[str, Any]:
    print(stderr)
    print(stdout)
    found: dict[str, Any] = json.loads(stdout.strip().splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "name", ["controller-kill", "manager-kill", "database-kill", "standby-database-kill", "switchover"]
)
def test_drill_on_a_member_passes_and_explains_itself(pair: Lab, name: str) -> None:
    before = wait_protected(pair)
    where = "standby" if name.startswith("standby") else "primary"
    host = pair.host(pair.resolve(where))
    done = host.run([PROGRAM, "drill", name, "--yes", "--json"], check=False, deadline_s=400)
    found = result(done.stdout, done.stderr)
    assert done.returncode == 0 and found["passed"], found["problems"]
    assert found["written"] > 20 and found["lost"] == found["twice"] == 0
    assert found["story"] and found["primary_before"] == before["primary"]
    if name in ("database-kill", "switchover"):
        assert found["primary_after"] != found["primary_before"] and {s["name"] for s in found["switch"]} >= {
            "won",
            "gate",
        }


def test_drill_is_refused_on_the_wrong_member(pair: Lab) -> None:
    wait_protected(pair)
    host = pair.host(pair.resolve("standby"))
    done = host.run([PROGRAM, "drill", "database-kill", "--yes"], check=False)
    assert done.returncode == 2 and "Run it on" in done.stderr


def test_power_cut_is_drilled_from_outside_the_lab(pair: Lab) -> None:
    before = wait_protected(pair)
    command = [sys.executable, "-m", "futago", "drill", "F01", "--lab", pair.name, "--yes", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=420)
    found = result(done.stdout, done.stderr)
    assert done.returncode == 0 and found["passed"], found["problems"]
    assert found["primary_after"] != before["primary"] and found["pause_s"] > 1
    assert any("powered off" in step["text"] for step in found["story"])
