"""Other programs, started with a deadline and never left behind.

The idea: a guest with a taxi waiting. Whoever starts a program here gets its answer or its end: when the deadline
passes or the caller is cancelled, the program is killed and reaped, and with it whatever it has started. Secrets go into files that the program reads,
never into its arguments.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from futago.runtime.faults import Refused, Unknown

OUTPUT_BYTES_MAX = 256 * 1024
LINE_BYTES_MAX = 64 * 1024
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
if "FUTAGO_ROOT" in os.environ:  # tests point the whole tree elsewhere
    ENVIRONMENT["FUTAGO_ROOT"] = os.environ["FUTAGO_ROOT"]
AS_POSTGRES = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    code: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """The last line that it wrote, for people."""
        lines = [x for x in (self.err.strip() or self.out.strip()).splitlines() if x.strip()]
        return lines[-1].strip()[:300] if lines else f"exit code {self.code}"


async def run(command: Sequence[str], *, deadline_s: float, stdin: bytes | None = None) -> Ended:
    """Run a program to its end, with `stdin` as its input.

    Raises:
        Refused: it could not be started.
        Unknown: it did not end in time and was killed.
    """
    process = await _start(command, has_input=stdin is not None)
    try:
        async with asyncio.timeout(deadline_s):
            out, err = await process.communicate(stdin)
    except TimeoutError as e:
        raise Unknown(f"{command[0]} did not end within {deadline_s:g} s") from e
    finally:
        await _end(process)
    code = process.returncode if process.returncode is not None else -1
    return Ended(code, _text(out), _text(err))


async def follow(command: Sequence[str], *, deadline_s: float, on_line: Callable[[str], None]) -> Ended:
    """Run a program to its end and hand over each line of its standard error as it comes (carriage return ends one
    too).

    Raises:
        As `run`.
    """
    process = await _start(command)
    assert process.stderr is not None and process.stdout is not None
    tail: list[str] = []
    try:
        async with asyncio.timeout(deadline_s):
            drain = asyncio.create_task(process.stdout.read(OUTPUT_BYTES_MAX))
            try:
                rest = b""
                while chunk := await process.stderr.read(4096):
                    *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
                    for line in filter(None, map(_text, lines)):
                        tail = [*tail[-19:], line]
                        on_line(line)
                    rest = rest[-LINE_BYTES_MAX:]
                tail.append(_text(rest))
                out = await drain
                code = await process.wait()
            finally:
                drain.cancel()
    except TimeoutError as e:
        raise Unknown(f"{command[0]} did not end within {deadline_s:g} s") from e
    finally:
        await _end(process)
    return Ended(code, _text(out), "\n".join(tail))


async def _start(command: Sequence[str], *, has_input: bool = False) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE if has_input else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as e:
        raise Refused(f"{command[0]} cannot be started: {e}") from e


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):  # one in the kernel's hands stays; its reaping is the loop's
            await process.wait()


def _text(data: bytes) -> str:
    return data[:OUTPUT_BYTES_MAX].decode("utf-8", "replace").strip()
