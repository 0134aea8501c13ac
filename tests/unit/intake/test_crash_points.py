"""Every point at which the way from the journals into the database can break, one after another, on a real PostgreSQL.

The manager dies, or only its line to the database is lost, before or after each statement, also on COMMIT's way there and
on its answer's way back, and between reading, merging, effects and positions. Then it begins again from what is
durable, on the same member or on the other. What the database holds at the end is compared with what the sender noted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import psycopg
import pytest
from journals import Journal, add_monitor, later, settings
from scissors import COMMITTED, Points, Scissors, mortal
from test_consume_engine import NUMBERED, dated, fixed, undated

from futago.intake import consume
from futago.intake.consume import ConsumeEngine, Places
from futago.intake.custom_traps import Trap
from futago.intake.merge import Merger
from futago.intake.model import Protocol
from futago.intake.reader import JournalReader
from futago.intake.rules import RuleSet
from futago.runtime.engine import EngineContext, Outward
from futago.runtime.log import Log
from futago.store.commit import Store
from postgres_cluster import Cluster

LIFE_S_MAX = 60
QUIET = ("BEGIN READ ONLY", "ROLLBACK")  # around what is only read: to die there is to die at the reading itself
NOTHING = Points(is_counting=False)  # nothing happens
RESET = """
    DELETE FROM event; DELETE FROM intake_position; DELETE FROM intake_unmatched; DELETE FROM intake_repeat;
    UPDATE intake_state SET revision = 0, state = ''; DELETE FROM host; DELETE FROM message; DELETE FROM message_segment;
    DO $$ DECLARE one text; BEGIN
        FOR one IN SELECT tablename FROM pg_tables WHERE tablename ~ '^message_[0-9]+$' LOOP EXECUTE 'DROP TABLE ' || one; END LOOP;
    END $$
"""


@dataclass
class Sender:
    """Sends to the members, and notes what it sent: one line a message, however many copies of it arrive."""

    disks: Disks
    events: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    repeats: int = 0

    def send(self, *copies: bytes, to: str = "12", event: str = "", keeps: str = "", **more: object) -> None:
        """Send one message: to both members, the copies may differ in what their processes put in."""
        for n in to:
            self.disks.journals[n].add(copies[min(int(n), len(copies)) - 1], **more)  # type: ignore[arg-type]
        if event:
            self.events[event] += 1
        if keeps:
            self.kept[keeps] += 1


class Disks:
    """Both members' journals on both disks; `late` is the copy of the second's as it was before its end had come."""

    def __init__(self, tmp: Path) -> None:
        at = {name: tmp / name for name in ("m1/own", "m1/peer", "m2/own", "m2/peer", "late")}
        nobody = tmp / "nobody.sock"
        self.early = Places(at["m1/own"], at["late"], nobody, tmp / "intake.toml")
        self.whole = {
            "m1": Places(at["m1/own"], at["m1/peer"], nobody, tmp / "intake.toml"),
            "m2": Places(at["m2/own"], at["m2/peer"], nobody, tmp / "intake.toml"),
        }
        self.journals = {
            "1": Journal(at["m1/own"], at["m2/peer"]),
            "2": Journal(at["m2/own"], at["m1/peer"], at["late"]),
        }
        self.seen_late = 0

    def positions(self, *, is_early: bool) -> set[tuple[str, str, int]]:
        one, two = self.journals["1"], self.journals["2"]
        end = self.seen_late if is_early else two.sequence
        return {("m1", one.incarnation.id, one.sequence), ("m2", two.incarnation.id, end)}

    def close(self) -> None:
        for journal in self.journals.values():
            journal.close()


def sent(disks: Disks) -> Sender:
    """Everything that a sender can do, at least once."""
    sender = Sender(disks)
    for journal in disks.journals.values():
        journal.mark()
    sender.send(*dated(1), event="1")
    sender.send(*dated(2), event="2")
    sender.send(*dated(2), event="2")  # twice in the same second: two messages
    sender.send(*undated(3), event="3")
    sender.send(*undated(4), to="1", event="4")
    sender.send(*undated(5), to="2", event="5")
    trap = Trap(account="probe", key="k1", message="POSTED", host="", fields={"at": "9"})
    sender.send(msgspec.json.encode(trap), event="POSTED at=9", protocol=Protocol.CUSTOM_TRAP)
    for n in range(3):
        sender.send(b"<13>Nov 22 11:00:00 web1 app[7]: FLAP %d" % n)
    sender.events["FLAP 0"] += 1
    sender.events["repeated 2 times: FLAP 2"] += 1
    disks.seen_late = disks.journals["2"].sequence
    disks.journals["2"]._writers.pop().close()  # from here on, nothing arrives in the late copy
    sender.send(*dated(6), event="6")
    sender.send(trap_of(b"\1"), trap_of(b"\2"), event="link down", protocol=Protocol.SNMP_UDP)
    sender.send(
        b"<13>Nov 22 11:00:01 web1 app[7]: KEEP this", event="KEEP", keeps="Nov 22 11:00:01 web1 app[7]: KEEP this"
    )
    sender.send(*undated(3), to="2", event="3", time_ns=later(20))  # the same bytes, later: another message
    for journal in disks.journals.values():
        journal.mark(later(200))
    return sender


def trap_of(request_id: bytes) -> bytes:
    """One notification as two processes send it: the request ids differ."""
    return fixed(b"\x30\x00\x02\x04\x00\x00\x00" + request_id)


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Disks]:
    made = Disks(tmp_path)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches at once, and nothing that depends on how long something takes."""
    values = {"READ_BYTES": 500, "READS_MAX": 1, "LOOK_EVERY": 1, "POLL_S": 0.002, "BATCH_S": 0.0, "AGAIN_S": 0.0}
    for name, value in values.items():
        monkeypatch.setattr(consume, name, value)
    for name in ("RULES_EVERY_S", "INVENTORY_EVERY_S", "PRUNE_EVERY_S"):
        monkeypatch.setattr(consume, name, 1e9)


