"""Journals and an engine for tests: what two receivers would have written, without the receivers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import psycopg

from futago.intake.consume import ConsumeEngine, Places
from futago.intake.journal import new_incarnation
from futago.intake.listen import pack_address
from futago.intake.model import NO_SOURCE, Incarnation, Mark, Protocol
from futago.intake.segment import pack_record
from futago.intake.writer import Batch, JournalWriter
from futago.runtime.clock import S
from futago.runtime.engine import EngineContext, Outward
from futago.runtime.log import Log
from futago.setup.settings import MemberSettings, PairSettings, Settings
from futago.store.commit import Store

NOW_NS = time.time_ns()


def settings(me: str = "m1", *, is_alone: bool = False) -> Settings:
    """The settings of a member; `is_alone`: the other has not joined, as far as this file knows."""
    members = [
        MemberSettings(name=name, service=f"10.0.0.{n}", heartbeat=f"10.0.1.{n}", interface="eth0")
        for n, name in ((1, "m1"), (2, "m2"))
        if name == me or not is_alone
    ]
    return Settings(me=me, pair=PairSettings(name="t", id="pair-of-tests", floating_ip="10.0.0.9/24"), members=members)


class Journal:
    """A member's journal, written to one or two places: its own disk and the copy on the other."""

    def __init__(self, *roots: Path, incarnation: Incarnation | None = None) -> None:
        self.incarnation = incarnation or new_incarnation(None)
        self._writers = [JournalWriter(root, interval_s=0) for root in roots]
        self.sequence = 0

    def add(
        self,
        *data: bytes,
        protocol: int = Protocol.SYSLOG_UDP,
        source: str = "10.0.0.50",
        time_ns: int = NOW_NS,
        places: Sequence[int] | None = None,
    ) -> None:
        """Append messages; durable when it returns."""
        first = self.sequence + 1
        packed = []
        for one in data:
            self.sequence += 1
            address = NO_SOURCE if protocol == Protocol.CONTROL else pack_address(source)
            packed.append(
                pack_record(
                    sequence=self.sequence,
                    time_ns=time_ns,
                    protocol=protocol,
                    flags=0,
                    source=address,
                    port=514,
                    data=one,
                )
            )
        batch = Batch(self.incarnation, first, self.sequence, sum(map(len, packed)), packed)
        for place, writer in enumerate(self._writers):
            if places is None or place in places:
                writer.append(batch)
        self.settle(places)

    def mark(self, time_ns: int = NOW_NS, mark: Mark | None = None) -> None:
        self.add(msgspec.msgpack.encode(mark or Mark()), protocol=Protocol.CONTROL, time_ns=time_ns)

    def settle(self, places: Sequence[int] | None) -> None:
        limit = time.monotonic() + 30
        for place, writer in enumerate(self._writers):
            while (places is None or place in places) and writer.pending_bytes:
                assert time.monotonic() < limit, writer.fault
                time.sleep(0.0005)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@contextlib.asynccontextmanager
async def engine(
    store: Store, places: Places, *, me: str = "m1", epoch: int = 7, is_alone: bool = False
) -> AsyncIterator[ConsumeEngine]:
    """A running engine; cancelled at the end."""
    known = settings(me, is_alone=is_alone)
    context = EngineContext(settings=known, store=store, epoch=epoch, outward=Outward(), log=Log())
    made = ConsumeEngine(context, places=places)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def eventually(database: str, query: str, expected: object, *, limit_s: float = 8) -> None:
    """Wait until a query gives one value."""
    until, found = time.monotonic() + limit_s, None
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        while time.monotonic() < until:
            row = await (await conn.execute(query)).fetchone()
            found = row[0] if row and len(row) == 1 else row
            if found == expected:
                return
            await asyncio.sleep(0.02)
    raise AssertionError(f"{query}: {found!r}, expected {expected!r}")


async def all_rows(database: str, query: str) -> list[tuple[object, ...]]:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        return list(await (await conn.execute(query)).fetchall())


async def execute(database: str, query: str, *args: object) -> None:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        await conn.execute(query, args)


async def add_monitor(
    database: str, name: str, kind: str, *patterns: dict[str, str], scope: str = "*", notify: Sequence[str] = ()
) -> None:
    spec = {"name": name, "check": kind, "scope": scope, "patterns": list(patterns), "notify": list(notify)}
    await execute(
        database,
        "INSERT INTO monitor (monitor_name, kind, spec, scope_name) VALUES (%s, %s, %s::jsonb, %s)",
        *(name, kind, msgspec.json.encode(spec).decode(), scope),
    )


def later(seconds: float) -> int:
    return NOW_NS + int(seconds * S)
