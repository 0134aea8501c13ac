"""The shim with real processes: at most one start per run, the true exit code, whoever is dead."""

from __future__ import annotations

import os
import pwd
import signal
import time
from pathlib import Path

import pytest

from agent_world import lines, order
from futago.agent import processes, shim
from futago.agent.model import EXIT_BLANK, Mark, parse_exit, parse_mark
from futago.link.orders import Order
from futago.runtime.faults import Refused


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    where = tmp_path / "run"
    where.mkdir()
    (where / "exit").write_bytes(EXIT_BLANK)
    return where


def run_to_end(o: Order, where: Path) -> int | None:
    pid = shim.spawn(o, where, nofile_soft=1024)
    os.waitpid(pid, 0)
    return parse_exit((where / "exit").read_bytes())


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_code_is_written(run_dir: Path, code: int) -> None:
    assert run_to_end(order("r", f"exit {code}"), run_dir) == code


def test_command_killed_by_a_signal_has_the_code_of_the_shell(run_dir: Path) -> None:
    assert run_to_end(order("r", "kill -9 $$"), run_dir) == 137


def test_command_that_replaces_or_backgrounds_itself_is_waited_for_by_its_exit(run_dir: Path) -> None:
    assert run_to_end(order("r", "exec sh -c 'exit 5'"), run_dir) == 5


def test_second_shim_of_a_run_ends_without_a_trace(run_dir: Path, tmp_path: Path) -> None:
    oracle = tmp_path / "oracle"
    o = order("r", f"echo $FUTAGO_RUN_ID >> {oracle}; sleep 0.05; exit 3")
    pids = [shim.spawn(o, run_dir, nofile_soft=1024) for _ in range(8)]
    for pid in pids:
        os.waitpid(pid, 0)
    assert lines(oracle) == ["r"]
    assert parse_exit((run_dir / "exit").read_bytes()) == 3
    assert (run_dir / "output").read_bytes() == b""


def test_mark_names_the_shim_as_a_session_of_its_own(run_dir: Path) -> None:
    pid = shim.spawn(order("r", "sleep 60"), run_dir, nofile_soft=1024)
    try:
        end = time.monotonic() + 30
        while parse_mark(_read(run_dir / "started"))[0] is not Mark.KEEPER and time.monotonic() < end:
            time.sleep(0.005)
        keeper = parse_mark(_read(run_dir / "started"))[1]
        assert keeper is not None
        assert keeper.pid == pid == os.getsid(pid)
        assert processes.is_alive(keeper)
    finally:
        end = time.monotonic() + 30
        while not processes.signal_sessions({pid: signal.SIGKILL})[pid] and time.monotonic() < end:
            time.sleep(0.005)  # the mark is there before the command is: nobody was there to be killed
        os.waitpid(pid, 0)
    assert not processes.is_alive(keeper)
    assert parse_exit((run_dir / "exit").read_bytes()) == 137


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def test_environment_says_which_run_it_is_and_holds_the_orders_own(run_dir: Path) -> None:
    o = Order(
        run_id="id-1", epoch=1, command='echo "$FUTAGO_RUN_ID $FUTAGO_JOB $FUTAGO_JOB_NET $FUTAGO_SESSION $X"; env | wc -l',
        job="load", net="nightly", session_id=9, env={"X": "a b; $(reboot)"},
    )  # fmt: skip
    assert run_to_end(o, run_dir) == 0
    said = (run_dir / "output").read_text().splitlines()
    assert said[0] == "id-1 load nightly 9 a b; $(reboot)"
    assert int(said[1]) < 20  # nothing of the agent's own environment


def test_signals_that_python_ignores_are_not_ignored_by_commands(run_dir: Path) -> None:
    assert run_to_end(order("r", "yes | head -1 > /dev/null; grep ^SigIgn /proc/self/status"), run_dir) == 0
    ignored = int((run_dir / "output").read_text().split()[1], 16)
    assert ignored & 0x7FFFFFFF == 0  # 32 and 33 are the C library's own


def test_descriptor_limit_of_commands_is_not_the_agents(run_dir: Path) -> None:
    run_to_end(order("r", "ulimit -S -n"), run_dir)
    assert (run_dir / "output").read_text().strip() == "1024"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_command_runs_as_the_user_with_his_groups_and_home(run_dir: Path) -> None:
    run_dir.parent.chmod(0o755)
    nobody = pwd.getpwnam("nobody")
    assert run_to_end(order("r", "id -u; id -g; echo $HOME $USER", user="nobody"), run_dir) == 0
    said = (run_dir / "output").read_text().splitlines()
    assert said == [str(nobody.pw_uid), str(nobody.pw_gid), f"{nobody.pw_dir} nobody"]


def test_unknown_user_starts_nothing(run_dir: Path) -> None:
    with pytest.raises(Refused, match="does not exist on this host"):
        shim.spawn(order("r", "true", user="no-such-user"), run_dir, nofile_soft=1024)
    assert not (run_dir / "started").exists()


def test_run_that_cannot_leave_its_mark_does_not_start(run_dir: Path, tmp_path: Path) -> None:
    oracle = tmp_path / "oracle"
    (run_dir / "started").mkdir()  # as good as a disk that does not take the file
    assert run_to_end(order("r", f"echo x >> {oracle}"), run_dir) is None
    assert lines(oracle) == []
