"""A monitor's check as a job: made once, by the probe that the monitor uses, in a helper process.

Three results: the host is well (end value 0), it is not (2), or nobody could even ask: *unknown*, which says nothing
about the host. Columns know each other's rows and programs only, so the probe is run as a program.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE
from typing import Any, Literal

import msgspec

from futago.jobs.calls import unless
from futago.jobs.plan import CheckOnce
from futago.jobs.store import Connection, fetch
from futago.link.orders import DETAIL_CHARS_MAX, Outcome, RunEnded
from futago.runtime.clock import now_utc
from futago.runtime.unreadable import UNREADABLE
from futago.store.commit import Store

PROGRAM = "futago.monitoring.once"
LIMIT_S = 120.0  # the probe has its own, shorter deadline
WELL, BAD = 0, 2
STOPPED = "stopped before the check had a result"


class Found(msgspec.Struct, frozen=True):
    """What the program says. `refused`: there was nothing to ask."""

    verdict: Literal["ok", "failed", "impossible", "refused"]
    text: str = ""


async def run(run_id: str, work: CheckOnce, store: Store, stop: asyncio.Event) -> RunEnded:
    """Make the check; return its end.

    Raises:
        WorldFault: of the store.
    """
    started = now_utc().timestamp()
    asked = await store.read(lambda conn: _asked(conn, work), name="jobs.check")
    if isinstance(asked, str):
        return RunEnded(run_id, Outcome.NOT_STARTED, detail=asked)
    found = await unless(stop, _probe(asked))
    return _result(run_id, found or Found("impossible", STOPPED), started)


async def _asked(conn: Connection, work: CheckOnce) -> dict[str, Any] | str:
    """Return what the program is to check; or why there is nothing to check, as a sentence."""
    rows = await fetch(
        conn,
        "SELECT m.spec, host(h.address) FROM monitor m LEFT JOIN host h ON h.host_name = %s WHERE m.monitor_name = %s",
        work.target,
        work.monitor,
    )
    if not rows:
        return f"there is no monitor `{work.monitor}` any more"
    spec, address = rows[0]
    if address is None:
        return f"nobody has said at which address host `{work.target}` is"
    return {"spec": spec, "host": work.target, "address": address}


async def _probe(asked: dict[str, Any]) -> Found:
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", PROGRAM, stdin=PIPE, stdout=PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError as e:
        return Found("impossible", f"the probe cannot be started: {e}")
    try:
        async with asyncio.timeout(LIMIT_S):
            said, _ = await process.communicate(msgspec.json.encode(asked))
        return msgspec.json.decode(said, type=Found)
    except TimeoutError:
        return Found("impossible", f"the probe did not end within {LIMIT_S:g} s")
    except (OSError, RuntimeError, *UNREADABLE) as e:  # RuntimeError: uvloop, of a process that has died
        return Found("impossible", f"the probe broke: {e}")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _result(run_id: str, found: Found, started: float) -> RunEnded:
    text = found.text.replace("\0", "\N{REPLACEMENT CHARACTER}")[:DETAIL_CHARS_MAX]
    if found.verdict == "refused":
        return RunEnded(run_id, Outcome.NOT_STARTED, detail=text)
    ended = now_utc().timestamp()
    if found.verdict == "impossible":
        return RunEnded(run_id, Outcome.UNKNOWN, started=started, ended=ended, output=text, detail=text)
    code = WELL if found.verdict == "ok" else BAD
    return RunEnded(
        run_id, Outcome.EXITED, exit_code=code, started=started, ended=ended, output=text,
        output_bytes=len(text.encode()), detail="" if code == WELL else text,
    )  # fmt: skip
