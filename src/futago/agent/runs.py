"""The keeper of runs: takes orders, sees that each starts at most once, waits for their ends, and keeps the results
until they are committed.

What it knows in memory is only a view of the disk (records.py); what to do about a run is always decided by `judge`
from what is observed there. The keeper may be killed at any instant: the next one looks at every directory and goes on.

    order -> [durable] -> taken -> [shim] -> running -> [exit code] -> ended -> (delivered, committed) -> removed
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from futago.agent import processes, shim
from futago.agent.held import Answer, Counters, HeldRun, Phase
from futago.agent.ledger import GONE_KEPT_MAX
from futago.agent.model import Keeper, Record, Verdict, judge
from futago.agent.records import Found, Records
from futago.agent.stops import Stops
from futago.link.orders import (
    OPEN_RUNS_MAX,
    Order,
    OrderTaken,
    Outcome,
    OutputPart,
    ReadOutput,
    RefusalReason,
    Refused,
    RunEnded,
)
from futago.runtime.clock import now_utc
from futago.runtime.faults import Corrupt, WorldFault
from futago.runtime.faults import Refused as NotDone
from futago.runtime.log import Log

BATCH_MAX = 32  # orders made durable together; more would delay the first one's start
LOOKERS = 4  # runs looked at at the same time
STARTS_MAX = 3  # shims that ended without taking their run, until the run is given up
BLANK_S = 0.05  # a shim has made its mark and not filled it: look again after this
BLANK_LOOKS_MAX = 40
DISK_PAUSE_S = 1.0
KEEPING_S = 0.25  # the keeper's round: time-outs, syncs, removals
LOOKS_TOGETHER_MAX = 32  # runs whose ends are read together
RESULTS_KEPT_MAX = 256  # read once, told at once; 16 KiB each at most
TRIMMED_MAX = 1_000  # outputs whose size is looked at in one second


_Start = NotDone | tuple[int, tuple[Keeper, int] | None]  # refused, or the shim's process and how it is watched


class RunKeeper:
    """See the module. `on_ended(run_id)` is called once for each run that is found to have ended.

    Args:
        records: the runs on the disk.
        boot: the id of the host's present boot.
        nofile_soft: the soft limit of descriptors that commands get (the agent's own is higher).
    """

    def __init__(self, records: Records, *, boot: str, log: Log, nofile_soft: int = 1024) -> None:
        self.counters = Counters()
        self.on_ended: Callable[[str], None] = lambda _run_id: None
        self._records = records
        self._boot = boot
        self._log = log
        self._nofile_soft = nofile_soft
        self._runs: dict[str, HeldRun] = {}
        self._orders: asyncio.Queue[tuple[HeldRun, Order]] = asyncio.Queue(maxsize=OPEN_RUNS_MAX)
        self._looks: asyncio.Queue[HeldRun] = (
            asyncio.Queue()
        )  # bounded by the number of runs: a run is in it at most once
        self._removals: list[str] = []
        self._forgotten: OrderedDict[str, None] = OrderedDict()
        self._results: OrderedDict[str, RunEnded] = OrderedDict()  # just read, and about to be told
        self._trim_next = 0
        self._stops = Stops(records, counters=self.counters, log=log, nofile_soft=nofile_soft)
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="orders")

    # --- asked by sessions ------------------------------------------------------------------------------------------

    @property
    def open_ids(self) -> list[str]:
        """Ids of the runs whose results are not committed."""
        return list(self._runs)

    @property
    def ended_ids(self) -> list[str]:
        """Ids of the runs that have ended and whose results are not committed, oldest order first."""
        return [r.run_id for r in self._runs.values() if r.phase is Phase.ENDED]

    def phase(self, run_id: str) -> Phase | None:
        """Return where a run stands; None if it was never taken (or was committed)."""
        run = self._runs.get(run_id)
        return None if run is None else run.phase

    def take(self, order: Order, answer: Answer) -> None:
        """Take an order; `answer` is called when the run id is durable, or the order refused. A known run is answered
        from what is known.
        """
        run = self._runs.get(order.run_id)
        if run is not None:
            self.counters.repeated += 1
            if run.phase is Phase.TAKING:
                run.answers.append(answer)
            else:
                answer(OrderTaken(order.run_id))
            return
        reason = self._refusal(order)
        if reason is not None:
            self.counters.refused += 1
            answer(Refused(order.run_id, reason, order.epoch))
            return
        run = self._runs[order.run_id] = HeldRun(order.run_id, Phase.TAKING, answers=[answer], order=order)
        self._orders.put_nowait((run, order))

    def _refusal(self, order: Order) -> RefusalReason | None:
        if order.run_id in self._forgotten:
            return RefusalReason.FORGOTTEN
        return RefusalReason.FULL if len(self._runs) >= OPEN_RUNS_MAX else None

    def stop(self, run_id: str) -> bool:
        """End a run at the next round of keeping: SIGTERM, and SIGKILL a while later. Return False if it was never
        taken, or has been forgotten.
        """
        run = self._runs.get(run_id)
        if run is not None:
            run.is_stopping = True
        return run is not None

    async def result(self, run_id: str) -> RunEnded | None:
        """Return how a run ended; None if it has not, or is not here any more."""
        run = self._runs.get(run_id)
        if run is None or run.phase is not Phase.ENDED:
            return None
        known = self._results.pop(run_id, None)
        if known is not None:
            return known
        try:
            return await asyncio.to_thread(self._records.result, run_id)
        except Corrupt as e:
            self._log.error("run.result_unreadable", run_id=run_id, error=str(e))
            return RunEnded(run_id, Outcome.UNKNOWN, detail=str(e))

    async def read_output(self, asked: ReadOutput) -> OutputPart:
        """Return what a run has written, from where it is asked for."""
        run = self._runs.get(asked.run_id)
        if run is None:
            return OutputPart(asked.run_id, asked.ticket, 0, b"", -1, is_ended=True)
        is_ended = run.phase is Phase.ENDED  # before reading: what it wrote last is in the part then
        begin, data, size = await asyncio.to_thread(self._records.read_output, asked.run_id, asked.offset)
        return OutputPart(
            asked.run_id, asked.ticket, begin, data, size, is_ended=is_ended and begin + len(data) >= size
        )

    def commit(self, run_id: str) -> None:
        """Forget a run: its result is on the disks of the pair."""
        run = self._runs.get(run_id)
        if run is None:
            return
        if run.phase is not Phase.ENDED:
            self._log.error("run.committed_before_end", run_id=run_id)
            return
        del self._runs[run_id]
        self._results.pop(run_id, None)
        self._removals.append(run_id)
        self._forgotten[run_id] = None
        while len(self._forgotten) > GONE_KEPT_MAX:
            self._forgotten.popitem(last=False)
        self.counters.committed += 1

    # --- the life of the keeper -------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Find the runs of the agent process before this one. Each is looked at as soon as `run` runs.

        Raises:
            Refused: the directory of runs cannot be used.
        """
        found = await asyncio.to_thread(self._records.prepare)
        self._forgotten.update(dict.fromkeys(self._records.forgotten))
        for run_id in found:
            run = self._runs[run_id] = HeldRun(run_id, Phase.HELD)
            self._looks.put_nowait(run)

    async def run(self) -> None:
        """Work until cancelled. Runs go on without us."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._take_orders())
                for _ in range(LOOKERS):
                    group.create_task(self._look())
                group.create_task(self._keep())
        finally:
            for run in self._runs.values():
                self._unwatch(run)
            self._disk.shutdown(wait=False)

    async def _take_orders(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._orders.get()]
            while len(batch) < BATCH_MAX and not self._orders.empty():
                batch.append(self._orders.get_nowait())
            begun = await loop.run_in_executor(self._disk, self._begin, [o for _, o in batch])
            for (run, order), (fault, start) in zip(batch, begun, strict=True):
                self._answer(run, order, fault)
                if start is not None:
                    await self._started(run, start)

    def _begin(self, orders: list[Order]) -> list[tuple[NotDone | None, _Start | None]]:
        """Make orders durable, then start their shims; return, for each, why it was not taken, or what came of its
        start.
        """
        faults = self._records.add(self._fresh(orders))
        return [(fault, None if fault is not None else self._spawn(o)) for o, fault in zip(orders, faults, strict=True)]

    def _fresh(self, orders: Iterable[Order]) -> list[Record]:
        taken = now_utc().timestamp()
        return [Record(order=o, boot=self._boot, taken=taken) for o in orders]

    def _answer(self, run: HeldRun, order: Order, fault: NotDone | None) -> None:
        answers, run.answers = run.answers, []
        if fault is None:
            run.phase = Phase.HELD
            self.counters.taken += 1
        else:
            self._log.error("run.not_taken", run_id=run.run_id, error=str(fault))
            self.counters.refused += 1
            del self._runs[run.run_id]
        for answer in answers:
            answer(OrderTaken(run.run_id) if fault is None else Refused(run.run_id, RefusalReason.FULL, order.epoch))

    def _spawn(self, order: Order) -> _Start:
        try:
            pid = shim.spawn(order, self._records.where(order.run_id), nofile_soft=self._nofile_soft)
        except NotDone as e:
            return e
        return pid, processes.start_watching(pid)

    async def _started(self, run: HeldRun, start: _Start) -> None:
        run.starts += 1
        if isinstance(start, NotDone):
            await self._give_up(run, str(start))
            return
        self.counters.started += 1
        pid, watched = start
        if watched is None:
            self._shim_ended(run, pid)
        else:
            self._keep_watching(run, *watched)

    # --- watching shims ---------------------------------------------------------------------------------------------

    def _watch(self, run: HeldRun, keeper: Keeper) -> bool:
        fd = processes.watch(keeper)
        if fd is None:
            return False
        self._keep_watching(run, keeper, fd)
        return True

    def _keep_watching(self, run: HeldRun, keeper: Keeper, fd: int) -> None:
        run.keeper, run.pidfd = keeper, fd
        asyncio.get_running_loop().add_reader(fd, self._shim_ended, run, keeper.pid)

    def _unwatch(self, run: HeldRun) -> None:
        if run.pidfd >= 0:
            asyncio.get_running_loop().remove_reader(run.pidfd)
            os.close(run.pidfd)
            run.pidfd = -1

    def _shim_ended(self, run: HeldRun, pid: int) -> None:
        self._unwatch(run)
        processes.reap(pid)
        self._looks.put_nowait(run)

    async def _look(self) -> None:
        while True:
            batch = [await self._looks.get()]
            while len(batch) < LOOKS_TOGETHER_MAX and not self._looks.empty():
                batch.append(self._looks.get_nowait())
            for run, result in zip(batch, await self._read_ends(batch), strict=True):
                if result is not None:
                    self._ended(run, result)
                    continue
                try:
                    await self._settle(run)
                except WorldFault as e:  # the disk: nothing is lost by looking again
                    self._log.error("run.look_failed", run_id=run.run_id, error=str(e))
                    self._look_later(run, DISK_PAUSE_S)

    async def _read_ends(self, batch: list[HeldRun]) -> list[RunEnded | None]:
        """Return the results of those whose shims have left an exit code: nearly always all of them."""
        try:
            return await asyncio.to_thread(self._records.ended, [r.run_id for r in batch])
        except (OSError, Corrupt):
            return [None] * len(batch)  # each is looked at by itself

    def _look_later(self, run: HeldRun, after_s: float) -> None:
        asyncio.get_running_loop().call_later(after_s, self._looks.put_nowait, run)

    async def _settle(self, run: HeldRun) -> None:
        try:
            found = await asyncio.to_thread(self._records.find, run.run_id)
        except Corrupt as e:
            await self._settle_unreadable(run, str(e))
            return
        except OSError as e:
            raise NotDone(str(e)) from e
        run.order = found.record.order
        await self._act(run, found, judge(found.observed))

    async def _act(self, run: HeldRun, found: Found, verdict: Verdict) -> None:
        match verdict:
            case Verdict.ENDED:
                self._ended(run)
            case Verdict.RUNNING:
                assert found.keeper is not None
                self.counters.adopted += 1
                if not self._watch(run, found.keeper):
                    self._looks.put_nowait(run)
            case Verdict.START:
                await self._start_again(run, found.record.order)
            case Verdict.LOOK_AGAIN if run.blank_looks < BLANK_LOOKS_MAX:
                run.blank_looks += 1
                self._look_later(run, BLANK_S)
            case Verdict.REFUSED:
                await self._end_by_verdict(run, Outcome.NOT_STARTED, "it was given up before it started")
            case Verdict.REBOOTED:
                await self._end_by_verdict(run, Outcome.UNKNOWN, "the host lost power or was rebooted during the run")
            case Verdict.KILLED | Verdict.LOOK_AGAIN:
                await self._end_by_verdict(
                    run, Outcome.UNKNOWN, "the process that keeps the run was killed: its exit code is not known"
                )

    async def _settle_unreadable(self, run: HeldRun, error: str) -> None:
        """A power cut took the order of a run that was taken. It must not just vanish: members may know that it is
        here.
        """
        if await asyncio.to_thread(self._records.has_end, run.run_id):
            self._ended(run)
            return
        self._log.error("run.order_unreadable", run_id=run.run_id, error=error)
        why = "the host lost power during the run, and its record with it"
        await self._end_by_verdict(run, Outcome.UNKNOWN, why)

    async def _start_again(self, run: HeldRun, order: Order) -> None:
        if run.starts >= STARTS_MAX:
            await self._give_up(run, "its start could not be recorded on the host's disk")
            return
        start = await asyncio.get_running_loop().run_in_executor(self._disk, self._spawn, order)
        await self._started(run, start)

    async def _give_up(self, run: HeldRun, why: str) -> None:
        """End a run that has not started; if a shim was faster, it has."""
        try:
            is_ours = await asyncio.to_thread(self._records.forbid, run.run_id)
        except NotDone as e:
            self._log.error("run.cannot_give_up", run_id=run.run_id, error=str(e))
            self._look_later(run, DISK_PAUSE_S)
            return
        if is_ours:
            await self._end_by_verdict(run, Outcome.NOT_STARTED, why)
        else:
            self._looks.put_nowait(run)

    async def _end_by_verdict(self, run: HeldRun, outcome: Outcome, detail: str) -> None:
        ended = now_utc().timestamp()
        try:
            await asyncio.to_thread(self._records.give_verdict, run.run_id, outcome, detail, ended=ended)
        except NotDone as e:
            self._log.error("run.verdict_unwritten", run_id=run.run_id, error=str(e))
            self._look_later(run, DISK_PAUSE_S)
            return
        self.counters.unknown += outcome is Outcome.UNKNOWN
        self._log.warning("run.no_exit_code", run_id=run.run_id, outcome=outcome.value, detail=detail)
        run.is_kept = True
        self._ended(run)

    def _ended(self, run: HeldRun, result: RunEnded | None = None) -> None:
        if run.phase is Phase.ENDED:
            return
        run.phase = Phase.ENDED
        run.order = None
        if result is not None:
            self._results[run.run_id] = result
            while len(self._results) > RESULTS_KEPT_MAX:
                self._results.popitem(last=False)
        self.counters.ended += 1
        self.on_ended(run.run_id)

    # --- the round: time-outs, syncs, removals, sizes ---------------------------------------------------------------

    async def _keep(self) -> None:
        rounds = 0
        while True:
            await asyncio.sleep(KEEPING_S)
            rounds += 1
            try:
                await self._stops.round(tuple(self._runs.values()))
                await self._keep_ends()
                await self._remove_committed()
                if rounds % 4 == 0:
                    await self._trim()
            except NotDone as e:
                self._log.error("runs.keeping_failed", error=str(e))
                await asyncio.sleep(DISK_PAUSE_S)

    async def _keep_ends(self) -> None:
        ended = [r for r in self._runs.values() if r.phase is Phase.ENDED and not r.is_kept]
        if ended:
            await asyncio.to_thread(self._records.keep_ends, [r.run_id for r in ended])
            for run in ended:
                run.is_kept = True

    async def _remove_committed(self) -> None:
        if gone := tuple(self._removals):
            await asyncio.to_thread(self._records.remove, gone)
            del self._removals[: len(gone)]

    async def _trim(self) -> None:
        """Look at the outputs of a part of the runs; with many of them, each has its turn every few seconds."""
        ids = [r.run_id for r in self._runs.values() if r.pidfd >= 0]
        if len(ids) > TRIMMED_MAX:
            begin = self._trim_next % len(ids)
            self._trim_next = begin + TRIMMED_MAX
            ids = (ids + ids)[begin : begin + TRIMMED_MAX]
        if ids:
            await asyncio.to_thread(lambda: [self._records.trim(i) for i in ids])
