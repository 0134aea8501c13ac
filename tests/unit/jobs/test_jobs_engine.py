"""The engine on a real PostgreSQL, with real agents and real processes: each job once, whatever ends in between.

The oracle is a file that every command appends to.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_asyncio

from agent_world import (
    AgentProcess,
    Keys,
    QuietLog,
    active,
    lines,
    loopback,
    make_hub,
    order,
    pair_settings,
    standby,
    until,
)
from futago.agent.ledger import LEDGER_FILE
from futago.inventory.apply import apply
from futago.inventory.definitions import parse
from futago.jobs import engine as engine_room
from futago.jobs import patrol, sessions
from futago.jobs import store as rows
from futago.jobs.engine import LAZY_S, JobsEngine
from futago.jobs.hub import AgentHub, Heard
from futago.jobs.model import JobState, Operation
from futago.jobs.schedules import Scheduler
from futago.jobs.strays import Strays
from futago.link.orders import OrderTaken, Outcome, RefusalReason, RunEnded, RunsReport
from futago.link.orders import Refused as OrderRefused
from futago.runtime.engine import EngineContext, Outward
from futago.runtime.faults import OperatorFault, Refused, Unknown
from futago.store.commit import Connection, Store

pytestmark = pytest.mark.asyncio(loop_scope="module")

T = TypeVar("T")
Work = Callable[[Connection], Awaitable[T]]
HOSTS = ("h1", "h2")


class Doubtful:
    """A real store whose commits sometimes end in doubt: never done, done unsaid, or done only a while later (with
    its rows locked).
    """

    def __init__(self, real: Store, *, seed: int, odds: float) -> None:
        self._real = real
        self._chance = random.Random(seed)
        self._odds = odds
        self._kinds = itertools.cycle(["later", "never", "unsaid"])
        self._later: list[asyncio.Task[object]] = []
        self.doubts: Counter[str] = Counter()

    async def read(self, work: Work[T], *, name: str, deadline_s: float = 10) -> T:
        return await self._real.read(work, name=name, deadline_s=deadline_s)

    async def commit(self, work: Work[T], *, name: str, deadline_s: float = 10) -> T:
        kind = next(self._kinds) if self._chance.random() < self._odds else ""
        if not kind:
            return await self._real.commit(work, name=name, deadline_s=deadline_s)
        self.doubts[kind] += 1
        if kind == "unsaid":
            await self._real.commit(work, name=name, deadline_s=deadline_s)
        if kind == "later":
            await self._begin(work, name)
        raise Unknown(kind)

    async def _begin(self, work: Work[T], name: str) -> None:
        written = asyncio.Event()

        async def slowly(conn: Connection) -> T:
            result = await work(conn)
            written.set()
            await asyncio.sleep(self._chance.uniform(0.05, 0.4))
            return result

        task: asyncio.Task[object] = asyncio.ensure_future(self._real.commit(slowly, name=name))
        self._later.append(task)
        await asyncio.wait({task, asyncio.ensure_future(written.wait())}, return_when=asyncio.FIRST_COMPLETED)

    async def settle(self) -> None:
        await asyncio.gather(*self._later, return_exceptions=True)


@dataclass
class World:
    store: Store
    keys: Keys
    hubs: dict[str, AgentHub]
    agents: dict[str, AgentProcess]
    oracle: Path
    base: int  # epochs of this test begin above it
    log: QuietLog = field(default_factory=QuietLog)
    outward: Outward = field(default_factory=lambda: Outward(is_allowed=True))

    async def define(self, text: str) -> None:
        await self.store.commit(lambda c: apply(c, parse(text)), name="test.apply")

    async def start(self, net: str, key: str | None = None) -> int:
        return await self.store.commit(
            lambda c: sessions.start_session(c, net, trigger="manual", trigger_key=key), name="test.start"
        )

    async def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        async def read(conn: Connection) -> list[tuple[Any, ...]]:
            return await (await conn.execute(query.encode(), values)).fetchall()

        return await self.store.read(read, name="test.rows")

    async def states(self, session: int) -> dict[str, str]:
        found = await self.rows("SELECT job_name, state FROM job_run WHERE session_id = %s", session)
        return {str(job): str(state) for job, state in found}

    async def end_of(self, session: int, *, seconds: float = 60) -> str:
        end = asyncio.get_running_loop().time() + seconds
        while True:
            [(state,)] = await self.rows("SELECT state FROM job_session WHERE session_id = %s", session)
            if state not in ("starting", "running"):
                return str(state)
            assert asyncio.get_running_loop().time() < end, f"{await self.states(session)}\n{self.log.lines}"
            await asyncio.sleep(0.02)

    async def all_connected(self, member: str = "m1") -> None:
        hub = self.hubs[member]
        await until(lambda: all(hub.is_connected(h) for h in self.agents), what="agents connected")

    @asynccontextmanager
    async def engine(
        self, member: str = "m1", *, epoch: int = 1, store: object | None = None
    ) -> AsyncIterator[JobsEngine]:
        """Run an engine on a member that is active in `epoch`; afterwards the member is a standby."""
        hub = self.hubs[member]
        epoch += self.base
        hub.set_role(active(epoch))
        context = EngineContext(
            settings=pair_settings(member), store=store or self.store, epoch=epoch, outward=self.outward, log=self.log  # type: ignore[arg-type]
        )  # fmt: skip
        engine = JobsEngine(context, hub)
        task = asyncio.get_running_loop().create_task(engine.run())
        try:
            yield engine
        finally:
            task.cancel()
            hub.set_role(standby(epoch))
            await asyncio.wait({task})
            if not task.cancelled():
                await task


@dataclass
class Site:
    """Two hubs and two agents, for all tests of this module; every test has a database, epochs and an oracle of its
    own.
    """

    keys: Keys
    hubs: dict[str, AgentHub]
    agents: dict[str, AgentProcess]
    epoch: int = 0

    async def clean(self) -> None:
        """Leave nothing behind for the next test."""
        for agent in self.agents.values():
            end = asyncio.get_running_loop().time() + 1
            while any(agent.runs.iterdir()) and asyncio.get_running_loop().time() < end:
                await asyncio.sleep(0.05)
            if agent.process is None or any(agent.runs.iterdir()):
                agent.destroy()
                shutil.rmtree(agent.runs)
                (agent.var / LEDGER_FILE).unlink(missing_ok=True)
                agent.start()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    home = tmp_path_factory.mktemp("site")
    keys = Keys(home / "keys")
    where = {m: loopback() for m in ("m1", "m2")}
    hubs = {m: make_hub(keys, address, me=m) for m, address in where.items()}
    tasks = [asyncio.get_running_loop().create_task(h.run()) for h in hubs.values()]
    agents = {n: AgentProcess(home / n, keys, name=n, members=list(where.values())).start() for n in HOSTS}
    try:
        yield Site(keys, hubs, agents)
    finally:
        for agent in agents.values():
            agent.destroy()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@pytest_asyncio.fixture(loop_scope="module")
async def store(database: str) -> AsyncIterator[Store]:
    opened = await Store.open(conninfo=database, application_name="test")
    yield opened
    await opened.close()


@pytest_asyncio.fixture(loop_scope="module")
async def world(tmp_path: Path, store: Store, site: Site) -> AsyncIterator[World]:
    site.epoch += 100
    w = World(store, site.keys, site.hubs, site.agents, tmp_path / "oracle", site.epoch)
    await w.define("".join(f"---\nkind: Host\nname: {h}\naddress: 10.0.0.{i}\n" for i, h in enumerate(HOSTS, 1)))
    await w.all_connected("m1")
    await w.all_connected("m2")
    yield w
    await site.clean()


def net(name: str, *jobs: str, notify: bool = False) -> str:
    notified = "notify: [ops]\n" if notify else ""
    ops = "kind: Notification\nname: ops\nchannel: mail\nto: [a@b.test]\nfrom: f@b.test\nsmtp: {host: 127.0.0.1}\n---\n"
    return f"{ops if notify else ''}kind: JobNet\nname: {name}\n{notified}jobs:\n" + "".join(f"  - {j}\n" for j in jobs)


def say(oracle: Path, word: str, more: str = "") -> str:
    return f"echo {word} >> {oracle}{more}"


def grid(oracle: Path, *, width: int, depth: int, more: str = "") -> list[str]:
    """Return jobs of `width` chains of `depth`, over both hosts."""
    return [
        f'{{name: j{w}-{d}, host: {HOSTS[(w + d) % 2]}, command: "{say(oracle, f"j{w}-{d}", more)}"'
        + (f", after: [j{w}-{d - 1}]}}" if d else "}")
        for w in range(width)
        for d in range(depth)
    ]


def once_each(oracle: Path, *, width: int, depth: int) -> None:
    counted = Counter(lines(oracle))
    assert counted == {f"j{w}-{d}": 1 for w in range(width) for d in range(depth)}


async def test_net_runs_in_its_order_over_both_hosts_with_true_results(world: World) -> None:
    o = world.oracle
    await world.define(
        net(
            "n",
            f'{{name: a, host: h1, command: "{say(o, "a")}; echo said-a"}}',
            f'{{name: b, host: h2, command: "{say(o, "b", "; exit 4")}", after: [a], exit_codes: {{warning: 1-9}}}}',
            f'{{name: c, host: h1, command: "{say(o, "c")}", after: [b]}}',
        )
    )
    async with world.engine():
        session = await world.start("n")
        assert await world.end_of(session) == "warning"
    assert lines(o) == ["a", "b", "c"]
    found = await world.rows(
        "SELECT job_name, state, exit_code, output, attempt, epoch = %s, ordered_utc <= ended_utc, started_utc <= ended_utc"
        " FROM job_run WHERE session_id = %s ORDER BY job_name",
        world.base + 1,
        session,
    )
    assert found == [
        ("a", "normal", 0, "said-a\n", 1, True, True, True),
        ("b", "warning", 4, "", 1, True, True, True),
        ("c", "normal", 0, "", 1, True, True, True),
    ]


async def test_that_an_agent_has_a_run_costs_no_commit_of_its_own(world: World) -> None:
    jobs = 40
    await world.define(net("n", *grid(world.oracle, width=1, depth=jobs)))
    async with world.engine() as engine:
        begun = asyncio.get_running_loop().time()
        assert await world.end_of(await world.start("n")) == "normal"
        took_s = asyncio.get_running_loop().time() - begun
    start_and_ends = 1 + jobs
    assert engine.counters.commits <= start_and_ends + took_s / LAZY_S


async def test_bad_end_notifies_once_and_runs_the_branch_for_it(world: World) -> None:
    o = world.oracle
    await world.define(
        net(
            "n",
            f'{{name: a, host: h1, command: "{say(o, "a", "; exit 77")}"}}',
            f'{{name: b, host: h1, command: "{say(o, "b")}", after: [a]}}',
            f'{{name: f, host: h2, command: "{say(o, "f")}", after: [{{job: a, end: abnormal}}]}}',
            notify=True,
        )
    )
    async with world.engine(epoch=7):
        session = await world.start("n")
        assert await world.end_of(session) == "abnormal"
    assert await world.states(session) == {"a": "abnormal", "b": "not-run", "f": "normal"}
    events = await world.rows("SELECT priority, source, host_name, notify, epoch FROM event ORDER BY event_id")
    assert events == [
        ("critical", "job", "h1", None, world.base + 7),
        ("critical", "job", None, ["ops"], world.base + 7),
    ]


async def test_running_session_keeps_the_definition_it_started_with(world: World) -> None:
    o = world.oracle
    jobs = '{{name: a, host: h1, command: "sleep 0.3"}}', '{{name: b, host: h1, command: "{0}", after: [a]}}'
    await world.define(net("n", jobs[0].format(), jobs[1].format(say(o, "old"))))
    async with world.engine():
        session = await world.start("n")
        await world.define(
            net("n", '{name: x, host: h2, command: "true"}', jobs[0].format(), jobs[1].format(say(o, "new")))
        )
        assert await world.end_of(session) == "normal"
        assert lines(o) == ["old"]
        assert await world.end_of(await world.start("n")) == "normal"
    assert lines(o) == ["old", "new"]


async def test_same_key_starts_a_net_once(world: World) -> None:
    await world.define(net("n", '{name: a, host: h1, command: "true"}'))
    first = await world.start("n", "key")
    assert await world.start("n", "key") == first
    assert await world.start("n") != first
    with pytest.raises(OperatorFault, match="no job net `m`"):
        await world.start("m")


async def test_agents_that_connect_appear_as_hosts(world: World) -> None:
    await world.store.commit(lambda c: c.execute(b"DELETE FROM host WHERE host_name = 'h2'"), name="test.forget")
    async with world.engine():
        end = asyncio.get_running_loop().time() + 60
        while True:
            found = await world.rows("SELECT host_name, is_registered FROM host WHERE has_agent ORDER BY 1")
            if found == [("h1", True), ("h2", True)]:
                break
            assert asyncio.get_running_loop().time() < end, found
            await asyncio.sleep(0.05)


async def test_switch_in_the_middle_runs_everything_once(world: World) -> None:
    width, depth = 6, 5
    await world.define(net("n", *grid(world.oracle, width=width, depth=depth, more="; sleep 0.15")))
    session = await world.start("n")
    for turn in range(6):
        member = ("m1", "m2")[turn % 2]
        async with world.engine(member, epoch=turn + 1):
            await asyncio.sleep(0.25)
    async with world.engine("m1", epoch=9):
        assert await world.end_of(session) == "normal"
    once_each(world.oracle, width=width, depth=depth)


async def test_agents_killed_again_and_again_run_everything_once(world: World) -> None:
    width, depth = 6, 4
    chance = random.Random(3)
    await world.define(net("n", *grid(world.oracle, width=width, depth=depth, more="; sleep 0.2")))
    async with world.engine():
        session = await world.start("n")
        for _ in range(5):
            await asyncio.sleep(chance.uniform(0, 0.3))
            agent = world.agents[chance.choice(HOSTS)]
            agent.kill()
            agent.start()
        assert await world.end_of(session) == "normal"
    once_each(world.oracle, width=width, depth=depth)


@pytest.mark.parametrize("seed", [1, 2])
async def test_commits_in_doubt_lose_and_double_nothing(world: World, seed: int) -> None:
    width, depth = 4, 8  # enough commits for each kind of doubt, however few a quick host needs
    jobs = grid(world.oracle, width=width, depth=depth)
    jobs += ['{name: bad, host: h1, command: "exit 9", after: [j0-1]}']
    await world.define(net("n", *jobs, notify=True))
    doubtful = Doubtful(world.store, seed=seed, odds=0.4)
    async with world.engine(store=doubtful):
        session = await world.start("n")
        assert await world.end_of(session) == "abnormal"
    await doubtful.settle()
    assert len(doubtful.doubts) == 3
    once_each(world.oracle, width=width, depth=depth)
    events = await world.rows("SELECT notify FROM event WHERE source = 'job' ORDER BY event_id")
    assert sorted(events, key=str) == [(None,), (["ops"],)]


async def test_session_whose_start_was_committed_late_is_found(world: World) -> None:
    """As when the first commit of a session is in doubt, and takes effect after the rows have been read again."""
    await world.define(net("n", f'{{name: a, host: h1, command: "{say(world.oracle, "a")}"}}'))

    async def begin(conn: Connection) -> int:
        session = await sessions.start_session(conn, "n", trigger="manual")
        await conn.execute("UPDATE job_session SET state = 'running' WHERE session_id = %s", (session,))
        await conn.execute("UPDATE job_run SET state = 'ordered' WHERE session_id = %s", (session,))
        return session

    async with world.engine() as engine:
        await until(lambda: world.log.count("jobs.loaded"), what="the rows were read")
        session = await world.store.commit(begin, name="test.late")
        assert await world.end_of(session) == "normal"
        assert engine.counters.reloads == 1
    assert lines(world.oracle) == ["a"]


async def test_session_whose_last_two_ends_were_committed_apart_goes_on_and_ends(world: World) -> None:
    """As when the commit of one end is in doubt, and takes effect after another end has been committed without it."""
    first = [f'{{name: {n}, host: h1, command: "{say(world.oracle, n)}"}}' for n in ("a", "b")]
    await world.define(net("n", *first, f'{{name: c, host: h1, command: "{say(world.oracle, "c")}", after: [a, b]}}'))
    session = await world.start("n")

    async def end_apart(conn: Connection) -> None:
        await conn.execute("UPDATE job_session SET state = 'running' WHERE session_id = %s", (session,))
        await conn.execute(
            "UPDATE job_run SET state = 'normal' WHERE session_id = %s AND job_name IN ('a', 'b')", (session,)
        )

    await world.store.commit(end_apart, name="test.apart")
    async with world.engine():
        assert await world.end_of(session) == "normal"
    assert lines(world.oracle) == ["c"]


async def test_no_order_leaves_while_outward_effects_are_not_allowed(world: World) -> None:
    await world.define(net("n", f'{{name: a, host: h1, command: "{say(world.oracle, "a")}"}}'))
    world.outward.set(False)
    before = world.hubs["m1"].counters.sent_orders
    async with world.engine() as engine:
        session = await world.start("n")
        while (await world.states(session))["a"] != "ordered":
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        assert world.hubs["m1"].counters.sent_orders == before
        assert lines(world.oracle) == []
        world.outward.set(True)
        assert await world.end_of(session) == "normal"
        assert engine.counters.reloads == 0
    assert lines(world.oracle) == ["a"]


async def test_order_that_was_committed_and_never_sent_is_sent_by_the_next_primary(world: World) -> None:
    await world.define(net("n", f'{{name: a, host: h1, command: "{say(world.oracle, "a")}"}}'))
    world.outward.set(False)
    async with world.engine("m1", epoch=1):
        session = await world.start("n")
        while (await world.states(session))["a"] != "ordered":
            await asyncio.sleep(0.02)
    world.outward.set(True)
    async with world.engine("m2", epoch=2):
        assert await world.end_of(session) == "normal"
    assert lines(world.oracle) == ["a"]


async def test_job_of_an_absent_agent_waits_for_it(world: World) -> None:
    await world.define(net("n", f'{{name: a, host: h1, command: "{say(world.oracle, "a")}"}}'))
    world.agents["h1"].kill()
    await until(lambda: not world.hubs["m1"].is_connected("h1"), what="gone")
    async with world.engine():
        session = await world.start("n")
        await until_state(world, session, "a", "ordered")
        await asyncio.sleep(0.4)
        assert await world.states(session) == {"a": "ordered"}
        world.agents["h1"].start()
        assert await world.end_of(session) == "normal"
    assert lines(world.oracle) == ["a"]


async def test_host_that_lost_its_record_of_a_run_makes_it_unknown(world: World) -> None:
    await world.define(net("n", '{name: a, host: h1, command: "sleep 20"}'))
    agent = world.agents["h1"]
    async with world.engine():
        session = await world.start("n")
        while (await world.states(session))["a"] != "running":
            await asyncio.sleep(0.02)
        agent.destroy()
        shutil.rmtree(agent.runs)
        agent.start()
        assert await world.end_of(session) == "unknown"


async def test_lost_record_is_found_also_when_nobody_heard_that_its_agent_came_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patrol, "PATROL_S", 0.2)
    await world.define(net("n", '{name: a, host: h1, command: "sleep 20"}'))
    agent, hub = world.agents["h1"], world.hubs["m1"]
    async with world.engine() as engine:
        session = await world.start("n")
        await until_state(world, session, "a", "running")
        monkeypatch.setattr(engine, "_ask_about", lambda _agent: None)
        agent.destroy()
        shutil.rmtree(agent.runs)
        (agent.var / LEDGER_FILE).unlink(missing_ok=True)
        await until(lambda: not hub.is_connected("h1"), what="h1 is gone")
        agent.start()
        assert await world.end_of(session, seconds=60) == "unknown"


async def test_result_that_nobody_knows_is_noted_and_the_agent_may_forget_it(world: World) -> None:
    async with world.engine():
        hub = world.hubs["m1"]
        stray = "01234567-89ab-cdef-0123-456789abcdef"
        hub.order("h1", order(stray, "exit 6", epoch=world.base + 1))
        await until((world.agents["h1"].runs / stray).exists, what="taken")
        await until(lambda: not (world.agents["h1"].runs / stray).exists(), what="forgotten")
        events = await world.rows("SELECT host_name, message FROM event")
    assert events == [("h1", "Host h1 reported the end of a run that has no record here: exit code 6")]


async def test_many_results_that_nobody_knows_are_one_event_of_each_host(store: Store) -> None:
    class Deaf(AgentHub):
        def __init__(self) -> None:
            self.told: list[tuple[str, str]] = []

        def committed(self, agent: str, run_id: str) -> bool:
            self.told.append((agent, run_id))
            return True

    context = EngineContext(settings=pair_settings(), store=store, epoch=1, outward=Outward(), log=QuietLog())
    hub = Deaf()
    strays = Strays(context, hub)
    ids = [f"01234567-89ab-cdef-0123-{n:012x}" for n in range(300)]
    for n, run_id in enumerate(ids):
        strays.note("h2" if n % 3 else "h1", RunEnded(run_id, Outcome.EXITED, 6))
    running = asyncio.ensure_future(strays.run())
    await until(lambda: len(hub.told) == len(ids), what="all are answered")
    running.cancel()

    async def read(conn: Connection) -> list[tuple[Any, ...]]:
        return await (await conn.execute("SELECT host_name, message FROM event ORDER BY host_name")).fetchall()

    assert await store.read(read, name="test.events") == [
        ("h1", "Host h1 reported the ends of 100 runs that have no record here"),
        ("h2", "Host h2 reported the ends of 200 runs that have no record here"),
    ]
    assert sorted(run_id for _, run_id in hub.told) == ids


async def test_result_of_another_host_is_not_believed(world: World) -> None:
    go = world.oracle.with_name("go")
    await world.define(net("n", f'{{name: a, host: h1, command: "until test -e {go}; do sleep 0.05; done"}}'))
    async with world.engine() as engine:
        session = await world.start("n")
        while (await world.states(session))["a"] not in ("ordered", "running"):
            await asyncio.sleep(0.02)
        [(run_id,)] = await world.rows("SELECT run_id::text FROM job_run")
        engine._ended("h2", RunEnded(str(run_id), Outcome.EXITED, 66))
        go.touch()
        assert await world.end_of(session) == "normal"


async def test_what_another_host_says_of_a_run_changes_nothing_about_it(world: World) -> None:
    await world.define(net("n", '{name: a, host: h1, command: "true"}'))
    world.agents["h1"].kill()
    await until(lambda: not world.hubs["m1"].is_connected("h1"), what="h1 is gone")
    async with world.engine() as engine:
        session = await world.start("n")
        await until_state(world, session, "a", "ordered")
        [(run_id,)] = await world.rows("SELECT run_id::text FROM job_run")
        for said in (
            OrderTaken(run_id),
            RunsReport([run_id], [], []),
            OrderRefused(run_id, RefusalReason.FORGOTTEN, 1),
        ):
            engine._heard(Heard("h2", said))
        assert [e.state for e in engine._board.entries.values()] == [JobState.ORDERED]
        assert run_id in engine._unconfirmed
        assert await operate(world, session, "stop", "a") == ""
        engine._heard(Heard("h2", RunsReport([], [], [run_id])))
        engine._heard(Heard("h2", RunsReport([], [run_id], [])))
        assert [e.state for e in engine._board.entries.values()] == [JobState.ORDERED]
        world.agents["h1"].start()
        await world.end_of(session)
    assert await world.states(session) == {"a": "not-run"}


class SlowToCount:
    """A store that answers which sessions run only once all of them have ended."""

    def __init__(self, real: Store) -> None:
        self._real = real
        self.found: list[list[int]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    async def read(self, work: Work[Any], *, name: str, deadline_s: float = 10) -> Any:
        found = await self._real.read(work, name=name, deadline_s=deadline_s)
        if name == "jobs.running" and found:
            self.found.append(found)
            while await self._real.read(rows.read_running, name="test.running"):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)  # the engine has heard of it, too
        return found


async def test_session_that_ends_while_the_sessions_are_counted_is_not_missing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_room, "ASK_AGAIN_S", 0.05)
    await world.define(net("n", '{name: a, host: h1, command: "sleep 0.5"}'))
    slow = SlowToCount(world.store)
    async with world.engine(store=slow) as engine:
        session = await world.start("n")
        await until(lambda: slow.found, what="the sessions were counted")
        assert await world.end_of(session) == "normal"
        assert await world.end_of(await world.start("n")) == "normal"
    assert slow.found[0] == [session] and engine.counters.reloads == 0


async def test_moves_from_a_state_that_is_gone_write_nothing(world: World) -> None:
    await world.define(net("n", '{name: a, host: h1, command: "true"}', '{name: b, host: h1, command: "true"}'))
    session = await world.start("n")
    ids = [str(r) for (r,) in await world.rows("SELECT run_id::text FROM job_run ORDER BY job_name")]
    moves = rows.Moves()
    moves.runs[ids[0]] = rows.RunMove(ids[0], JobState.WAITING, JobState.ORDERED)
    moves.runs[ids[1]] = rows.RunMove(ids[1], JobState.RUNNING, JobState.NORMAL)
    with pytest.raises(Refused, match="1 of 2"):
        await world.store.commit(lambda c: rows.write_moves(c, moves, epoch=1), name="test.moves")
    assert await world.states(session) == {"a": "waiting", "b": "waiting"}


async def operate(
    world: World, session: int, operation: str, job: str = "", *, status: str = "", value: int | None = None
) -> str:
    """Ask for it, and return the refusal: empty if it was done."""
    asked = await world.store.commit(
        lambda c: sessions.ask_operation(
            c, session, Operation(operation), job=job, asked_by="admin", status=status, value=value
        ),
        name="test.ask",
    )
    for _ in range(1200):
        decision = await world.store.read(lambda c: sessions.read_decision(c, asked), name="test.decision")
        if decision is not None:
            return decision
        await asyncio.sleep(0.05)
    raise AssertionError("never decided")


async def test_people_hold_release_and_skip_jobs_of_a_running_session(world: World) -> None:
    go = world.oracle.with_name("go")
    jobs = [
        f'{{name: a, host: h1, command: "{say(world.oracle, "a")}; until test -e {go}; do sleep 0.05; done"}}',
        f'{{name: b, host: h2, command: "{say(world.oracle, "b")}", after: [a]}}',
        f'{{name: c, host: h1, command: "{say(world.oracle, "c")}", after: [b]}}',
        f'{{name: d, host: h2, command: "{say(world.oracle, "d")}", after: [c]}}',
    ]
    await world.define(net("n", *jobs))
    async with world.engine():
        session = await world.start("n")
        await until(lambda: lines(world.oracle) == ["a"], what="the first job")
        assert await operate(world, session, "hold", "b") == ""
        assert await operate(world, session, "skip", "c") == ""
        assert "not waiting any more" in await operate(world, session, "skip", "a")
        go.touch()
        await until_state(world, session, "a", "normal")
        await asyncio.sleep(0.3)
        assert (await world.states(session))["b"] == "waiting"
    async with world.engine("m2", epoch=9):  # what people asked for stands in the rows, through a switch
        assert "held already" in await operate(world, session, "hold", "b")
        assert await operate(world, session, "release", "b") == ""
        assert await world.end_of(session) == "normal"
        assert await operate(world, session, "stop") == "The run has ended normal."
    assert lines(world.oracle)[0] == "a" and sorted(lines(world.oracle)) == ["a", "b", "d"]


async def until_state(world: World, session: int, job: str, state: str) -> None:
    for _ in range(1200):
        if (await world.states(session))[job] == state:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(await world.states(session))


async def test_stopped_run_ends_what_runs_and_starts_nothing_more(world: World) -> None:
    jobs = [
        f'{{name: a, host: h1, command: "{say(world.oracle, "a")}; sleep 60; {say(world.oracle, "late")}"}}',
        f'{{name: b, host: h2, command: "{say(world.oracle, "b")}", after: [{{job: a, end: any}}]}}',
    ]
    await world.define(net("n", *jobs))
    async with world.engine():
        session = await world.start("n")
        await until(lambda: lines(world.oracle) == ["a"], what="the first job")
        assert await operate(world, session, "stop") == ""
        assert await world.end_of(session, seconds=60) == "abnormal"
    assert await world.states(session) == {"a": "abnormal", "b": "not-run"}
    assert await world.rows(
        "SELECT exit_code, detail FROM job_run WHERE session_id = %s AND job_name = 'a'", session
    ) == [(143, "stopped by a person")]
    assert lines(world.oracle) == ["a"]


async def test_operation_on_a_session_that_cannot_be_read_here_is_answered(world: World) -> None:
    await world.define(net("n", '{name: a, host: h1, command: "true"}'))
    session = await world.start("n")
    await world.store.commit(
        lambda c: c.execute(b"""UPDATE job_definition SET spec = '{"name": "n", "shape": "of 2031"}'"""),
        name="test.later",
    )
    async with world.engine() as engine:
        assert "another version of the program" in await operate(world, session, "stop")
        assert engine.counters.reloads == 0


async def test_operation_that_a_late_read_shows_again_is_not_done_again(world: World) -> None:
    await world.define(
        net("n", '{name: a, host: h1, command: "sleep 300"}', '{name: b, host: h1, command: "true", after: [a]}')
    )
    seen = asyncio.Event()
    late: list[list[rows.OperationRow]] = []

    class Late:
        """A store that shows operations once more, as a read that began before their commit does."""

        async def read(self, work: Work[Any], *, name: str, deadline_s: float = 10) -> Any:
            found = await world.store.read(work, name=name, deadline_s=deadline_s)
            if name == "jobs.operations":
                late.append(found)
                if not found and len(late) > 1 and late[-2] and not seen.is_set():
                    seen.set()
                    return late[-2]
            return found

        async def commit(self, work: Work[Any], *, name: str, deadline_s: float = 10) -> Any:
            return await world.store.commit(work, name=name, deadline_s=deadline_s)

    async with world.engine(store=Late()) as engine:
        session = await world.start("n")
        await until_state(world, session, "a", "running")
        assert await operate(world, session, "hold", "b") == ""
        await asyncio.wait_for(seen.wait(), 60)
        assert await operate(world, session, "release", "b") == ""
        assert engine.counters.reloads == 0
        assert await operate(world, session, "stop") == ""
        await world.end_of(session)


async def again(world: World, session: int, job: str | None = None) -> list[str]:
    return await world.store.commit(lambda c: sessions.run_again(c, session, job), name="test.again")


async def test_ended_run_runs_again_from_what_failed_and_keeps_the_rest(world: World) -> None:
    mended, go = world.oracle.with_name("mended"), world.oracle.with_name("go")
    second = f"test -e {mended} && until test -e {go}; do sleep 0.05; done"
    jobs = [
        f'{{name: a, host: h1, command: "{say(world.oracle, "a")}"}}',
        f'{{name: b, host: h2, command: "{say(world.oracle, "b")}; {second}", after: [a]}}',
        f'{{name: c, host: h1, command: "{say(world.oracle, "c")}", after: [b]}}',
    ]
    await world.define(net("n", *jobs))
    async with world.engine():
        session = await world.start("n")
        assert await world.end_of(session) == "abnormal"
        with pytest.raises(OperatorFault, match="`c` cannot start, for `b` ended abnormal; begin there"):
            await again(world, session, "c")
        mended.touch()
        assert await again(world, session) == ["b", "c"]
        with pytest.raises(OperatorFault, match="has not ended"):
            await again(world, session)
        go.touch()
        assert await world.end_of(session) == "normal"
        assert await again(world, session, "c") == ["c"]
    async with world.engine("m2", epoch=9):
        assert await world.end_of(session) == "normal"
        with pytest.raises(OperatorFault, match="No job of the run has failed"):
            await again(world, session)
    assert Counter(lines(world.oracle)) == {"a": 1, "b": 2, "c": 2}
    attempts = await world.rows("SELECT job_name, max(attempt) FROM job_run WHERE session_id = %s GROUP BY 1", session)
    assert dict(attempts) == {"a": 1, "b": 2, "c": 3}


async def test_job_stopped_while_its_agent_is_away_is_never_started(world: World) -> None:
    await world.define(net("n", f'{{name: a, host: h1, command: "{say(world.oracle, "a")}"}}'))
    world.agents["h1"].kill()
    async with world.engine():
        await until(lambda: not world.hubs["m1"].is_connected("h1"), what="the agent's absence")
        session = await world.start("n")
        await until_state(world, session, "a", "ordered")
        assert await operate(world, session, "stop", "a") == ""
        world.agents["h1"].start()
        assert await world.end_of(session, seconds=60) == "normal"
    assert await world.states(session) == {"a": "not-run"}
    assert lines(world.oracle) == []


async def test_job_of_a_schedule_knows_its_business_date(world: World) -> None:
    """Half past one at night, written as 25:30: the work of the day before."""
    text = net("n", f"{{name: a, host: h1, command: 'echo $FUTAGO_BUSINESS_DATE >>{world.oracle}'}}")
    night = "kind: Schedule\nname: night\njob_net: n\ntimezone: Asia/Tokyo\ncalendar: bank\nat: '25:30'\n"
    bank = "kind: Calendar\nname: bank\ncountry: JP\nweekdays: [mon, tue, wed, thu, fri]\n"
    await world.define("---\n".join((text, night, bank)))
    await world.store.commit(lambda c: c.execute(b"ALTER TABLE schedule DISABLE TRIGGER USER"), name="test.trigger")
    since = datetime(2026, 5, 1, 12, tzinfo=UTC)  # a Friday; then come two days of a weekend and three of holidays
    await world.store.commit(lambda c: c.execute("UPDATE schedule SET changed_utc = %s", (since,)), name="test.since")
    for hours in range(24 * 7):
        await scheduler(world.store, Clock(since + timedelta(hours=hours, minutes=31))).round()
    await world.define(night + "enabled: false\n")  # the engine's own clock shows another year
    async with world.engine():
        await until(lambda: len(lines(world.oracle)) == 2, what="both nights")
    assert sorted(lines(world.oracle)) == ["2026-05-01", "2026-05-07"]


SCHEDULE = """
kind: Schedule
name: every-hour
job_net: n
cron: "0 * * * *"
"""


class Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@pytest_asyncio.fixture(loop_scope="module")
async def clock(store: Store) -> Clock:
    """A clock whose schedules count from 12:30."""
    await store.commit(lambda c: apply(c, parse(NETS)), name="test.apply")
    await store.commit(lambda c: c.execute(b"ALTER TABLE schedule DISABLE TRIGGER USER"), name="test.trigger")
    await store.commit(
        lambda c: c.execute("UPDATE schedule SET changed_utc = %s", (datetime(2026, 1, 1, 12, 30, tzinfo=UTC),)),
        name="test.since",
    )
    return Clock(datetime(2026, 1, 1, 12, 59, 59, tzinfo=UTC))


NETS = (
    "kind: Host\nname: h1\naddress: 10.0.0.1\n---\n"
    + net("n", '{name: a, host: h1, command: "true"}')
    + "---"
    + SCHEDULE
)


def scheduler(store: Store, clock: Clock) -> Scheduler:
    context = EngineContext(settings=pair_settings(), store=store, epoch=1, outward=Outward(), log=QuietLog())
    return Scheduler(context, lambda: None, now=clock)


async def keys(store: Store) -> list[str]:
    async def read(conn: Connection) -> list[str]:
        found = await (await conn.execute("SELECT trigger_key FROM job_session ORDER BY session_id")).fetchall()
        return [str(row[0]).removeprefix("schedule:every-hour:2026-01-01T") for row in found]

    return await store.read(read, name="test.keys")


async def test_schedule_fires_at_its_instant_and_once_whoever_looks(store: Store, clock: Clock) -> None:
    assert await scheduler(store, clock).round() == pytest.approx(1.0)
    assert await keys(store) == []
    clock.now += timedelta(seconds=1)
    await scheduler(store, clock).round()
    await scheduler(store, clock).round()
    assert await keys(store) == ["13:00:00+00:00"]


async def test_schedule_looks_again_exactly_when_the_next_instant_comes(store: Store, clock: Clock) -> None:
    clock.now += timedelta(seconds=0.7)
    assert await scheduler(store, clock).round() == pytest.approx(0.3)


async def test_two_primaries_in_a_race_fire_an_instant_once(store: Store, clock: Clock) -> None:
    clock.now += timedelta(minutes=1)
    results = await asyncio.gather(*(scheduler(store, clock).round() for _ in range(6)), return_exceptions=True)
    assert all(isinstance(r, float | Refused) for r in results)
    assert await keys(store) == ["13:00:00+00:00"]


async def test_instants_missed_in_a_switch_run_late_and_say_so(store: Store, clock: Clock) -> None:
    clock.now = datetime(2026, 1, 1, 13, 0, 40, tzinfo=UTC)
    await scheduler(store, clock).round()
    assert await keys(store) == ["13:00:00+00:00"]

    async def read(conn: Connection) -> list[tuple[Any, ...]]:
        return await (await conn.execute("SELECT priority, message FROM event")).fetchall()

    assert await store.read(read, name="test.events") == [
        ("info", "Schedule every-hour starts n late: 1 due instants, the oldest 40 s ago")
    ]


async def test_many_missed_instants_are_started_a_hundred_in_a_commit_each_once(store: Store, clock: Clock) -> None:
    often = "kind: Schedule\nname: often\njob_net: n\nevery: 1s\n"
    await store.commit(lambda c: apply(c, parse(often)), name="test.apply")
    clock.now = datetime(2026, 1, 1, 12, 34, 10, tzinfo=UTC)
    since = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
    await store.commit(lambda c: c.execute("UPDATE schedule SET changed_utc = %s", (since,)), name="test.since")
    counts = []
    for _ in range(4):
        pause_s = await scheduler(store, clock).round()
        counts.append((len(await keys(store)), pause_s > 0))
    assert counts == [(100, False), (200, False), (250, False), (250, True)]
    assert len(set(await keys(store))) == 250


async def test_clock_that_jumps_back_fires_nothing_twice(store: Store, clock: Clock) -> None:
    clock.now = datetime(2026, 1, 1, 13, 0, 1, tzinfo=UTC)
    await scheduler(store, clock).round()
    clock.now = datetime(2026, 1, 1, 12, 59, 59, tzinfo=UTC)
    await scheduler(store, clock).round()
    clock.now = datetime(2026, 1, 1, 14, 0, 2, tzinfo=UTC)
    await scheduler(store, clock).round()
    assert await keys(store) == ["13:00:00+00:00", "14:00:00+00:00"]


async def test_changed_calendar_starts_nothing_that_its_old_days_had_kept_closed(store: Store, clock: Clock) -> None:
    """The Friday before was closed; on Sunday somebody opens it."""
    bank = "kind: Calendar\nname: bank\n"
    closed = bank + "closed: ['2026-01-01']\n"
    text = "---\n".join((closed, "kind: Schedule\nname: daily\njob_net: n\ncron: '0 9 * * *'\ncalendar: bank\n"))
    await store.commit(lambda c: apply(c, parse(text)), name="test.apply")
    since = datetime(2026, 1, 1, 8, tzinfo=UTC)
    await store.commit(
        lambda c: c.execute("UPDATE schedule SET changed_utc = %s WHERE schedule_name = 'daily'", (since,)), name="t"
    )
    await store.commit(lambda c: apply(c, parse(bank)), name="test.apply")
    [(changed,)] = await store.read(_changed, name="test.changed")
    assert changed > since


async def _changed(conn: Connection) -> list[tuple[Any, ...]]:
    return await (await conn.execute(b"SELECT changed_utc FROM schedule WHERE schedule_name = 'daily'")).fetchall()


async def test_schedule_of_a_net_that_is_gone_complains_once(store: Store, clock: Clock) -> None:
    await store.commit(lambda c: c.execute(b"DELETE FROM job_net"), name="test.delete")
    clock.now += timedelta(minutes=1)
    await scheduler(store, clock).round()
    await scheduler(store, clock).round()

    async def read(conn: Connection) -> list[tuple[Any, ...]]:
        return await (await conn.execute("SELECT priority FROM event")).fetchall()

    assert await store.read(read, name="test.events") == [("critical",)]


async def test_an_enrolled_host_takes_its_address_from_a_host_that_nobody_registered(store: Store) -> None:
    async def before(conn: Connection) -> None:
        await conn.execute(
            "INSERT INTO host (host_name, address, is_registered) VALUES ('192.0.2.7', '192.0.2.7', false)"
        )

    async def note(conn: Connection) -> None:
        await rows.note_agents(conn, {"web7": "192.0.2.7"}, datetime.now(UTC))

    async def look(conn: Connection) -> list[tuple[object, ...]]:
        cursor = await conn.execute("SELECT host_name, host(address), is_registered FROM host ORDER BY host_name")
        return await cursor.fetchall()

    await store.commit(before, name="test")
    await store.commit(note, name="test")
    assert await store.read(look, name="test") == [("192.0.2.7", None, False), ("web7", "192.0.2.7", True)]
