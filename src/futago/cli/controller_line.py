"""The command line's conversation with the controller of this machine, over its local socket.

Lives here: one request, its progress lines, its answer, and what becomes of the answer as an exit code. Must not live
here: any verb. No database is needed, and nothing is decided here.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from futago.runtime.faults import OperatorFault, Refused, Unknown
from futago.setup import paths

STATUS_S_MAX = 5.0
LINE_BYTES_MAX = 4 << 20

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Answer = dict[str, Any]


def ask_status() -> Answer:
    """Return the controller's status.

    Raises:
        OperatorFault: this machine is not a member. Refused: no controller runs. Unknown: it does not answer.
    """
    found: Answer = ask({"op": "status"}, deadline_s=STATUS_S_MAX)["status"]
    return found


def ask(request: Answer, *, deadline_s: float) -> Answer:
    """Return the final answer to a request that has no progress to show. Raises as `ask_status`, and OperatorFault if
    the controller refused."""
    return finish(str(request["op"]), list(converse(request, deadline_s=deadline_s)))


def operate(request: Answer, *, deadline_s: float, as_json: bool) -> Answer:
    """Carry out an order, with its progress on standard error; return the final answer. Raises as `ask`.

    With `as_json` the final answer is printed, a refusal too.
    """
    answers: list[Answer] = []
    shown = Progress()
    for answer in converse(request, deadline_s=deadline_s):
        answers.append(answer)
        if "progress" in answer and "ok" not in answer:
            shown.show(str(answer["progress"]))
    shown.end()
    if as_json and answers and "ok" in answers[-1]:
        print(json.dumps(answers[-1], ensure_ascii=False))
    return finish(str(request["op"]), answers)


def finish(op: str, answers: list[Answer]) -> Answer:
    """Return the last answer if it says that the order was carried out; raise what else it says."""
    last = answers[-1] if answers else {}
    if "ok" not in last:
        raise Unknown(f"the controller ended before `{op}` did; look at `futago status`, and repeat the command")
    if last["ok"]:
        return last
    if last.get("unknown"):
        raise Unknown(str(last.get("error", "")))
    raise OperatorFault(
        str(last.get("error", "refused")), hint=str(last.get("hint", "")), code=last.get("code") or f"pair.{op}"
    )


class Progress:
    """Progress on standard error: on a terminal, lines that differ only in their figures replace each other."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._before = ""
        self._is_open = False

    def show(self, text: str) -> None:
        """Show one line."""
        shape = "".join(c for c in text if not c.isdigit())
        if self._is_terminal:
            if self._is_open and shape != self._before:
                print(file=sys.stderr)
            print(f"\r\x1b[K  {text}", end="", file=sys.stderr, flush=True)
            self._is_open = True
        else:
            print(f"  {text}", file=sys.stderr, flush=True)
        self._before = shape

    def end(self) -> None:
        """Leave the line."""
        if self._is_open:
            print(file=sys.stderr)
            self._is_open = False


def converse(request: Answer, *, deadline_s: float) -> Iterator[Answer]:
    """Send a request; yield every line of the answer, up to the one with `ok`. Raises as `ask_status`."""
    if not paths.SETTINGS.exists():
        raise OperatorFault(
            f"{paths.SETTINGS} does not exist: this machine is not a member of a pair.",
            hint="Run this on a member.",
            code="settings.missing",
        )
    end = time.monotonic() + deadline_s
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(deadline_s)
        try:
            s.connect(str(paths.CONTROLLER_SOCKET))
        except (FileNotFoundError, ConnectionRefusedError) as e:
            raise Refused("no controller runs on this member; see `systemctl status futago-controller`") from e
        except PermissionError as e:
            raise OperatorFault(
                "Only root and the group futago may ask the controller.",
                hint="Run this as root.",
                code="cli.permission",
            ) from e
        yield from _answers(s, request, deadline_s=deadline_s, end=end)


def _answers(s: socket.socket, request: Answer, *, deadline_s: float, end: float) -> Iterator[Answer]:
    try:
        s.sendall(json.dumps(request).encode() + b"\n")
        with s.makefile("rb") as f:
            while True:
                s.settimeout(max(0.05, end - time.monotonic()))
                line = f.readline(LINE_BYTES_MAX)
                if not line:
                    return
                answer: Answer = json.loads(line)
                yield answer
                if "ok" in answer:
                    return
    except TimeoutError as e:
        raise Unknown(
            f"the controller has not finished within {deadline_s:.0f} s; it may still do so: see `futago status`"
        ) from e
    except OSError as e:  # it died: whoever waits for the end of an order learns that it is not known
        raise Unknown(f"the controller ended in the middle of `{request['op']}`: {e}") from e
