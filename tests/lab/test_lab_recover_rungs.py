"""Each rung of the recovery ladder reached by its own fault in the lab, by the one command, and named in its answer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from futago.lab.lab import PROGRAM, Lab, LabHost
from futago.lab.pair import wait_for_pair, wait_protected

MARK = "recover-rung"
PSQL = ["psql", "-qAtX", "-h", "/run/futago/pg", "-U", "postgres", "-d", "postgres"]


@pytest.fixture
def whole(pair: Lab) -> Iterator[Lab]:
    """The protected pair; afterwards every fault is healed."""
    wait_protected(pair)
    yield pair
    pair.heal()
    for node in pair.state.nodes:
        pair.host(node.name).wait_booted()


def members(lab: Lab) -> tuple[LabHost, LabHost]:
    """Return the primary and the standby."""
    return lab.host(lab.resolve("primary")), lab.host(lab.resolve("standby"))


def shut_down(lab: Lab, standby: LabHost) -> None:
    """Shut the standby down in good order; return when it is off and the primary goes on alone."""
    lab.fault("shutdown", standby.name)
    wait_for_pair(lab, key="state", value="solo", deadline_s=30)
    end = time.monotonic() + 60
    while standby.is_on():
        assert time.monotonic() < end, "it does not shut down"
        time.sleep(0.2)


def recover(host: LabHost) -> dict[str, Any]:
    """Run the command on a member; return its answer."""
    began = time.monotonic()
    done = host.run([PROGRAM, "recover", "--json"], check=False, deadline_s=240)
    print(done.stderr)
    print(f"{done.stdout.strip()}  ({time.monotonic() - began:.1f} s)")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["proof"]["mark"] and answer["proof"]["replayed_on"]
    return answer


def plan_of(host: LabHost) -> dict[str, Any]:
    """Return what the command would do."""
    found: dict[str, Any] = json.loads(host.run([PROGRAM, "recover", "--plan", "--json"], check=False).stdout)
    return found


def post(host: LabHost, number: int) -> None:
    """Write one event through the pair."""
    host.run([PROGRAM, "event", "post", f"{MARK} {number}"], deadline_s=40)


def test_whole_pair_is_proved_whole_and_nothing_is_done(whole: Lab) -> None:
    for host in members(whole):
        answer = recover(host)
        assert answer["rung"] == "none" and answer["climb"] is None
        assert plan_of(host)["is_needed"] is False


def test_clean_return_follows(whole: Lab) -> None:
    primary, standby = members(whole)
    shut_down(whole, standby)
    post(primary, 1)
    answer = recover(primary)
    assert answer["rung"] == "follow" and answer["climb"]["member"] == standby.name
    assert wait_protected(whole)["primary"] == primary.name


def test_member_that_wrote_what_nobody_has_is_rewound(whole: Lab) -> None:
    primary, standby = members(whole)
    loop = f"while :; do {PROGRAM} event post --server {primary.address} '{MARK} alone' >/dev/null 2>&1; done"
    primary.run(["systemd-run", "--quiet", "--unit=writer", "sh", "-c", loop])
    time.sleep(3)
    primary.run([*PSQL, "-c", "CHECKPOINT"], deadline_s=60)  # with a long log behind it a copy would be quicker
    whole.fault("isolate", primary.name)
    wait_for_pair(whole, key="primary", value=standby.name, deadline_s=30)
    whole.heal()
    answer = recover(standby)
    assert answer["rung"] == "rewind" and answer["climb"]["member"] == primary.name


def test_lost_log_needs_a_base_backup_and_the_plan_says_so(whole: Lab) -> None:
    primary, standby = members(whole)
    shut_down(whole, standby)
    slot = f"SELECT pg_drop_replication_slot('futago_{standby.name}')"
    for sql in (slot, "ALTER SYSTEM SET wal_keep_size = 0", "SELECT pg_reload_conf()"):
        primary.run([*PSQL, "-c", sql])
    for number in range(3):
        post(primary, 10 + number)
        primary.run([*PSQL, "-c", "SELECT pg_switch_wal()"])
        primary.run([*PSQL, "-c", "CHECKPOINT"], deadline_s=60)
    whole.fault("power-on", standby.name)
    standby.wait_booted()
    end = time.monotonic() + 30
    while "basebackup" not in (what := [s["what"] for s in plan_of(standby)["steps"]]) and time.monotonic() < end:
        time.sleep(0.5)
    assert what == ["basebackup", "add"]
    answer = recover(standby)
    assert answer["rung"] == "basebackup" and answer["climb"]["bytes_copied"] > 0


def test_wiped_data_are_copied_onto_the_empty_disk(whole: Lab) -> None:
    primary, standby = members(whole)
    shut_down(whole, standby)
    whole.fault("power-on", standby.name)
    standby.wait_booted()
    standby.run(["sh", "-c", "rm -rf /var/lib/futago/pg/*"])  # it is not part of the pair: nothing runs there
    answer = recover(primary)
    assert answer["rung"] == "empty" and answer["climb"]["member"] == standby.name


def test_io_errors_are_refused_with_the_repair_and_then_lead_to_a_copy_that_is_read_back(whole: Lab) -> None:
    primary, standby = members(whole)
    whole.fault("disk-detach", standby.name)
    wait_for_pair(whole, key="state", value="solo", deadline_s=30)
    done = primary.run([PROGRAM, "recover", "--json"], check=False, deadline_s=120)
    print(done.stdout, done.stderr)
    assert done.returncode == 2, "the disk fails: somebody has to repair it"
    assert "file system" in json.loads(done.stdout)["hint"]
    whole.fault("power-reset", standby.name)
    standby.wait_booted()
    answer = recover(primary)
    assert answer["rung"] == "basebackup" and answer["climb"]["was_verified"]
