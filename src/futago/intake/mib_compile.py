"""Compiles MIB files in a program of its own (mib_program.py), with a deadline; says in words what is wrong with them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping

import msgspec

from futago.intake.mib_program import Made, Result, Task
from futago.runtime.faults import OperatorFault
from futago.runtime.unreadable import UNREADABLE

DEADLINE_S = 120.0
TEXT_CHARS_MAX = 4 << 20  # of all files of one load together
FAULTS_SHOWN_MAX = 20


async def compile_files(
    files: Mapping[str, str], known: Mapping[str, str], *, deadline_s: float = DEADLINE_S
) -> list[Made]:
    """Return the modules in some files.

    Args:
        files: name of a file -> its text.
        known: name of a module -> text of the file that it was loaded from: what may be imported.

    Raises:
        OperatorFault: one of them is wrong, or a module that is imported is not there; nothing was made.
    """
    if sum(map(len, files.values())) > TEXT_CHARS_MAX:
        raise OperatorFault(
            f"The files have more than {TEXT_CHARS_MAX >> 20} MiB together.",
            hint="Load fewer at a time.",
            code="mib.too-long",
        )
    result = await _ask(Task(dict(files), dict(known)), deadline_s)
    if result.missing:
        lines = [f"{name}, imported by {', '.join(by) or 'others'}" for name, by in sorted(result.missing.items())]
        raise OperatorFault(
            f"MIB modules that are imported are not there: {'; '.join(lines[:FAULTS_SHOWN_MAX])}.",
            hint=f"Load the file of {sorted(result.missing)[0]}, too: in the same command or before. Nothing was loaded.",
            code="mib.missing",
        )
    if result.faults:
        raise _invalid("\n".join(result.faults[:FAULTS_SHOWN_MAX]))
    return result.made


async def _ask(task: Task, deadline_s: float) -> Result:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "futago.intake.mib_program"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd="/",
    )
    try:
        async with asyncio.timeout(deadline_s):
            answer, _ = await process.communicate(msgspec.msgpack.encode(task))
    except TimeoutError as e:
        raise _invalid(f"compiling did not end within {deadline_s:g} s") from e
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    try:
        return msgspec.msgpack.decode(answer, type=Result)
    except UNREADABLE as e:
        raise _invalid("compiling ended without a result: too much memory or time was needed") from e


def _invalid(what: str) -> OperatorFault:
    return OperatorFault(
        f"These MIB files cannot be loaded: {what}.", hint="Correct them. Nothing was loaded.", code="mib.invalid"
    )
