"""How runs are ended before their time: because it is over, or because a person wants it.

    asked to end ── stop command, or a signal to every process of the run ──► (grace) ──► SIGKILL, until the shim has ended

A round looks at all runs and walks through the process table once, however many runs are to be ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable

from futago.agent import processes, shim
from futago.agent.held import Counters, HeldRun
from futago.agent.records import Records
from futago.link.orders import STOP_SIGNALS, Order
from futago.runtime.clock import S, now_at
from futago.runtime.faults import Refused as NotDone
from futago.runtime.log import Log

_TICK_NS = S // os.sysconf("SC_CLK_TCK")


class Stops:
    """See the module."""

    def __init__(self, records: Records, *, counters: Counters, log: Log, nofile_soft: int) -> None:
        self._records = records
        self._counters = counters
        self._log = log
        self._nofile_soft = nofile_soft

    async def round(self, runs: Iterable[HeldRun]) -> None:
        """End what is to be ended now."""
        now = now_at()
        wanted: dict[int, tuple[HeldRun, signal.Signals]] = {}
        for run in runs:
            if run.order is None or run.keeper is None or run.pidfd < 0:
                continue
            number = await self._due(run, run.order, run.keeper.pid, run.keeper.start_ticks * _TICK_NS, now)
            if number is not None:
                wanted[run.keeper.pid] = (run, number)
        if wanted:
            signals = {pid: number for pid, (_, number) in wanted.items()}
            counts = await asyncio.to_thread(processes.signal_sessions, signals)
            for pid, (run, number) in wanted.items():
                self._signalled(run, number, counts[pid])

    async def _due(self, run: HeldRun, order: Order, pid: int, started_at: int, now: int) -> signal.Signals | None:
        """Return the signal that the run has to get now; a stop command is started here."""
        self._reap(run)
        if run.kill_at is not None:
            if now < run.kill_at:
                return None
            if run.stopper:
                await asyncio.to_thread(processes.signal_sessions, {run.stopper: signal.SIGKILL})
                processes.kill(run.stopper)
            return signal.SIGKILL
        if run.is_stopping:
            return await self._stop(run, order, pid)
        if order.timeout_s and now - started_at >= order.timeout_s * S:
            await self._note_timeout(run)
            return await self._stop(run, order, pid)
        return None

    async def _stop(self, run: HeldRun, order: Order, pid: int) -> signal.Signals | None:
        if not order.stop_command:
            return signal.Signals[f"SIG{order.stop_signal if order.stop_signal in STOP_SIGNALS else 'TERM'}"]
        run.kill_at = now_at() + int(order.stop_grace_s * S)
        self._counters.stopped += run.is_stopping
        try:
            is_first = await asyncio.to_thread(self._records.mark_stopping, run.run_id)
            if is_first:  # else an earlier agent process has started it
                where = self._records.where(run.run_id)
                run.stopper = await asyncio.to_thread(
                    shim.spawn_stop, order, where, pid=pid, nofile_soft=self._nofile_soft
                )
        except NotDone as e:
            self._log.error("run.stop_command", run_id=run.run_id, error=str(e))
            run.kill_at = None
            return signal.SIGTERM
        self._log.warning("run.stop_command", run_id=run.run_id, is_started=is_first)
        return None

    async def _note_timeout(self, run: HeldRun) -> None:
        self._counters.timed_out += 1
        self._log.warning("run.timed_out", run_id=run.run_id)
        try:
            await asyncio.to_thread(self._records.mark_timed_out, run.run_id)
        except NotDone as e:  # a full disk must not keep a command alive; its exit code then says 143
            self._log.error("run.timeout_unmarked", run_id=run.run_id, error=str(e))

    def _signalled(self, run: HeldRun, number: signal.Signals, count: int) -> None:
        if run.kill_at is not None or run.order is None or not count:  # none: the shim has not begun the command yet
            return
        run.kill_at = now_at() + int(run.order.stop_grace_s * S)
        self._counters.stopped += run.is_stopping
        self._log.warning("run.stopped", run_id=run.run_id, signal=number.name, processes=count)

    def _reap(self, run: HeldRun) -> None:
        if run.stopper and processes.reap(run.stopper):
            run.stopper = 0
