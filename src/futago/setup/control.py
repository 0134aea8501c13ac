"""Set-up's line to the controller on this machine: its local socket, one JSON line there, one or more back (see
docs/internals/cluster.md).

It blocks, with deadlines; set-up is a script, not a service.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import msgspec

from futago.runtime.clock import S, now_at
from futago.runtime.faults import OperatorFault, Refused
from futago.setup import paths

LINE_BYTES_MAX = 1 << 20
POLL_S = 0.3


class MemberStatus(msgspec.Struct):
    """What set-up reads of a member's line in the status."""

    name: str
    role: str = "unknown"
    gate: str = "closed"
    pg: str = ""


class Status(msgspec.Struct):
    """What set-up reads of `futago status --json`."""

    state: str
    protected: bool = False
    primary: str | None = None
    reason: str = ""
    command: str = ""
    not_protected: list[str] = []
    members: list[MemberStatus] = []
    recovery: dict[str, Any] = {}

    def member(self, name: str) -> MemberStatus:
        """Return the line of one member."""
        return next((m for m in self.members if m.name == name), MemberStatus(name))


def ask(
    op: str, *, deadline_s: float = 5, on_progress: Callable[[str], None] | None = None, **fields: object
) -> dict[str, Any]:
    """Send one request to the controller; return its last answer.

    Args:
        on_progress: called with each line that a long operation reports.

    Raises:
        Refused: no controller answers here, or not in time.
        OperatorFault: the controller refused; its sentence and hint.
    """
    end_at = now_at() + int(deadline_s * S)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(deadline_s)
            s.connect(str(paths.CONTROLLER_SOCKET))
            s.sendall(json.dumps({"op": op, **fields}).encode() + b"\n")
            with s.makefile("rb") as lines:
                while True:
                    s.settimeout(max(0.01, (end_at - now_at()) / S))
                    answer = _decode(lines.readline(LINE_BYTES_MAX))
                    if "progress" not in answer:
                        return _accepted(answer)
                    if on_progress is not None:
                        on_progress(str(answer["progress"]))
    except TimeoutError as e:
        raise Refused(f"the controller did not answer `{op}` within {deadline_s:g} s") from e
    except OSError as e:
        raise Refused(f"no controller answers on this machine: {e}") from e


def _decode(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError as e:
        raise Refused("the controller ended the conversation") from e
    if not isinstance(answer, dict):
        raise Refused("the controller's answer cannot be understood")
    return answer


def _accepted(answer: dict[str, Any]) -> dict[str, Any]:
    if not answer.get("ok"):
        raise OperatorFault(
            str(answer.get("error", "The controller refused.")), hint=str(answer.get("hint", "")), code="pair.refused"
        )
    return answer


def status(*, deadline_s: float = 3) -> Status:
    """Return the pair's status. Raises Refused."""
    try:
        return msgspec.convert(ask("status", deadline_s=deadline_s).get("status"), Status, strict=False)
    except msgspec.ValidationError as e:
        raise Refused(f"the controller's status cannot be understood: {e}") from e


def wait_until(
    done: Callable[[Status], bool], *, what: str, deadline_s: float, on_change: Callable[[str], None]
) -> Status:
    """Wait until the status satisfies `done`; tell each new reason. Return that status.

    Raises:
        OperatorFault: not within the deadline; says what the controller said last.
    """
    end_at = now_at() + int(deadline_s * S)
    said = ""
    while now_at() < end_at:
        try:
            found = status()
            if done(found):
                return found
            now = _sentence(found)
        except Refused:
            now = "waiting for the controller to answer"
        except OperatorFault as e:
            now = str(e)
        if now != said:
            said = now
            on_change(said)
        time.sleep(POLL_S)
    raise OperatorFault(
        f"{what} was not reached within {deadline_s:g} s; last: {said}",
        hint="See `futago status` and `journalctl -u futago-controller -n 50`; the same command may be run again.",
        code="setup.wait",
    )


def _sentence(found: Status) -> str:
    progress = str(found.recovery.get("progress") or found.recovery.get("rung") or "")
    return f"{found.state}: {found.reason}" + (f" ({progress})" if progress else "")
