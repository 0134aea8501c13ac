"""A real agent process and a real hub over mutual TLS: orders, results, crashes of the agent, stale epochs.

The oracle of every start is a file that the command itself appends to.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from agent_world import (
    WAIT_S,
    AgentProcess,
    Keys,
    QuietLog,
    active,
    connected,
    lines,
    loopback,
    make_hub,
    order,
    standby,
    until,
)
from futago.agent.ledger import LEDGER_FILE, Ledger
from futago.agent.model import EXIT_BLANK, Record
from futago.jobs import hub as hub_room
from futago.jobs.hub import AgentHub, Connected, Heard
from futago.link.orders import (
    COMMAND_BYTES_MAX,
    ENV_MAX,
    ENV_VALUE_BYTES_MAX,
    FRAME_BYTES_MAX,
    OUTPUT_KEPT_BYTES_MAX,
    OUTPUT_TAIL_CHARS_MAX,
    SCRIPT_BYTES_MAX,
    Order,
    OrderTaken,
    Outcome,
    RefusalReason,
    Refused,
    RunEnded,
    RunsReport,
    script_command,
)
from futago.runtime.clock import boot_id

R1, R2 = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2))  # a directory that is called otherwise is no run


@dataclass
class Desk:
    """A hub that is running, and what it heard."""

    hub: AgentHub
    task: asyncio.Task[None]
    heard: list[object] = field(default_factory=list)

    def gather(self) -> list[object]:
        while not self.hub.inbox.empty():
            event = self.hub.inbox.get_nowait()
            self.heard.append(event.message if isinstance(event, Heard) else event)
        return self.heard

    def ends(self, run_id: str) -> list[RunEnded]:
        return [m for m in self.gather() if isinstance(m, RunEnded) and m.run_id == run_id]

    def taken(self, run_id: str) -> bool:
        return OrderTaken(run_id) in self.gather()

    def refusals(self) -> list[Refused]:
        return [m for m in self.gather() if isinstance(m, Refused)]

    async def end_of(self, run_id: str) -> RunEnded:
        await until(lambda: self.ends(run_id), what=f"end of {run_id}")
        return self.ends(run_id)[-1]


@asynccontextmanager
async def desk(
    keys: Keys, address: str, *, me: str = "m1", members: Callable[[], list[str]] = lambda: []
) -> AsyncIterator[Desk]:
    hub = make_hub(keys, address, me=me, members=members)
    task = asyncio.get_running_loop().create_task(hub.run())
    try:
        yield Desk(hub, task)
    finally:
        task.cancel()
        await asyncio.wait({task})


@dataclass
class World:
    keys: Keys
    desk: Desk
    agent: AgentProcess
    address: str
    oracle: Path

    async def connected(self) -> None:
        await until(lambda: self.desk.hub.is_connected("h1"), what="agent connected")

    def order(self, o: Order) -> None:
        assert self.desk.hub.order("h1", o)

    async def restart(self) -> None:
        self.agent.kill()
        await until(lambda: not self.desk.hub.is_connected("h1"), what="hub saw the agent go")
        self.agent.start()
        await self.connected()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    keys = Keys(tmp_path / "keys")
    address = loopback()
    async with desk(keys, address) as d:
        agent = AgentProcess(tmp_path / "h1", keys, name="h1", members=[address]).start()
        d.hub.set_role(active(1))
        w = World(keys, d, agent, address, tmp_path / "oracle")
        try:
            await w.connected()
            yield w
        finally:
            agent.destroy()


async def test_order_is_run_once_and_its_result_told(world: World) -> None:
    world.order(order("r1", f"echo begun >> {world.oracle}; echo said; exit 3", net="n", job="j"))
    end = await world.desk.end_of("r1")
    assert (end.outcome, end.exit_code, end.output, end.output_bytes) == (Outcome.EXITED, 3, "said\n", 5)
    assert abs(end.started - time.time()) < WAIT_S
    assert end.started <= end.ended
    assert world.desk.taken("r1")
    assert lines(world.oracle) == ["begun"]


async def test_repeated_order_is_answered_and_not_started_again(world: World) -> None:
    o = order("r1", f"echo begun >> {world.oracle}; sleep 0.2")
    for _ in range(3):
        world.order(o)
    await world.desk.end_of("r1")
    world.order(o)
    await until(lambda: world.desk.gather().count(OrderTaken("r1")) == 4, what="every order answered")
    assert lines(world.oracle) == ["begun"]


async def test_result_is_kept_until_committed_and_then_forgotten(world: World) -> None:
    world.order(order("r1", "exit 4"))
    await world.desk.end_of("r1")
    assert (world.agent.runs / "r1").exists()
    world.desk.hub.set_role(active(2))
    await until(lambda: len(world.desk.ends("r1")) == 2, what="told again after the change of epoch")
    world.desk.hub.committed("h1", "r1")
    await until(lambda: not (world.agent.runs / "r1").exists(), what="the run was removed")
    world.desk.hub.ask("h1", ["r1"])
    await until(lambda: RunsReport(held=[], absent=["r1"]) in world.desk.gather(), what="report")
    world.order(order("r1", f"echo again >> {world.oracle}", epoch=2))
    await until(world.desk.refusals, what="a committed run is not started again")
    assert world.desk.refusals()[0].reason is RefusalReason.FORGOTTEN
    assert lines(world.oracle) == []


async def test_run_survives_the_death_of_the_agent_with_its_true_exit_code(world: World) -> None:
    world.order(order("r1", f"echo begun >> {world.oracle}; sleep 0.6; echo done >> {world.oracle}; exit 7"))
    await until(lambda: lines(world.oracle), what="the command begun")
    await world.restart()
    end = await world.desk.end_of("r1")
    assert (end.outcome, end.exit_code) == (Outcome.EXITED, 7)
    assert lines(world.oracle) == ["begun", "done"]


async def test_run_that_ends_while_no_agent_lives_has_its_true_exit_code(world: World) -> None:
    world.order(order("r1", f"echo begun >> {world.oracle}; sleep 0.3; echo done >> {world.oracle}; exit 7"))
    await until(lambda: lines(world.oracle), what="the command begun")
    world.agent.kill()
    await until(lambda: len(lines(world.oracle)) == 2, what="the command done")
    world.agent.start()
    end = await world.desk.end_of("r1")
    assert (end.outcome, end.exit_code) == (Outcome.EXITED, 7)


async def test_orderly_stop_of_the_agent_leaves_runs_running(world: World) -> None:
    world.order(order("r1", f"echo begun >> {world.oracle}; sleep 0.6; exit 5"))
    await until(lambda: lines(world.oracle), what="the command begun")
    world.agent.kill(15)
    world.agent.start()
    assert (await world.desk.end_of("r1")).exit_code == 5


async def test_agent_killed_anywhere_between_order_and_start_starts_the_run_exactly_once(world: World) -> None:
    chance = random.Random(20)
    ids = [f"{n:08x}-0000-4000-8000-000000000000" for n in range(6)]
    for run_id in ids:
        o = order(run_id, f"echo {run_id} >> {world.oracle}; exit 6")
        world.order(o)
        await asyncio.sleep(chance.uniform(0, 0.006))
        await world.restart()
    for run_id in ids:  # the engine repeats an order until the agent has it
        world.order(order(run_id, f"echo {run_id} >> {world.oracle}; exit 6"))
        assert (await world.desk.end_of(run_id)).exit_code == 6
    assert sorted(lines(world.oracle)) == sorted(ids)


def plant(world: World, run_id: str, o: Order, *, boot: str, **files: bytes) -> None:
    """Leave a run on the disk as an earlier agent process would have."""
    where = world.agent.runs / run_id
    where.mkdir()
    (where / "exit").write_bytes(EXIT_BLANK)
    (where / "order.json").write_bytes(msgspec.json.encode(Record(order=o, boot=boot, taken=0.0)))
    for name, content in files.items():
        (where / name.replace("_json", ".json")).write_bytes(content)


async def test_durable_order_that_was_never_started_is_started_by_the_next_agent(world: World) -> None:
    world.agent.kill()
    plant(world, R1, order(R1, f"echo begun >> {world.oracle}; exit 2"), boot=boot_id())
    world.agent.start()
    assert (await world.desk.end_of(R1)).exit_code == 2
    assert lines(world.oracle) == ["begun"]


async def test_order_of_an_earlier_boot_is_unknown_and_not_started(world: World) -> None:
    world.agent.kill()
    plant(world, R1, order(R1, f"echo begun >> {world.oracle}"), boot="an-earlier-boot")
    plant(world, R2, order(R2, "true"), boot="an-earlier-boot", exit=b"9 end\n")
    world.agent.start()
    end = await world.desk.end_of(R1)
    assert (end.outcome, end.exit_code) == (Outcome.UNKNOWN, None)
    assert "rebooted" in end.detail
    assert (await world.desk.end_of(R2)).exit_code == 9
    assert lines(world.oracle) == []


async def test_unfinished_order_file_is_no_order(world: World) -> None:
    world.agent.kill()
    plant(world, R1, order(R1, f"echo begun >> {world.oracle}"), boot=boot_id())
    content = (world.agent.runs / R1 / "order.json").read_bytes()
    (world.agent.runs / R1 / "order.json").write_bytes(content[:-5])
    world.agent.start()
    await until(lambda: not (world.agent.runs / R1).exists(), what="the remains removed")
    assert lines(world.oracle) == []


async def test_run_whose_directory_a_power_cut_took_is_unknown_and_never_started_again(world: World) -> None:
    world.order(order("r1", f"echo begun >> {world.oracle}; sleep 30"))
    await until(lambda: lines(world.oracle), what="the command begun")
    world.agent.destroy()
    shutil.rmtree(world.agent.runs / "r1")  # what was never synced is gone; the ledger is there
    world.agent.start()
    end = await world.desk.end_of("r1")
    assert (end.outcome, end.exit_code) == (Outcome.UNKNOWN, None)
    assert "lost power" in end.detail
    world.order(order("r1", f"echo begun >> {world.oracle}"))
    await until(lambda: world.desk.gather().count(OrderTaken("r1")) == 2, what="answered as known")
    assert lines(world.oracle) == ["begun"]


async def test_end_that_was_synced_is_true_after_a_power_cut_took_the_directory(world: World) -> None:
    world.order(order("r1", "exit 9"))
    await world.desk.end_of("r1")
    ledger = world.agent.var / LEDGER_FILE

    def is_kept() -> bool:
        found = Ledger(ledger)
        found.load()
        return found.end_of("r1") is not None

    await until(is_kept, what="the end is durable")
    world.agent.destroy()
    shutil.rmtree(world.agent.runs / "r1")
    world.desk.heard.clear()
    world.agent.start()
    end = await world.desk.end_of("r1")
    assert (end.outcome, end.exit_code) == (Outcome.EXITED, 9)
    assert abs(end.started - time.time()) < WAIT_S


async def test_committed_run_is_refused_by_the_next_agent_process_too(world: World) -> None:
    world.order(order("r1", f"echo begun >> {world.oracle}"))
    await world.desk.end_of("r1")
    world.desk.hub.committed("h1", "r1")
    await until(lambda: not (world.agent.runs / "r1").exists(), what="the run was removed")
    await world.restart()
    world.order(order("r1", f"echo begun >> {world.oracle}"))
    await until(world.desk.refusals, what="refused")
    assert world.desk.refusals()[0].reason is RefusalReason.FORGOTTEN
    assert lines(world.oracle) == ["begun"]


async def test_damaged_ledger_keeps_the_agent_from_guessing(world: World) -> None:
    world.agent.kill()
    (world.agent.var / LEDGER_FILE).write_bytes(b"not a ledger")
    world.agent.start()
    assert world.agent.process is not None
    assert await asyncio.to_thread(world.agent.process.wait, WAIT_S) == 2
    assert "remove" in world.agent.log_text()


async def test_killed_shim_makes_the_run_unknown_not_failed_and_not_repeated(world: World) -> None:
    world.order(order("r1", f"echo begun >> {world.oracle}; exec sleep 30"))
    await until(lambda: lines(world.oracle), what="the command begun")
    shim = int((world.agent.runs / "r1/started").read_text().split()[0])
    os.kill(shim, signal.SIGKILL)
    end = await world.desk.end_of("r1")
    assert (end.outcome, end.exit_code) == (Outcome.UNKNOWN, None)
    await world.restart()
    world.order(order("r1", f"echo begun >> {world.oracle}"))
    await until(lambda: world.desk.gather().count(OrderTaken("r1")) == 2, what="answered as known")
    assert lines(world.oracle) == ["begun"]


async def test_run_over_its_time_is_ended_with_all_its_processes(world: World) -> None:
    world.order(order("r1", f"sleep 30 & echo $! > {world.oracle}; sleep 30", timeout_s=0.3))
    end = await world.desk.end_of("r1")
    assert (end.outcome, end.exit_code) == (Outcome.TIMED_OUT, 143)
    child = int(lines(world.oracle)[0])
    await until(lambda: not _runs(child), what="the background process ended too")


def _runs(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] not in "ZX"


async def test_person_stops_a_run_by_the_signal_that_its_job_names(world: World) -> None:
    trap = (
        f"trap 'echo got-int >> {world.oracle}; exit 4' INT; echo begun >> {world.oracle}; while :; do sleep 0.05; done"
    )
    world.order(order("r1", trap, stop_signal="INT"))
    await until(lambda: lines(world.oracle), what="the command begun")
    world.desk.hub.stop("h1", "r1")
    end = await world.desk.end_of("r1")
    assert (end.outcome, end.exit_code) == (Outcome.EXITED, 4)
    assert lines(world.oracle) == ["begun", "got-int"]


async def test_stop_command_ends_a_run_and_is_started_once_though_the_agent_restarts(
    world: World, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    command = f"echo begun >> {world.oracle}; until [ -e {flag} ]; do sleep 0.02; done; exit 5"
    stop = f'echo "stop $FUTAGO_JOB $A" >> {world.oracle}; echo stopping now; sleep 0.3; kill -0 $FUTAGO_RUN_PID && touch {flag}'
    world.order(order("r1", command, job="j", env={"A": "b"}, stop_command=stop, stop_grace_s=8.0))
    await until(lambda: lines(world.oracle), what="the command begun")
    world.desk.hub.stop("h1", "r1")
    await until(lambda: len(lines(world.oracle)) == 2, what="the stop command begun")
    await world.restart()
    world.desk.hub.stop("h1", "r1")  # the engine repeats it until the run has ended
    end = await world.desk.end_of("r1")
    assert (end.outcome, end.exit_code, end.output) == (Outcome.EXITED, 5, "stopping now\n")
    assert lines(world.oracle) == ["begun", "stop j b"]


async def test_what_its_stop_command_does_not_end_is_killed_after_the_grace(world: World) -> None:
    command = f"trap '' TERM; echo begun >> {world.oracle}; sleep 30"
    world.order(order("r1", command, stop_command="true", stop_grace_s=0.2))
    await until(lambda: lines(world.oracle), what="the command begun")
    world.desk.hub.stop("h1", "r1")
    assert (await world.desk.end_of("r1")).exit_code == 137


async def test_script_that_came_with_the_order_is_run_by_the_program_it_names(world: World) -> None:
    script = "#!/usr/bin/python3 -I\nimport os, sys\nprint(sys.argv[1:], os.environ['FUTAGO_JOB'])\nsys.exit(6)\n"
    world.order(order("r1", script_command(script, "one 'two three'"), script=script, job="j"))
    end = await world.desk.end_of("r1")
    assert (end.exit_code, end.output) == (6, "['one', 'two three'] j\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_script_is_read_by_a_user_who_may_not_see_the_runs(world: World) -> None:
    script = "id -un\ncat /etc/hostname >/dev/null\nexit 3\n"
    world.order(order("r1", script_command(script), script=script, user="nobody"))
    end = await world.desk.end_of("r1")
    assert (end.exit_code, end.output) == (3, "nobody\n")


def test_script_without_a_first_line_of_its_own_is_the_shells() -> None:
    assert script_command("echo a") == 'exec /bin/sh "$FUTAGO_SCRIPT"'
    assert script_command("#! /usr/bin/env -S perl -w\n1;", "x") == (
        "exec /usr/bin/env '-S perl -w' \"$FUTAGO_SCRIPT\" x"
    )
    assert script_command("#!\necho") == 'exec /bin/sh "$FUTAGO_SCRIPT"'


async def test_time_of_a_run_is_counted_on_when_the_agent_restarts(world: World) -> None:
    world.order(order("r1", f"echo begun >> {world.oracle}; sleep 30", timeout_s=1.0))
    await until(lambda: lines(world.oracle), what="the command begun")
    begun = time.monotonic()
    await world.restart()
    end = await world.desk.end_of("r1")
    assert end.outcome is Outcome.TIMED_OUT
    assert time.monotonic() - begun < 20  # the command takes 30


async def test_unknown_user_is_an_end_with_a_reason(world: World) -> None:
    world.order(order("r1", f"echo begun >> {world.oracle}", user="nobody-of-that-name"))
    end = await world.desk.end_of("r1")
    assert end.outcome is Outcome.NOT_STARTED
    assert "nobody-of-that-name" in end.detail
    await world.restart()
    assert len(world.desk.ends("r1")) >= 1
    assert lines(world.oracle) == []


async def test_stale_member_is_refused_for_good(world: World, tmp_path: Path) -> None:
    other = loopback()
    async with desk(world.keys, other, me="m2") as second:
        agent = AgentProcess(tmp_path / "h2", world.keys, name="h2", members=[world.address, other]).start()
        try:
            await until(lambda: world.desk.hub.is_connected("h2") and second.hub.is_connected("h2"), what="both")
            second.hub.set_role(active(2))
            second.hub.order("h2", order("r2", f"echo new >> {world.oracle}", epoch=2))
            assert (await second.end_of("r2")).exit_code == 0
            world.desk.hub.order("h2", order("r1", f"echo stale >> {world.oracle}", epoch=1))
            await until(world.desk.refusals, what="the stale order refused")
            assert world.desk.refusals() == [Refused("r1", RefusalReason.STALE, 2)]
            agent.kill()
            await until(lambda: not world.desk.hub.is_connected("h2"), what="gone")
            agent.start()
            await until(lambda: world.desk.hub.is_connected("h2"), what="back")
            world.desk.heard.clear()
            world.desk.hub.order("h2", order("r1", f"echo stale >> {world.oracle}", epoch=1))
            await until(world.desk.refusals, what="refused by the next agent process too")
            world.desk.hub.committed("h2", "r2")  # from a stale member: not to be believed
            second.hub.set_role(active(3))
            await until(lambda: len(second.ends("r2")) >= 2, what="the result is told to the one that is obeyed")
        finally:
            agent.destroy()
    assert lines(world.oracle) == ["new"]


async def test_agent_learns_of_the_member_that_joined_later_and_remembers_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_room, "MEMBERS_S", 0.1)
    keys, first, second = Keys(tmp_path / "keys"), loopback(), loopback()
    known = [first]
    agent = AgentProcess(tmp_path / "h1", keys, name="h1", members=[first])
    try:
        async with desk(keys, first, members=lambda: list(known)) as one:
            one.hub.set_role(active(1))
            agent.start()
            await until(lambda: one.hub.is_connected("h1"), what="enrolled with the first")
            async with desk(keys, second, me="m2") as two:
                known.append(second)  # it joins
                await until(lambda: two.hub.is_connected("h1"), what="told of the second")
                two.hub.set_role(active(2))
                two.hub.order("h1", order("r2", "true", epoch=2))
                await two.end_of("r2")
                known.append("127.9.9.9")  # by now the first is stale: nobody believes what it tells
                await until(lambda: one.hub._told == known, what="told")
                one.hub.order("h1", order("r1", "true", epoch=1))
                await until(one.refusals, what="heard")
                await until((agent.var / "members.json").exists, what="kept")
        agent.kill()
        async with desk(keys, second, me="m2") as two:
            agent.start()
            await until(lambda: two.hub.is_connected("h1"), what="found again without the first")
        assert json.loads((agent.var / "members.json").read_text()) == [second]
    finally:
        agent.destroy()


async def test_order_of_another_epoch_than_the_session_declared_is_refused(world: World) -> None:
    world.order(order("r1", "true", epoch=5))
    await until(world.desk.refusals, what="refused")
    assert world.desk.refusals() == [Refused("r1", RefusalReason.INACTIVE, 1)]


async def test_results_wait_for_a_member_that_is_active(world: World) -> None:
    world.order(order("r1", f"echo begun >> {world.oracle}; sleep 0.2; exit 8"))
    await until(lambda: world.desk.taken("r1"), what="taken")
    world.desk.hub.set_role(standby(2))
    await until(lambda: (world.agent.runs / "r1/exit").read_bytes() != EXIT_BLANK, what="the command ended")
    await asyncio.sleep(0.2)
    assert world.desk.ends("r1") == []
    world.desk.hub.set_role(active(3))
    assert (await world.desk.end_of("r1")).exit_code == 8


async def test_ask_tells_what_is_held_and_what_was_never_seen(world: World) -> None:
    world.order(order("r1", f"echo begun >> {world.oracle}; sleep 0.4"))
    await until(lambda: world.desk.taken("r1"), what="taken")
    world.desk.hub.ask("h1", ["r1", "r2"])
    await until(lambda: RunsReport(held=["r1"], absent=["r2"]) in world.desk.gather(), what="report")


async def test_output_is_kept_within_its_limit_while_the_command_writes(world: World) -> None:
    size = 3 * OUTPUT_KEPT_BYTES_MAX
    world.order(order("r1", f"echo FIRST; head -c {size} /dev/zero | tr '\\0' x; echo; sleep 2.5; echo LAST"))
    end = await world.desk.end_of("r1")
    assert end.output.endswith("x\nLAST\n")
    assert len(end.output) == OUTPUT_TAIL_CHARS_MAX
    assert end.output_bytes == size + 12
    used = (world.agent.runs / "r1/output").stat().st_blocks * 512
    assert used <= OUTPUT_KEPT_BYTES_MAX + 64 * 1024
    with (world.agent.runs / "r1/output").open("rb") as f:
        assert f.read(6) == b"FIRST\n"


async def test_many_runs_at_once_each_have_their_own_result(world: World) -> None:
    count = 200
    for n in range(count):
        world.order(order(f"m{n}", f"echo {n} >> {world.oracle}; exit {n % 50}"))
    await until(lambda: sum(isinstance(m, RunEnded) for m in world.desk.gather()) >= count, what="all ended")
    assert {f"m{n}": n % 50 for n in range(count)} == {
        m.run_id: m.exit_code for m in world.desk.heard if isinstance(m, RunEnded)
    }
    assert sorted(map(int, lines(world.oracle))) == list(range(count))


async def test_agent_of_another_pair_is_refused_counted_and_logged(tmp_path: Path) -> None:
    keys, strangers = Keys(tmp_path / "keys"), Keys(tmp_path / "strange-keys")
    address = loopback()
    async with desk(keys, address) as d:
        agent = AgentProcess(tmp_path / "h9", strangers, name="h9", members=[address]).start()
        log = d.hub._log
        assert isinstance(log, QuietLog)
        try:
            await until(lambda: log.count("listener.handshake_refused") >= 2, what="refused, and tried again")
        finally:
            agent.destroy()
        assert d.hub.connected == []


async def test_member_certificate_is_not_an_agents(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    address = loopback()
    async with desk(keys, address) as d:
        await until(lambda: not d.task.done(), what="hub runs")
        reader, writer = await connected(address, 7713, keys.client("member", "m2"))
        assert await reader.read(10) == b""
        writer.close()
        assert d.hub.counters.strangers == 1


async def test_agent_does_not_obey_a_server_that_is_no_member(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    address = loopback()
    hub = make_hub(keys, address)
    hub._context = keys.server("agent", "h7")  # a host that pretends to be a manager
    task = asyncio.get_running_loop().create_task(hub.run())
    hub.set_role(active(99))
    agent = AgentProcess(tmp_path / "h1", keys, name="h1", members=[address]).start()
    try:
        await until(lambda: "member.strange" in agent.log_text(), what="the agent noticed")
        assert hub.connected == []
        assert not (agent.var / "epoch.slots").exists()
    finally:
        agent.destroy()
        task.cancel()
        await asyncio.wait({task})


async def test_new_session_of_an_agent_takes_the_place_of_the_old_one(world: World) -> None:
    before = world.desk.hub.counters.sessions
    await world.restart()
    assert world.desk.hub.counters.sessions == before + 1
    assert [c.agent for c in world.desk.hub.connected] == ["h1"]
    assert any(isinstance(m, Connected) for m in world.desk.gather())


def test_largest_order_that_can_be_defined_fits_into_a_frame() -> None:
    env = {"A" * 120 + str(n): "x" * ENV_VALUE_BYTES_MAX for n in range(ENV_MAX)}
    largest = order(
        "0" * 36, "c" * COMMAND_BYTES_MAX, env=env, script="s" * SCRIPT_BYTES_MAX, stop_command="c" * COMMAND_BYTES_MAX
    )
    assert len(msgspec.msgpack.encode(largest)) < FRAME_BYTES_MAX


async def test_agent_says_that_it_has_started(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    agent = AgentProcess(tmp_path / "h1", keys, name="h1", members=[loopback()])
    agent.start()
    try:
        await until(lambda: "agent.started" in agent.log_text(), what="started")
    finally:
        agent.destroy()
