"""The guard: it acts when the hand is gone for a second, and in no other case."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from futago.cluster import guard
from futago.cluster.guard import LIVES_MAX, Guard, Handle, Watch, send
from futago.runtime.clock import MS, S
from futago.runtime.log import Log

WILL = Handle(
    pid=1, is_armed=True, interface="eth0", addresses=("10.0.0.1",), cgroup="/x", gate_file="/y", gate_closed="z"
)


def turns(watch: Watch, start: int, end: int) -> list[str]:
    return [why for at in range(start, end, 50 * MS) if (why := watch.turn(at))]


def test_guard_does_not_act_before_a_controller_ever_lived() -> None:
    assert turns(Watch(), S, 100 * S) == []


def test_guard_acts_once_when_the_controller_is_gone_for_a_second() -> None:
    watch = Watch()
    watch.hold(WILL, 10 * S)
    assert turns(watch, 10 * S, 10 * S + 950 * MS) == []
    assert turns(watch, 10 * S + 950 * MS, 20 * S) == ["no controller lives"]


def test_guard_does_not_act_when_the_controller_is_back_in_time() -> None:
    watch = Watch()
    watch.hold(WILL, 10 * S)
    assert turns(watch, 10 * S, 10 * S + 900 * MS) == []
    watch.hold(Handle(pid=2, is_armed=True), 10 * S + 900 * MS)  # it has only just started
    assert turns(watch, 10 * S + 900 * MS, 11 * S + 800 * MS) == []
    assert watch.handle is not None and watch.handle.cgroup == "/x" and watch.handle.pid == 2


def test_guard_does_not_act_after_an_orderly_end() -> None:
    watch = Watch()
    watch.hold(WILL, 10 * S)
    watch.hold(Handle(pid=1, is_armed=False, cgroup="/x"), 11 * S)
    assert turns(watch, 11 * S, 60 * S) == []


def test_guard_that_stood_still_itself_gives_the_controller_its_second_anew() -> None:
    watch = Watch()
    watch.hold(WILL, 10 * S)
    assert watch.turn(10 * S + 50 * MS) == ""
    assert watch.turn(40 * S) == ""
    assert turns(watch, 40 * S, 40 * S + 900 * MS) == []
    assert turns(watch, 40 * S + 900 * MS, 42 * S) == ["no controller lives"]


def test_guard_acts_when_the_controller_keeps_dying() -> None:
    watch, said = Watch(), []
    for life in range(LIVES_MAX):
        watch.hold(Handle(pid=100 + life, is_armed=True, cgroup="/x"), (10 + life) * S)
        said += turns(watch, (10 + life) * S, (10 + life) * S + 900 * MS)
    assert said == ["the controller keeps dying"]


def test_guard_is_armed_again_by_the_next_controller() -> None:
    watch = Watch()
    watch.hold(WILL, 10 * S)
    assert turns(watch, 10 * S, 12 * S)
    watch.hold(WILL, 20 * S)
    assert turns(watch, 20 * S, 20 * S + 900 * MS) == []
    assert turns(watch, 20 * S + 900 * MS, 23 * S) == ["no controller lives"]


async def test_kernel_that_answers_nothing_about_addresses_does_not_keep_the_database_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine in need has no descriptor left, or no memory for a socket."""
    killed: list[Path] = []
    monkeypatch.setattr(guard, "kill_cgroup_once", lambda folder: killed.append(folder) or [1])

    def no_socket(*_: object, **__: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    will = Handle(pid=1, is_armed=True, interface="lo", addresses=("127.7.7.7",), cgroup=str(tmp_path))
    tried = Guard(log=Log())
    with monkeypatch.context() as m:
        m.setattr(socket, "socket", no_socket)
        is_done = await tried._perform(will, "no controller lives")
    assert killed == [tmp_path] and not is_done


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a control group")
async def test_last_will_kills_the_whole_group_and_closes_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from futago.cluster.unit import cgroup_mount

    mount = cgroup_mount()
    group = mount / f"futago-test-{os.getpid()}" if mount else tmp_path
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no control groups here")
    monkeypatch.setattr(guard, "SILENCE_MAX", 2000 * MS)
    child = subprocess.Popen([sys.executable, "-c", "import subprocess;subprocess.run(['sleep','60'])"])
    (group / "cgroup.procs").write_text(str(child.pid))
    gate, path, stop = tmp_path / "hba", tmp_path / "guard.sock", asyncio.Event()
    gate.write_text("open")
    running = asyncio.create_task(Guard(path=path, log=Log()).run(stop))
    try:
        async with asyncio.timeout(30):
            while not path.exists():
                await asyncio.sleep(0.01)
            will = Handle(pid=1, is_armed=True, cgroup=str(group), gate_file=str(gate), gate_closed="closed")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
                for _ in range(5):  # as long as it is held, nothing happens
                    send(s, will, path)
                    await asyncio.sleep(0.5)
            assert child.poll() is None and gate.read_text() == "open"
            while gate.read_text() != "closed":
                await asyncio.sleep(0.02)
        assert child.wait(5) == -9 and (group / "cgroup.procs").read_text() == ""
    finally:
        stop.set()
        await running
        child.kill()
        child.wait()
        for _ in range(50):
            try:
                group.rmdir()
                break
            except OSError:
                await asyncio.sleep(0.02)
