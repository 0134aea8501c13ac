"""The web's conversation with the controller of its own member: status, operations, and the sign that our loop turns.

One request a line, JSON, over the local socket. Every wait has a deadline: the controller never waits for us, and we
never hang on it. What the controller refuses becomes a fault with its sentence and hint.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from futago.runtime.faults import OperatorFault, Unknown
from futago.runtime.log import Log
from futago.runtime.unreadable import UNREADABLE
from futago.setup import paths
from futago.web.faults import ControllerSilent
from futago.web.model import PairStatus

ANSWER_S_MAX = 1.0
PROGRESS_S_MAX = 120.0  # between two lines of a long operation
BEAT_S = 0.2
LINE_BYTES_MAX = 1024 * 1024


class Operation(StrEnum):
    """What an operator can ask of the pair."""

    SWITCHOVER = "switchover"
    RECOVER = "recover"


class _Answer(msgspec.Struct, frozen=True):
    """One line from the controller. `progress` lines come before the one with `ok`."""

    ok: bool | None = None
    progress: str | None = None
    error: str = ""
    hint: str = ""
    status: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(_Answer).decode


class ControllerLink:
    """Requests to the controller's local socket.

    Args:
        path: where the socket is.
        log: where a silent controller is noted, once.
    """

    def __init__(self, path: Path = paths.CONTROLLER_SOCKET, *, log: Log | None = None) -> None:
        self._path = path
        self._log = log or Log()

    async def status(self) -> PairStatus:
        """Return the pair's status as the controller tells it.

        Raises:
            ControllerSilent: no answer within ANSWER_S_MAX, or one that cannot be read.
        """
        try:
            async with asyncio.timeout(ANSWER_S_MAX), self._conversation({"op": "status"}) as reader:
                answer = _decode(await reader.readline())
                return PairStatus.model_validate_json(bytes(answer.status))
        except (OSError, TimeoutError, ValidationError, *UNREADABLE) as e:
            raise ControllerSilent(f"The controller of this member gives no usable answer ({_short(e)}).") from e

    async def ask(self, request: dict[str, Any], *, deadline_s: float) -> dict[str, Any]:
        """Send one request; return the final answer. Progress is passed over.

        Raises:
            OperatorFault: the controller refused, with its hint. ControllerSilent: it could not be asked.
            Unknown: no answer came within the deadline.
        """
        is_asked = False
        try:
            async with asyncio.timeout(deadline_s), self._conversation(request) as reader:
                is_asked = True
                while True:
                    answer = msgspec.json.decode(await reader.readline(), type=dict[str, Any])
                    if "ok" in answer:
                        break
        except (OSError, TimeoutError, *UNREADABLE) as e:
            if not is_asked:
                raise ControllerSilent(f"The controller of this member gives no usable answer ({_short(e)}).") from e
            raise Unknown(f"the controller did not answer `{request['op']}`: {_short(e)}") from e
        if answer["ok"]:
            return answer
        if answer.get("unknown"):
            raise Unknown(str(answer.get("error", "")))
        raise OperatorFault(
            str(answer.get("error") or "Refused."), hint=str(answer.get("hint", "")), code="pair.refused"
        )

    async def operate(self, operation: Operation) -> AsyncIterator[str]:
        """Ask for an operation; yield its progress; return when it is done.

        Raises:
            OperatorFault: the controller refused, or the operation failed; with its hint.
            ControllerSilent: it could not be asked: nothing has begun.
            Unknown: the conversation ended before the operation did.
        """
        is_asked = False
        try:
            async with self._conversation({"op": operation.value}) as reader:
                is_asked = True
                while True:
                    async with asyncio.timeout(PROGRESS_S_MAX):
                        line = await reader.readline()
                    answer = _decode(line)
                    if answer.progress is not None:
                        yield answer.progress
                    if answer.ok is False:
                        raise OperatorFault(answer.error or "Refused.", hint=answer.hint, code="pair.refused")
                    if answer.ok:
                        return
        except (OSError, TimeoutError, *UNREADABLE) as e:
            if not is_asked:
                raise ControllerSilent(f"The controller of this member gives no usable answer ({_short(e)}).") from e
            raise Unknown(f"the controller ended the conversation before the {operation.value}: {_short(e)}") from e

    async def beat(self) -> None:
        """Say every BEAT_S, from inside our loop, that it turns; until cancelled."""
        is_heard = True
        while True:
            try:
                async with self._connected() as (reader, writer):
                    is_heard = True
                    while True:
                        writer.write(b'{"op":"beat","program":"web"}\n')
                        async with asyncio.timeout(ANSWER_S_MAX):
                            await writer.drain()
                            if not await reader.readline():
                                break
                        await asyncio.sleep(BEAT_S)
            except (OSError, TimeoutError, ValueError) as e:
                if is_heard:
                    self._log.warning("web.beat_unheard", error=_short(e))
                is_heard = False
            await asyncio.sleep(BEAT_S)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        async with asyncio.timeout(ANSWER_S_MAX):
            reader, writer = await asyncio.open_unix_connection(str(self._path), limit=LINE_BYTES_MAX)
        try:
            yield reader, writer
        finally:
            writer.close()

    @contextlib.asynccontextmanager
    async def _conversation(self, request: dict[str, Any]) -> AsyncIterator[asyncio.StreamReader]:
        async with self._connected() as (reader, writer):
            writer.write(msgspec.json.encode(request) + b"\n")
            async with asyncio.timeout(ANSWER_S_MAX):
                await writer.drain()
            yield reader


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
