"""The loop of monitoring: what is due is probed, what was found is written.

Three loops over one table in memory (`_Watched`, one entry per pair): *watch* follows the declarations, *probe*
starts what is due, *write* takes what has come in and commits it, several times a second. The rows are the truth:
memory runs ahead of them by one batch at most, and an attempt to write that ended in doubt is simply repeated
(monitoring/store.py makes the second one harmless).
"""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass
from datetime import datetime, timedelta

from futago.monitoring import store as rows
from futago.monitoring.evaluate import advance
from futago.monitoring.model import Check, Pair, Pending, Ping, Result, State, Status, Tcp
from futago.monitoring.probes import tcp
from futago.monitoring.probes.ping import Pinger
from futago.monitoring.schedule import due, next_on_grid, spread
from futago.runtime.clock import S, now_at, now_utc
from futago.runtime.engine import EngineContext
from futago.runtime.faults import Refused, WorldFault
from futago.store.commit import Connection

WRITE_S = 0.2  # how often what was found is written
WATCH_S = 0.5  # how often the declarations are looked at
TURN_S = 0.25  # the longest sleep: the wall clock may jump meanwhile
AGAIN_S = 0.05  # after the database refused
PENDING_MAX = 200_000  # results in memory while the database does not answer; then probing pauses
CONNECTS_MAX = 500  # TCP connections being opened at once
DEADLINE_S = 10.0
JUMP = timedelta(seconds=1)  # the wall clock has been set, it did not merely drift


@dataclass(slots=True)
class _Watched:
    """One pair: its check, the newest state, and when it begins next (None: a probe is under way)."""

    check: Check
    state: State
    begins: datetime | None


