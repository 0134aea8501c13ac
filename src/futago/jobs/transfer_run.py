"""A file transfer as a job: the manager asks the source's agent for a piece and hands it to the target's, until all is
there.

Agents have connections to the members only, so files go through the manager, one piece in memory at a time. What is
not done when a host goes away, or the manager changes, is gone on with: the target's agent knows how much it has, and
whether the run's file is in its place already. So this may be repeated at any point, and the file appears once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from futago.jobs.calls import unless
from futago.jobs.hub import AgentHub
from futago.jobs.parameters import filled
from futago.jobs.plan import Transfer
from futago.link.files import Deed, FileAnswer, FileStep, Trouble, wrong_path
from futago.link.orders import DETAIL_CHARS_MAX, Outcome, RunEnded
from futago.runtime.clock import now_utc

AGAIN_S = 1.0  # a host that does not answer is asked again after this
TORN_MAX = 3  # beginnings anew, until the transfer is given up
LAST_WORD_S = 30.0  # a transfer that is ended before its time asks the target this long whether it is done


class _Again(Exception):
    """A host does not answer, or cannot now."""


class _Torn(Exception):
    """What arrived is not what was sent."""


class _Failed(Exception):
    """It cannot be done."""


def written_out(work: Transfer, variables: Mapping[str, str]) -> Transfer:
    """Return the transfer with the values of its variables in their places."""
    source, to = (replace(place, path=filled(place.path, variables)) for place in (work.source, work.to))
    return replace(work, source=source, to=to, files=filled(work.files, variables))


class Carrier:
    """See the module. One for a run; `run` does it.

    Args:
        work: of one file, with its variables written out (`written_out`).
        is_resumed: a manager before may have done it.
        base: the directories below it that the target's path names are made.
    """

    def __init__(self, hub: AgentHub, run_id: str, work: Transfer, *, is_resumed: bool = False, base: str = "") -> None:
        self._hub = hub
        self._run_id = run_id
        self._work = work
        self._source = work.source
        self._to = work.to
        self._base = base
        self._is_finishing = is_resumed  # the target may have been told that all is there
        self._why = ""  # it is waiting
        self._started = now_utc().timestamp()

    async def run(self, stop: asyncio.Event) -> RunEnded:
        """Carry the file; return how that ended."""
        wrong = wrong_path(self._source.path) or wrong_path(self._to.path)
        if wrong:
            return RunEnded(self._run_id, Outcome.NOT_STARTED, detail=wrong[:DETAIL_CHARS_MAX])
        try:
            async with asyncio.timeout(self._work.timeout_s or None):
                said = await unless(stop, self._until_done())
        except TimeoutError:
            return await self._given_up("its time was over")
        return said or await self._given_up("stopped by a person")

    async def _until_done(self) -> RunEnded:
        torn = 0
        while True:
            try:
                return self._done(await self._carry())
            except _Again as e:
                self._why = str(e)
                await asyncio.sleep(AGAIN_S)
            except _Torn as e:
                torn += 1
                await self._abandon()
                if torn >= TORN_MAX:
                    return await self._failed(f"{torn} times: {e}")
            except _Failed as e:
                return await self._failed(str(e))

    async def _carry(self) -> FileAnswer:
        """Carry what is missing; return the target's last answer.

        Raises:
            _Again, _Torn, _Failed: it is not all there.
        """
        there = await self._ask(Deed.OPEN, is_source=False)
        if there.is_done:
            return there
        here = await self._ask(Deed.OPEN, is_source=True)
        if there.size > here.size:
            await self._ask(Deed.ABANDON, is_source=False)
            raise _Again("what is there of an earlier attempt is longer than the file")
        while there.offset < there.size:
            there = self._further(there, await self._ask(Deed.WRITE, is_source=False))
        offset = there.size
        while offset < here.size or here.offset + len(here.data) < here.size:
            here = self._further(here, await self._ask(Deed.READ, is_source=True, offset=offset))
            if here.data:
                there = await self._ask(Deed.WRITE, is_source=False, offset=offset, data=here.data)
                offset = there.size
        digest = (await self._ask(Deed.FINISH, is_source=True)).digest
        self._is_finishing = True
        there = await self._ask(Deed.FINISH, is_source=False, size=here.size, digest=digest)
        self._is_finishing = False
        return there

    @staticmethod
    def _further(before: FileAnswer, after: FileAnswer) -> FileAnswer:
        """Return the answer of an end that has read on.

        Raises:
            _Again: it has not.
        """
        if after.offset + len(after.data) <= before.offset + len(before.data):
            raise _Again("an end does not get on")
        return after

    async def _ask(
        self, deed: Deed, *, is_source: bool, offset: int = 0, data: bytes = b"", size: int = 0, digest: str = ""
    ) -> FileAnswer:
        place = self._source if is_source else self._to
        step = FileStep(
            self._run_id, deed, is_source, path=place.path, user=place.user, mode=self._work.mode, offset=offset,
            data=data, size=size, digest=digest, base="" if is_source else self._base,
        )  # fmt: skip
        answer = await self._hub.carry(place.host, step)
        if answer is None:
            raise _Again(f"host {place.host} does not answer")
        match answer.trouble:
            case Trouble.AGAIN:
                raise _Again(f"host {place.host}: {answer.fault}")
            case Trouble.TORN:
                self._is_finishing = False
                raise _Torn(f"host {place.host}: {answer.fault}")
            case Trouble.REFUSED:
                self._is_finishing = False
                raise _Failed(f"host {place.host}: {answer.fault}")
            case Trouble.NONE:
                return answer

    # --- ends ---------------------------------------------------------------------------------------------------------

    def _done(self, there: FileAnswer) -> RunEnded:
        text = f"{there.size} bytes, sha256 {there.digest}\n"
        return self._ended(Outcome.EXITED, "", code=0, output=text)

    async def _failed(self, why: str) -> RunEnded:
        await self._abandon()
        return self._ended(Outcome.EXITED, why, code=1)

    async def _given_up(self, why: str) -> RunEnded:
        """It is ended before its time: find out whether the file is there, if that is in doubt."""
        more = f"; {self._why}" if self._why else ""
        if not self._is_finishing:
            await self._abandon()
            return self._ended(Outcome.TIMED_OUT, f"{why}: nothing has appeared on host {self._to.host}{more}")
        try:
            async with asyncio.timeout(LAST_WORD_S):
                there = await self._last_word()
        except TimeoutError:
            return self._ended(
                Outcome.UNKNOWN, f"{why}; host {self._to.host} does not say whether the file is there{more}"
            )
        if there is not None:
            return self._done(there)
        await self._abandon()
        return self._ended(Outcome.TIMED_OUT, f"{why}: nothing has appeared on host {self._to.host}{more}")

    async def _last_word(self) -> FileAnswer | None:
        """Return the target's answer if the file is in its place; None: it is not, and will not be."""
        while True:
            try:
                there = await self._ask(Deed.OPEN, is_source=False)
            except _Again:
                await asyncio.sleep(AGAIN_S)
            except (_Torn, _Failed):
                return None
            else:
                return there if there.is_done else None

    async def _abandon(self) -> None:
        """Have what is not finished removed, if the host answers: it does no harm where it stays."""
        step = FileStep(self._run_id, Deed.ABANDON, is_source=False)
        await self._hub.carry(self._to.host, step, seconds=AGAIN_S * 5)

    def _ended(self, outcome: Outcome, why: str, *, code: int | None = None, output: str = "") -> RunEnded:
        return RunEnded(
            self._run_id, outcome, exit_code=code, started=self._started, ended=now_utc().timestamp(), output=output,
            output_bytes=len(output.encode()), detail=why[:DETAIL_CHARS_MAX],
        )  # fmt: skip