class World:
    """The database and what may happen to those who use it."""

    def __init__(self, postgres: Cluster, database: str, disks: Disks, tmp: Path) -> None:
        self._postgres = postgres
        self._name = database.partition("dbname=")[2].split()[0]
        self._look = psycopg.connect(postgres.conninfo_of(self._name, user="postgres"), autocommit=True)
        self._disks = disks
        self._wire = tmp / "wire"
        self.points = NOTHING
        self._rules: dict[str, RuleSet] = {}

    def close(self) -> None:
        self._look.close()

    def reset(self) -> None:
        self._look.execute(RESET.encode())

    def found(self, query: str) -> list[tuple[object, ...]]:
        return self._look.execute(query.encode()).fetchall()

    async def life(self, me: str, places: Places, points: Points, *, is_early: bool, is_for_good: bool = True) -> None:
        """Run the engine until everything has had its effect, or until it dies."""
        self.points = points
        async with self._store(points, is_for_good=is_for_good) as store:
            engine = ConsumeEngine(self._context(me, store), places=places)
            self._give_rules(engine)
            await self._lived(engine, points, self._disks.positions(is_early=is_early), is_for_good=is_for_good)
            self._rules = engine.following.rules or self._rules

    async def _lived(
        self, engine: ConsumeEngine, points: Points, wanted: set[tuple[str, str, int]], *, is_for_good: bool
    ) -> None:
        task = asyncio.create_task(engine.run())
        counters, seen = engine.counters, (0, 0)
        try:
            async with asyncio.timeout(LIFE_S_MAX):
                while not task.done() and not (is_for_good and points.is_dead):
                    await asyncio.sleep(0.002)
                    if seen != (counters.batches, counters.reloads):
                        seen = counters.batches, counters.reloads
                        if self._positions() == wanted:
                            break
        finally:
            task.cancel()
            with contextlib.suppress(BaseException):
                await task

    def _context(self, me: str, store: Store) -> EngineContext:
        return EngineContext(settings=settings(me), store=store, epoch=7, outward=Outward(), log=Log())

    def _give_rules(self, engine: ConsumeEngine) -> None:
        """Give an engine the compiled rules of the first one: to load them again writes nothing, and takes long."""
        if self._rules:
            (version,) = self.found("SELECT intake_rules_version()")[0]
            engine.following.rules, engine.following._version = dict(self._rules), str(version)

    def _positions(self) -> set[tuple[object, ...]]:
        return set(self.found("SELECT member_name, incarnation, sequence FROM intake_position"))

    @contextlib.asynccontextmanager
    async def _store(self, points: Points, *, is_for_good: bool) -> AsyncIterator[Store]:
        """A store over a line with scissors; over a whole one where nothing is to happen."""
        async with contextlib.AsyncExitStack() as stack:
            folder = self._postgres.home
            if points.is_counting:
                await stack.enter_async_context(Scissors(folder, self._wire, points, is_for_good=is_for_good))
                folder = self._wire
            conninfo = f"host={folder} dbname={self._name} user=futago connect_timeout=2"
            store = await Store.open(conninfo=conninfo, application_name="mortal")
            stack.push_async_callback(store.close)
            yield store

    def check(self, sender: Sender, where: str) -> None:
        """Hold what is there against the sender's own notes."""
        events = Counter(str(row[0]) for row in self.found("SELECT message FROM event"))
        kept = Counter(str(row[0]) for row in self.found("SELECT text FROM message"))
        assert events == sender.events, f"{where}: lost {sender.events - events}, twice {events - sender.events}"
        assert kept == sender.kept, f"{where}: kept {kept}"
        assert self._positions() == self._disks.positions(is_early=False), where


