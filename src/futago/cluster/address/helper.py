"""A mover that needs a library too heavy for the controller, in a process that is kept warm.

Lives here: the conversation with that process, one question at a time, each with a deadline. The idea: a clerk who
sits ready with the pen in hand. Loading a cloud's library takes most of a second, which would be added to every
failover, so the clerk is hired when the controller starts. One who does not answer in time, or who is no longer to act
because we changed our mind, is dismissed on the spot, so that nothing of a given-up order is done later by us; what was
already on its way to the cloud may still arrive, which is why that outcome is Unknown. Another clerk is hired at once.

One JSON object a line each way, on standard input and output, so secrets are in no argument:

    {"verb": "acquire", ...}            verb: acquire, where, warm
    {"outcome": "done", "where": "here", "why": ""}        outcome: done, refused, unknown
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Literal

import msgspec

from futago.cluster.address import Where
from futago.runtime.faults import Refused, Unknown
from futago.runtime.log import Log
from futago.runtime.process import ENVIRONMENT
from futago.runtime.unreadable import UNREADABLE
from futago.setup.addresses import AddressSettings

LINE_BYTES_MAX = 64 * 1024
WARM_S_MAX = 20.0
END_S_MAX = 1.0


class Request(msgspec.Struct, frozen=True):
    """One question. `addresses`: what shall lead to the network interface `eni`, without prefix length."""

    verb: Literal["acquire", "where", "warm"]
    address: AddressSettings
    addresses: tuple[str, ...]
    eni: str
    deadline_s: float


class Answer(msgspec.Struct, frozen=True):
    """What came of it. `where` counts after a `where` that was done."""

    outcome: Literal["done", "refused", "unknown"]
    where: Where = Where.ELSEWHERE
    why: str = ""


class HelperMover:
    """The controller's end.

    Args:
        module: run as a program, it answers requests.
        address: the settings; addresses, eni: what shall lead where.
    """

    needs_release = False  # the taker takes it from us, and what still arrives finds no address on our interface

    def __init__(
        self, module: str, *, address: AddressSettings, addresses: tuple[str, ...], eni: str, log: Log
    ) -> None:
        self._module, self._address, self._addresses, self._eni, self._log = module, address, addresses, eni, log
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._verb = ""
        self._warming: asyncio.Task[None] | None = asyncio.create_task(self._warm())

    async def acquire(self) -> None:
        """Lead the addresses here. Raises Refused or Unknown."""
        await self._ask("acquire", self._address.deadline_s)

    async def release(self) -> None:
        """Nothing: see `needs_release`."""

    async def where(self) -> Where:
        """Ask where they lead. Raises Refused or Unknown."""
        return (await self._ask("where", self._address.deadline_s)).where

    async def close(self) -> None:
        """End the helper."""
        if self._warming is not None:
            self._warming.cancel()
        process = self._process
        self._dismiss()
        if process is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_S_MAX):
                    await process.wait()

    async def _warm(self) -> None:
        with contextlib.suppress(Refused, Unknown):
            await self._ask("warm", WARM_S_MAX)

    async def _ask(self, verb: Literal["acquire", "where", "warm"], deadline_s: float) -> Answer:
        is_whole = False
        if verb == "acquire" and self._verb == "where":  # a look that is under way, perhaps in vain, has to make room
            self._dismiss()
        if verb != "warm" and self._warming is not None:  # or a short deadline would end one helper after the other
            await asyncio.wait({self._warming}, timeout=deadline_s)
            if not self._warming.done():
                self._warming.cancel()
        async with self._turn:
            self._verb = verb
            try:
                async with asyncio.timeout(deadline_s):
                    answer = await self._converse(Request(verb, self._address, self._addresses, self._eni, deadline_s))
                is_whole = True
            except TimeoutError as e:
                raise Unknown(f"the cloud did not answer within {deadline_s:g} s") from e
            finally:
                self._verb = ""
                if not is_whole:
                    self._dismiss()
                    if verb != "warm":
                        self._warming = asyncio.create_task(self._warm())
        if answer.outcome == "refused":
            raise Refused(answer.why)
        if answer.outcome == "unknown":
            raise Unknown(answer.why)
        return answer

    async def _converse(self, request: Request) -> Answer:
        process = self._process
        if process is None or process.returncode is not None:
            process = await self._hire()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(msgspec.json.encode(request) + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
            return msgspec.json.decode(line, type=Answer)
        except (OSError, *UNREADABLE) as e:
            raise Unknown("the program that speaks to the cloud ended without an answer") from e

    async def _hire(self) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._module,
                stdin=pipe,
                stdout=pipe,
                limit=LINE_BYTES_MAX,
                env=ENVIRONMENT,
                cwd="/",
            )
        except OSError as e:
            raise Refused(f"the program that speaks to the cloud cannot be started: {e}") from e
        return self._process

    def _dismiss(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            self._log.warning("address.helper-ended", pid=process.pid)
