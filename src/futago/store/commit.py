"""The commit room: every transaction of the product goes through here, and no other room commits.

A commit has three outcomes. *Done*: it is on the disks of both members (solo: of one). *Refused*: it certainly did
not happen. *Unknown*: it may have happened, or may still happen; whoever receives it re-reads its rows. The three
are kept apart by one rule: what goes wrong before COMMIT was sent is Refused, what goes wrong after is Unknown,
unless the server itself answers with an error.

The transaction runs in a task of its own, which nobody cancels: at the deadline, or when the caller is cancelled,
the line is cut (line.py) and the server finishes undisturbed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from futago.runtime.faults import BrokenInvariant, FutagoFault, Refused, Unknown
from futago.runtime.log import Log
from futago.setup import paths
from futago.store.line import CONNECTING_MAX, Connection, Line, Lines

__all__ = ["CONNINFO", "Connection", "Counters", "Store"]

CONNINFO = f"host={paths.PG_SOCKET_DIR} port={paths.PORT_POSTGRES} dbname=futago user=futago connect_timeout=2"
WARM_S_MAX = 2.0
AFTER_CUT_S = 1.0  # how long a transaction whose line was cut may take to notice

T = TypeVar("T")
Work = Callable[[Connection], Awaitable[T]]


class _Kind(Enum):
    """What a transaction is for: the statement that begins it."""

    WRITE = "BEGIN"
    READ = "BEGIN READ ONLY"


@dataclass(slots=True)
class Counters:
    """Outcomes since the store was opened."""

    done: int = 0
    refused: int = 0
    unknown: int = 0
    abandoned: int = 0  # the caller was cancelled while COMMIT was under way


@dataclass(slots=True)
class _Attempt:
    """One transaction under way: what the caller must know to end it."""

    name: str
    line: Line | None = None
    is_cut: bool = False

    @property
    def is_committing(self) -> bool:
        return self.line is not None and self.line.is_committing


@dataclass(slots=True)
class Store:
    """Transactions against the pair's database."""

    _lines: Lines
    _log: Log
    counters: Counters = field(default_factory=Counters)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    @classmethod
    async def open(
        cls, *, conninfo: str = CONNINFO, size_max: int = 8, application_name: str, log: Log | None = None
    ) -> Store:
        """Return a store. It connects when it is first used, so it can be opened before the database is there."""
        return cls(Lines(conninfo=conninfo, size_max=size_max, application_name=application_name), log or Log())

    async def warm(self, look: Work[object], *, name: str) -> None:
        """Open what the first who come would have to wait for; `look` reads what they will read. Never raises a fault
        of the world: without it all the same is done later.
        """
        looks = (self.read(look, name=name, deadline_s=WARM_S_MAX) for _ in range(CONNECTING_MAX))
        await asyncio.gather(*looks, return_exceptions=True)

    async def close(self) -> None:
        """Cut what is under way and close every line."""
        self._lines.cut_all()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=AFTER_CUT_S)
            for task in late:
                task.cancel()
        self._lines.cut_all()

    async def commit(self, work: Work[T], *, name: str, deadline_s: float = 10) -> T:
        """Run `work` in one transaction, commit it and return what it returned.

        Args:
            work: gets the connection; its own faults pass through unchanged after a rollback.
            name: stable dotted name for the log.
            deadline_s: for everything together, the wait for a free connection included.

        Raises:
            Refused: it certainly did not happen; the server's error is the cause.
            Unknown: it may have happened.
        """
        return await self._guarded(_Kind.WRITE, work, name, deadline_s)

    async def read(self, work: Work[T], *, name: str, deadline_s: float = 10) -> T:
        """Run `work` in one read-only transaction and return what it returned.

        Raises:
            Refused: it failed, for whatever reason.
        """
        return await self._guarded(_Kind.READ, work, name, deadline_s)

    async def _guarded(self, kind: _Kind, work: Work[T], name: str, deadline_s: float) -> T:
        attempt = _Attempt(name)
        task = asyncio.get_running_loop().create_task(self._run(attempt, kind, work), name=f"store:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        try:
            await asyncio.wait({task}, timeout=deadline_s)
            if not task.done():
                self._cut(attempt, task)
                await asyncio.wait({task}, timeout=AFTER_CUT_S)
        except asyncio.CancelledError:
            if not task.done():
                if attempt.is_committing:
                    self.counters.abandoned += 1
                    self._log.warning("store.commit_abandoned", name=name)
                self._cut(attempt, task)
            raise
        return self._outcome(attempt, task, deadline_s)

    def _cut(self, attempt: _Attempt, task: asyncio.Task[T]) -> None:
        attempt.is_cut = True
        if attempt.line is None:
            task.cancel()  # it waits for a line or connects: nothing has begun
        else:
            attempt.line.cut()

    def _outcome(self, attempt: _Attempt, task: asyncio.Task[T], deadline_s: float) -> T:
        late = f"{attempt.name}: no outcome within {deadline_s:g} s"
        if not task.done() or task.cancelled():
            task.cancel()  # its line is cut: what it still awaits is not the database
            fault: FutagoFault = Unknown(late) if attempt.is_committing else Refused(late)
            self._count(fault)
            raise fault
        try:
            result = task.result()
        except (Refused, Unknown) as e:
            self._count(e)
            if attempt.is_cut:
                raise type(e)(late) from e
            raise
        self.counters.done += 1
        return result

    def _count(self, fault: FutagoFault) -> None:
        if isinstance(fault, Unknown):
            self.counters.unknown += 1
        else:
            self.counters.refused += 1

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # an abandoned one has nobody else to look

    async def _run(self, attempt: _Attempt, kind: _Kind, work: Work[T]) -> T:
        line = attempt.line = await self._begun(attempt, kind)
        try:
            result = await self._work(attempt, line, work)
            if kind is _Kind.READ:
                await self._roll_back(line)
                return result
            await self._commit(attempt, line)
            return result
        finally:
            self._lines.give(line)

    async def _begun(self, attempt: _Attempt, kind: _Kind) -> Line:
        while True:
            line = await self._lines.take()
            was_fresh = line.is_fresh
            if (
                attempt.is_cut
            ):  # the cancellation was swallowed on the way (asyncio.wait_for of Python 3.11 can do that)
                self._lines.give(line)
                raise Refused(f"{attempt.name}: given up before it began")
            try:
                attempt.line = line
                await line.conn.execute(kind.value)
                return line
            except psycopg.Error as e:
                attempt.line = None
                self._lines.give(line)
                if was_fresh or attempt.is_cut:
                    raise Refused(f"{attempt.name}: {_sentence(e)}") from e
                self._lines.drop_idle()
            except BaseException:
                self._lines.give(line)
                raise

    async def _work(self, attempt: _Attempt, line: Line, work: Work[T]) -> T:
        try:
            result = await work(line.conn)
        except psycopg.Error as e:
            await self._roll_back(line)
            raise Refused(f"{attempt.name}: {_sentence(e)}") from e
        except BaseException:
            await self._roll_back(line)
            raise
        status = line.conn.info.transaction_status
        if status is TransactionStatus.INERROR:
            await self._roll_back(line)
            raise Refused(f"{attempt.name}: a statement failed and its error was passed over")
        if status is TransactionStatus.UNKNOWN:
            raise Refused(f"{attempt.name}: the connection ended before the commit")
        if status is not TransactionStatus.INTRANS:
            line.cut()
            raise BrokenInvariant(f"{attempt.name}: the work ended its transaction itself ({status.name})")
        return result

    async def _roll_back(self, line: Line) -> None:
        try:
            await line.conn.execute("ROLLBACK")
        except psycopg.Error:
            line.cut()

    async def _commit(self, attempt: _Attempt, line: Line) -> None:
        if attempt.is_cut:
            raise Refused(f"{attempt.name}: given up before it was to be committed")
        line.is_committing = True
        try:
            tag = (await line.conn.execute("COMMIT")).statusmessage
        except psycopg.Error as e:
            line.cut()
            if e.diag.severity_nonlocalized == "ERROR":
                line.is_committing = False
                raise Refused(f"{attempt.name}: {_sentence(e)}") from e
            raise Unknown(f"{attempt.name}: the connection ended while the commit was under way: {_sentence(e)}") from e
        if line.doubt:
            line.cut()
            raise Unknown(f"{attempt.name}: durable here, perhaps not on the other member: {line.doubt}")
        if tag != "COMMIT":
            raise Refused(f"{attempt.name}: the server answered {tag} to COMMIT")


def _sentence(error: psycopg.Error) -> str:
    return f"{error.sqlstate or type(error).__name__}: {' '.join(str(error).split())}"
