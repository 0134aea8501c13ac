"""Compiles patterns in a process of its own: `python -m futago.intake.automaton`, patterns in, automata out.

Lives here: the program, and how it is asked. Ten thousand patterns are half a minute of work and some hundred megabytes;
beside the manager, at low priority, they cost its loop nothing, and hyperscan's trouble with a pattern is not the
manager's.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

import msgspec

from futago.intake.patterns import Automata, compile_all
from futago.runtime.faults import OperatorFault, Refused, Unknown
from futago.runtime.unreadable import UNREADABLE

COMPILE_S_MAX = 600.0
NICER = 5
_URGENT = "--urgent"
_REFUSED = 2  # exit code: a pattern is not one


class _Complaint(msgspec.Struct):
    what: str
    hint: str
    code: str


def _complaint(said: bytes) -> _Complaint:
    try:
        return msgspec.json.decode(said, type=_Complaint)
    except UNREADABLE as e:
        raise Refused(f"compiling failed, and what it said of it cannot be read: {e}") from e


async def compile_beside(
    texts: Sequence[str], *, is_urgent: bool = False, deadline_s: float = COMPILE_S_MAX
) -> Automata:
    """Return the automata of `texts`; `is_urgent`: messages wait for them, so they are not made at low priority.

    Raises:
        OperatorFault: one of them is not a pattern.
        Refused: the program failed.
        Unknown: it did not end in time.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "futago.intake.automaton",
        *([_URGENT] if is_urgent else []),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(deadline_s):
            made, said = await child.communicate(msgspec.msgpack.encode(list(texts)))
    except TimeoutError as e:
        raise Unknown(f"compiling {len(texts)} patterns took more than {deadline_s:g} s") from e
    finally:
        if child.returncode is None:
            child.kill()
    if child.returncode == _REFUSED:
        complaint = _complaint(made)
        raise OperatorFault(complaint.what, hint=complaint.hint, code=complaint.code)
    if child.returncode:
        raise Refused(f"compiling failed: {said.decode(errors='replace').strip().splitlines()[-1:]}")
    return await asyncio.to_thread(Automata.unpack, made)


def main() -> int:
    """Compile what comes in; return the exit code."""
    if _URGENT not in sys.argv:
        os.nice(NICER)
    texts = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=list[str])
    try:
        made, code = compile_all(texts).pack(), 0
    except OperatorFault as e:
        made, code = msgspec.json.encode(_Complaint(e.what, e.hint, e.code)), _REFUSED
    sys.stdout.buffer.write(made)
    sys.stdout.buffer.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