@pytest.fixture
async def world(postgres: Cluster, database: str, disks: Disks, tmp_path: Path) -> AsyncIterator[World]:
    suppressed = {"match": "(?P<what>FLAP .)", "priority": "warning", "message": "{what}", "suppress": {"for": "2m"}}
    await add_monitor(database, "numbered", "syslog", NUMBERED, suppressed)  # type: ignore[arg-type]
    await add_monitor(database, "posted", "customtrap", {"match": "POSTED", "priority": "info"})
    await add_monitor(database, "traps", "snmptrap", {"match": "trapOID", "priority": "info", "message": "link down"})
    await add_keeping_monitor(database)
    made = World(postgres, database, disks, tmp_path)
    yield made
    made.close()


async def add_keeping_monitor(database: str) -> None:
    spec = {"name": "kept", "patterns": [{"match": "KEEP", "priority": "info", "message": "KEEP"}], "keep": True}
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        await conn.execute(
            "INSERT INTO monitor (monitor_name, kind, spec, scope_name) VALUES ('kept', 'syslog', %s::jsonb, '*')",
            (msgspec.json.encode(spec).decode(),),
        )


@pytest.fixture
def inner_points(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """Points between the statements: the program's own steps."""
    for kind, name in (
        (JournalReader, "read"), (Merger, "feed"), (ConsumeEngine, "_take_effect"), (Merger, "changes")
    ):  # fmt: skip
        monkeypatch.setattr(kind, name, mortal(getattr(kind, name), lambda: world.points))


async def trace_of(world: World, places: Places, *, is_early: bool) -> list[str]:
    """Live undisturbed; return every point on the way up to the last commit's answer."""
    await world.life("m1", places, NOTHING, is_early=is_early)  # rules are compiled, here only
    world.reset()
    points = Points()
    await world.life("m1", places, points, is_early=is_early)
    assert points.passed.count(COMMITTED) > 2
    return points.passed[: len(points.passed) - points.passed[::-1].index(COMMITTED)]


@pytest.mark.usefixtures("inner_points")
async def test_a_death_at_any_point_loses_and_repeats_nothing(world: World, disks: Disks) -> None:
    sender = sent(disks)
    trace = await trace_of(world, disks.early, is_early=True)
    assert len(trace) > 120
    for k, name in enumerate(trace):
        if name.startswith(QUIET):
            continue
        world.reset()
        points = Points(k)
        await world.life("m1", disks.early, points, is_early=True)
        assert points.is_dead, f"{name} was not reached"
        assert points.passed[k] == name
        heir = ("m1", "m2")[k % 2]
        await world.life(heir, disks.whole[heir], NOTHING, is_early=False)
        world.check(sender, f"{k}: {name}, then {heir}")


async def test_a_line_that_is_lost_at_any_statement_loses_and_repeats_nothing(world: World, disks: Disks) -> None:
    sender = sent(disks)
    trace = await trace_of(world, disks.whole["m1"], is_early=False)
    assert len(trace) > 80
    for k, name in enumerate(trace):
        world.reset()
        points = Points(k)
        await world.life("m1", disks.whole["m1"], points, is_early=False, is_for_good=False)
        assert points.passed[k] == name
        world.check(sender, f"{k}: {name}")
