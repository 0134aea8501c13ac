"""Labs come and go cleanly: side by side, after a crash, never leaving anything behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from futago.lab import golden, machine, topology
from futago.lab.lab import Lab, remove_orphans
from futago.runtime.faults import OperatorFault


def leftovers(lab: Lab) -> list[str]:
    """Return everything on the machine that belongs to the lab."""
    home = lab.places.home
    found = [str(home)] if home.exists() else []
    cgroup = machine.lab_cgroup(lab.name)
    found += [str(cgroup.path)] if cgroup.exists() else []
    found += machine.loops_below(home) + machine.mounts_below(home)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (
                    str(home).encode() in (entry / "cmdline").read_bytes()
                    or f"futago.lab.daemon\0{lab.name}\0".encode() in (entry / "cmdline").read_bytes()
                ):
                    found.append(f"process {entry.name}")
            except OSError:
                continue
    return found


@pytest.fixture
def second() -> Iterator[Lab]:
    """A small lab beside the other one."""
    made = Lab(f"u{os.getpid()}")
    yield made
    made.down()


def kill_daemon(lab: Lab) -> None:
    pid = lab.state.daemon_pid
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 5
    while machine.started_ticks(pid) and time.monotonic() < end:
        time.sleep(0.01)


def small() -> tuple[topology.Node, ...]:
    return topology.standard(hosts=0, device=False, client=False)


def test_two_labs_run_side_by_side_with_the_same_addresses(lab: Lab, second: Lab) -> None:
    before = set(os.listdir("/sys/class/net"))
    second.up(nodes=small(), owner_pid=os.getpid())
    assert second.host("m1").address == lab.host("m1").address
    second.host("m1").write("/etc/which", "second")
    assert lab.host("m1").run(["test", "-e", "/etc/which"], check=False).returncode == 1
    second.fault("power-cut", "m1,m2")
    assert lab.host("m1").run(["ping", "-c1", "-W1", "10.91.1.12"], check=False).returncode == 0
    assert set(os.listdir("/sys/class/net")) == before  # the machine's own network is not touched
    assert second.down()
    assert leftovers(second) == []


def test_up_of_a_lab_that_is_up_changes_nothing(lab: Lab) -> None:
    boots = {h: s["boots"] for h, s in lab.request(op="status")["hosts"].items()}
    lab.up()
    assert {h: s["boots"] for h, s in lab.request(op="status")["hosts"].items()} == boots


def test_a_lab_whose_daemon_was_killed_says_so_and_goes_down_without_a_trace(second: Lab) -> None:
    second.up(nodes=small(), owner_pid=os.getpid())
    kill_daemon(second)
    with pytest.raises(OperatorFault, match="broken"):
        second.request(op="status")
    assert second.down()
    assert leftovers(second) == []
    assert not second.down()


def test_up_over_a_crashed_lab_starts_afresh(second: Lab) -> None:
    second.up(nodes=small(), owner_pid=os.getpid())
    second.host("m1").write("/etc/which", "first")
    kill_daemon(second)
    second.up(nodes=small(), owner_pid=os.getpid())
    assert second.host("m1").run(["test", "-e", "/etc/which"], check=False).returncode == 1


def test_a_lab_whose_owner_is_gone_is_removed_as_an_orphan(second: Lab) -> None:
    owner = subprocess.Popen(["sleep", "600"])
    try:
        second.up(nodes=small(), owner_pid=owner.pid)
        remove_orphans()
        assert second.is_up()
    finally:
        owner.kill()
        owner.wait()
    remove_orphans()
    assert leftovers(second) == []


def test_a_second_command_on_the_same_lab_is_refused_while_the_first_works(second: Lab) -> None:
    from futago.lab.places import lab_lock

    with lab_lock(second.name):
        done = subprocess.run(
            [sys.executable, "-m", "futago.cli.lab", "up", "--name", second.name],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode != 0
    assert "Another command" in done.stderr
    assert not second.places.home.exists()


def test_a_wrong_name_is_refused() -> None:
    for name in ("../x", "", "X", "a b"):
        with pytest.raises(OperatorFault):
            Lab(name)


def test_an_incomplete_golden_root_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/file").write_text("x")
    assert not golden.is_complete(tmp_path)
    (tmp_path / "complete").write_text("1\n")
    assert golden.is_complete(tmp_path)
    (tmp_path / "root/file").unlink()
    assert not golden.is_complete(tmp_path)
