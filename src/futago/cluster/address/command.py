"""The address is moved by a program of the user's: another cloud, a load balancer, a router, DNS.

It is started as `PROGRAM VERB MEMBER INTERFACE [ADDRESS...]`, as root, with an empty environment; one that others than
root can change is refused.

| verb | exit code 0 | 1 | any other, or too late |
|---|---|---|---|
| `acquire` | it leads to this member | it does not, and will not by this call | unknown |
| `release` | it does not lead to this member any more | it still does | unknown |
| `status` | it leads to this member | it leads elsewhere | unknown |

The program may be started again at any time with the same verb, and is killed at its deadline, or when it is to do the
contrary. Its last line on standard error is shown to people.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from futago.cluster.address import Where
from futago.cluster.fence.command import require_trusted
from futago.runtime import process
from futago.runtime.faults import Refused, Unknown

DONE, REFUSED = 0, 1


class CommandMover:
    """One program.

    Args:
        program: its absolute path.
        words: what follows the verb.
        deadline_s: for each call.
    """

    needs_release = True

    def __init__(self, program: str, *, words: Sequence[str], deadline_s: float) -> None:
        self._program, self._words, self._deadline_s = program, tuple(words), deadline_s

    async def acquire(self) -> None:
        """Have it led here. Raises Refused or Unknown."""
        await self._order("acquire")

    async def release(self) -> None:
        """Have it led here no longer. Raises Refused or Unknown."""
        await self._order("release")

    async def where(self) -> Where:
        """Ask where it leads. Raises Refused or Unknown."""
        ended = await self._run("status")
        if ended.code not in (DONE, REFUSED):
            raise Unknown(f"{self._program} status: {ended.last_words}")
        return Where.HERE if ended.code == DONE else Where.ELSEWHERE

    async def close(self) -> None:
        """Nothing: each call is a process of its own."""

    async def _order(self, verb: str) -> None:
        ended = await self._run(verb)
        if ended.code == REFUSED:
            raise Refused(f"{self._program} {verb}: {ended.last_words}")
        if ended.code != DONE:
            raise Unknown(f"{self._program} {verb}: {ended.last_words}")

    async def _run(self, verb: str) -> process.Ended:
        require_trusted(Path(self._program))
        return await process.run([self._program, verb, *self._words], deadline_s=self._deadline_s)
