"""A driver that is written in Python, in a process of its own: whatever a library does there (loads for a second, hangs
in a name lookup, leaks), the controller goes on.

Both ends live here. The controller's end is a Driver: it starts `python -m MODULE` for each question and ends it at the
deadline. The helper's end is `serve`, which a driver's `main` calls. One JSON object each way, on standard input and
output, so secrets are in no argument:

    {"verb": "status", "device": {...settings...}, "deadline_s": 5.0}
    {"outcome": "done", "power": "on", "why": ""}          outcome: done, refused, unknown
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Literal

import msgspec

from futago.cluster.fence import Power
from futago.runtime import process
from futago.runtime.faults import Refused, Unknown, WorldFault
from futago.runtime.unreadable import UNREADABLE
from futago.setup.fences import FenceDevice as FenceSettings

REQUEST_BYTES_MAX = 64 * 1024


class Request(msgspec.Struct, frozen=True):
    """One question to a device. `verb`: status, off or on."""

    verb: Literal["status", "off", "on"]
    device: FenceSettings
    deadline_s: float


class Answer(msgspec.Struct, frozen=True):
    """What came of it. `power` counts after a `status` that was done."""

    outcome: Literal["done", "refused", "unknown"]
    power: Power = Power.UNKNOWN
    why: str = ""


class HelperDriver:
    """The controller's end.

    Args:
        module: the driver's module; run as a program, it calls `serve`.
        settings: the device.
    """

    has_sessions = False

    def __init__(self, module: str, settings: FenceSettings) -> None:
        self._module, self._settings = module, settings

    async def status(self, *, deadline_s: float) -> Power:
        """Ask for the state."""
        return (await self._ask("status", deadline_s=deadline_s)).power

    async def order(self, wanted: Power, *, deadline_s: float) -> None:
        """Order ON or OFF."""
        await self._ask("off" if wanted is Power.OFF else "on", deadline_s=deadline_s)

    async def _ask(self, verb: Literal["status", "off", "on"], *, deadline_s: float) -> Answer:
        question = msgspec.json.encode(Request(verb, self._settings, deadline_s))
        ended = await process.run([sys.executable, "-m", self._module], deadline_s=deadline_s, stdin=question)
        answer = answer_in(ended)
        if answer.outcome == "refused":
            raise Refused(answer.why)
        if answer.outcome == "unknown":
            raise Unknown(answer.why)
        return answer


def answer_in(ended: process.Ended) -> Answer:
    """Return what a driver wrote before it ended. Raises Unknown."""
    try:
        return msgspec.json.decode(ended.out, type=Answer)
    except UNREADABLE as e:
        raise Unknown(f"its driver ended with exit code {ended.code}: {ended.last_words}") from e


def serve(act: Callable[[Request], Power]) -> int:
    """Answer the one request on standard input with `act`; return the exit code. What `act` raises besides faults of
    the world is a defect and ends the program, which the other end takes for Unknown.
    """
    request = msgspec.json.decode(sys.stdin.buffer.read(REQUEST_BYTES_MAX), type=Request)
    try:
        answer = Answer("done", act(request))
    except Refused as e:
        answer = Answer("refused", why=str(e))
    except WorldFault as e:
        answer = Answer("unknown", why=str(e))
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    return 0
