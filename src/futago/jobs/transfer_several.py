"""Several files as one transfer: what matches is listed, then carried file by file, each under an id of its own that
follows from the run's.

So each appears once and as a whole, as a single file does (transfer_run.py), however often this is begun again. What
matches is listed anew by a manager that goes on with it; what has been carried is answered by its target at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID, uuid5

from futago.jobs.calls import unless
from futago.jobs.hub import AgentHub
from futago.jobs.plan import Place, Transfer
from futago.jobs.transfer_run import AGAIN_S, Carrier
from futago.link.files import Deed, FileAnswer, FileStep, Listed, Trouble, wrong_path, wrong_pattern
from futago.link.orders import DETAIL_CHARS_MAX, OUTPUT_TAIL_CHARS_MAX, Outcome, RunEnded
from futago.runtime.clock import S, now_at, now_utc


class Convoy:
    """See the module. One for a run; `run` does it. `work`: with its variables written out."""

    def __init__(self, hub: AgentHub, run_id: str, work: Transfer, *, is_resumed: bool = False) -> None:
        self._hub = hub
        self._run_id = run_id
        self._work = work
        self._is_resumed = is_resumed
        self._started = now_utc().timestamp()
        self._until = now_at() + int(work.timeout_s * S)
        self._lines: list[str] = []
        self._why = ""

    async def run(self, stop: asyncio.Event) -> RunEnded:
        """Carry the files; return how that ended."""
        wrong = wrong_path(self._work.source.path) or wrong_path(self._work.to.path) or wrong_pattern(self._work.files)
        if wrong:
            return RunEnded(self._run_id, Outcome.NOT_STARTED, detail=wrong[:DETAIL_CHARS_MAX])
        try:
            async with asyncio.timeout(self._left()):
                answer = await unless(stop, self._list())
        except TimeoutError:
            return self._given_up(f"its time was over; {self._why}")
        if answer is None:
            return self._given_up("stopped by a person")
        if answer.trouble is not Trouble.NONE:
            return self._ended(Outcome.EXITED, f"host {self._work.source.host}: {answer.fault}", code=1)
        if not answer.listed:
            return self._nothing()
        return await self._carry(answer.listed, stop)

    def _left(self) -> float | None:
        """Return the seconds that are left; None: there is no end."""
        return max(0.001, (self._until - now_at()) / S) if self._work.timeout_s else None

    async def _list(self) -> FileAnswer:
        source = self._work.source
        step = FileStep(
            self._run_id, Deed.LIST, is_source=True, path=source.path, user=source.user, pattern=self._work.files
        )
        while True:
            answer = await self._hub.carry(source.host, step)
            if answer is not None and answer.trouble is not Trouble.AGAIN:
                return answer
            why = answer.fault if answer else "it does not answer, or its agent cannot list files"
            self._why = f"host {source.host}: {why}"
            await asyncio.sleep(AGAIN_S)

    async def _carry(self, files: Sequence[Listed], stop: asyncio.Event) -> RunEnded:
        size = 0
        for file in files:
            ended = await self._one(file.name, stop)
            if (ended.outcome, ended.exit_code) != (Outcome.EXITED, 0):
                done = f"{len(self._lines)} of {len(files)} files are there"
                code = 1 if ended.outcome is Outcome.NOT_STARTED else ended.exit_code
                outcome = Outcome.EXITED if ended.outcome is Outcome.NOT_STARTED else ended.outcome
                return self._ended(outcome, f"{done}; {file.name}: {ended.detail}", code=code)
            self._lines.append(f"{file.name}: {ended.output}")
            size += file.size
        return self._ended(
            Outcome.EXITED, "", code=0, first=f"{len(files)} files, {size} bytes when they were listed\n"
        )

    async def _one(self, name: str, stop: asyncio.Event) -> RunEnded:
        source, to = (_below(place, name) for place in (self._work.source, self._work.to))
        work = replace(self._work, source=source, to=to, files="", timeout_s=self._left() or 0.0)
        run_id = str(uuid5(UUID(self._run_id), name))
        return await Carrier(self._hub, run_id, work, is_resumed=self._is_resumed, base=self._work.to.path).run(stop)

    # --- ends ---------------------------------------------------------------------------------------------------------

    def _nothing(self) -> RunEnded:
        why = f"no file in {self._work.source.path} matches {self._work.files}"
        if self._is_resumed:  # the manager before may have carried some, that have been taken away since
            return self._ended(Outcome.UNKNOWN, f"{why}; some may have been carried before the manager changed")
        return self._ended(Outcome.EXITED, why, code=1)

    def _given_up(self, why: str) -> RunEnded:
        if self._is_resumed:
            return self._ended(Outcome.UNKNOWN, f"{why}; some may have been carried before the manager changed")
        return self._ended(Outcome.TIMED_OUT, f"{why}: nothing has been carried")

    def _ended(self, outcome: Outcome, why: str, *, code: int | None = None, first: str = "") -> RunEnded:
        output = first + "".join(self._lines)
        return RunEnded(
            self._run_id, outcome, exit_code=code, started=self._started, ended=now_utc().timestamp(),
            output=output[:OUTPUT_TAIL_CHARS_MAX], output_bytes=len(output.encode()), detail=why[:DETAIL_CHARS_MAX],
        )  # fmt: skip


def _below(place: Place, name: str) -> Place:
    return replace(place, path=f"{place.path}/{name}")