class MonitoringEngine:
    """See the module."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._watched: dict[Pair, _Watched] = {}
        self._pending: dict[Pair, Pending] = {}
        self._results_pending = 0
        self._fingerprint = ""
        self._doubted: set[Pair] = set()  # their rows were not as expected: to be read again
        self._queue: list[
            tuple[datetime, Pair]
        ] = []  # a heap; an entry whose instant is not the pair's `begins` is stale
        self._boot_utc = _boot_utc()
        self._woken = asyncio.Event()
        self._pinger = Pinger()
        self._connects = asyncio.Semaphore(CONNECTS_MAX)

    async def run(self) -> None:
        """Run until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for loop in (self._watch(), self._probe(group), self._write()):
                    group.create_task(loop)
        finally:
            self._pinger.close()

    # --- what is declared
    # ---------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            self._context.beat("monitoring")
            try:
                if self._doubted or await self._has_changed():
                    await self._reload()
            except WorldFault as e:
                self._context.log.warning("monitoring.watch", error=str(e))
            await asyncio.sleep(WATCH_S)

    async def _has_changed(self) -> bool:
        mark = await self._context.store.read(rows.fingerprint, name="monitoring.fingerprint", deadline_s=DEADLINE_S)
        return mark != self._fingerprint

    async def _reload(self) -> None:
        declared = await self._context.store.read(rows.load, name="monitoring.load", deadline_s=DEADLINE_S)
        for monitor, why in declared.refused.items():
            self._context.log.error("monitoring.not_understood", monitor=monitor, error=why)
        if declared.without_address:
            names = sorted(declared.without_address)
            self._context.log.warning("monitoring.no_address", hosts=names[:20], count=len(names))
        now = now_utc()
        new = {p: State(Status.UNKNOWN, now, 0, now) for p in declared.checks if p not in declared.states}
        if new:
            await self._begin(new)
        self._take(declared, new, now)
        self._fingerprint = declared.fingerprint
        self._context.log.event("monitoring.loaded", pairs=len(self._watched), new=len(new))

    async def _begin(self, new: dict[Pair, State]) -> None:
        async def work(conn: Connection) -> None:
            await rows.begin(conn, new)

        await self._context.store.commit(work, name="monitoring.begin", deadline_s=DEADLINE_S)

    def _take(self, declared: rows.Declared, new: dict[Pair, State], now: datetime) -> None:
        """Take over the declarations. A pair that is being watched keeps its state in memory, which is ahead of its
        row.
        """
        for pair in [p for p in self._watched if p not in declared.checks or p in self._doubted]:
            del self._watched[pair]
            if (lost := self._pending.pop(pair, None)) is not None:
                self._results_pending -= len(lost.results)
        self._doubted.clear()
        fresh = [p for p in declared.checks if p not in self._watched]
        states = declared.states | new
        plan = spread(
            [
                (p, c.interval, due(p, c.interval, row_due=states[p].next_due_utc, now=now))
                for p in fresh
                for c in (declared.checks[p],)
            ],
            now=now,
        )
        for pair, check in declared.checks.items():
            if (known := self._watched.get(pair)) is None:
                self._watched[pair] = _Watched(check, states[pair], plan[pair])
            elif known.check != check:
                known.check = check
        self._requeue(now)

    def _requeue(self, now: datetime) -> None:
        """Build the queue anew: the declarations or the wall clock have changed."""
        for pair, watched in self._watched.items():
            if watched.begins is not None:
                watched.begins = due(pair, watched.check.interval, row_due=watched.begins, now=now)
        self._queue = [(w.begins, pair) for pair, w in self._watched.items() if w.begins is not None]
        heapq.heapify(self._queue)
        self._woken.set()

    # --- what is due
    # --------------------------------------------------------------------------------------------------

    async def _probe(self, group: asyncio.TaskGroup) -> None:
        while True:
            self._woken.clear()
            self._heed_clock()
            if self._results_pending < PENDING_MAX:
                for watched in self._due_now(now_utc()):
                    group.create_task(self._one(watched))
            try:
                async with asyncio.timeout(self._sleep_s()):
                    await self._woken.wait()
            except TimeoutError:
                pass

    def _due_now(self, now: datetime) -> list[_Watched]:
        found = []
        while self._queue and self._queue[0][0] <= now:
            at, pair = heapq.heappop(self._queue)
            watched = self._watched.get(pair)
            if watched is not None and watched.begins == at:
                watched.begins = None
                found.append(watched)
        return found

    def _heed_clock(self) -> None:
        boot_utc = _boot_utc()
        if abs(boot_utc - self._boot_utc) > JUMP:
            self._context.log.warning("monitoring.clock_was_set", by_s=(boot_utc - self._boot_utc).total_seconds())
            self._requeue(now_utc())
        self._boot_utc = boot_utc

    def _sleep_s(self) -> float:
        if not self._queue or self._results_pending >= PENDING_MAX:
            return TURN_S
        return min(max((self._queue[0][0] - now_utc()).total_seconds(), 0.0), TURN_S)

    async def _one(self, watched: _Watched) -> None:
        """Probe a pair once and note what came of it."""
        check = watched.check
        next_due = next_on_grid(check.pair, check.interval, now_utc())
        result = await self._result(check)
        if self._watched.get(check.pair) is not watched:
            return  # it has left its scope meanwhile
        next_due = due(check.pair, check.interval, row_due=next_due, now=now_utc())  # the clock may have been set back
        expected = watched.state.next_due_utc
        state, change = advance(watched.state, check, result, next_due_utc=next_due)
        pending = self._pending.setdefault(check.pair, Pending(expected, state))
        pending.state = state
        pending.results.append(result)
        if change is not None:
            pending.changes.append(change)
            self._context.log.event("monitoring.changed", text=change.text, before=change.before, after=change.after)
        self._results_pending += 1
        watched.state = state
        watched.begins = next_due
        heapq.heappush(self._queue, (next_due, check.pair))
        if self._queue[0][1] == check.pair:
            self._woken.set()  # it is the first of all now

    async def _result(self, check: Check) -> Result:
        match check.probe:
            case Ping():
                return await self._pinger.ping(check.address, check.timeout)
            case Tcp(port=port):
                async with self._connects:
                    return await tcp.probe(check.address, port, check.timeout)

    # --- what was found
    # -----------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(WRITE_S)
            if not self._pending:
                continue
            batch, self._pending = self._pending, {}
            count = sum(len(p.results) for p in batch.values())
            written = await self._write_batch(batch)
            self._results_pending -= count
            self._doubted |= (batch.keys() - written) & self._watched.keys()

    async def _write_batch(self, batch: dict[Pair, Pending]) -> set[Pair]:
        """Write until it is certain; return the pairs that were written now, or by an attempt in doubt."""

        async def work(conn: Connection) -> set[Pair]:
            return await rows.write(conn, batch, epoch=self._context.epoch)

        is_doubtful = False
        while True:
            try:
                written = await self._context.store.commit(work, name="monitoring.write", deadline_s=DEADLINE_S)
                return set(batch) if is_doubtful else written
            except WorldFault as e:
                is_doubtful = is_doubtful or not isinstance(e, Refused)
                self._context.log.warning("monitoring.write", error=str(e), pairs=len(batch))
                await asyncio.sleep(AGAIN_S)


def _boot_utc() -> datetime:
    """Return the wall-clock time of the boot: it moves only when the wall clock is set."""
    return now_utc() - timedelta(seconds=now_at() / S)
