"""An HTTP job: one request, made by a helper process with a deadline (http_call.py).

One that was sent and got no answer may have been done: that is unknown, unless the job says that a repetition harms
nothing. So a retry never sends twice by itself what may not be sent twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping

import msgspec

from futago.jobs.calls import unless
from futago.jobs.http_call import Answer, Request
from futago.jobs.parameters import filled
from futago.jobs.plan import HttpCall
from futago.link.orders import DETAIL_CHARS_MAX, Outcome, RunEnded
from futago.runtime.clock import now_utc
from futago.runtime.unreadable import UNREADABLE

GRACE_S = 5.0  # beyond the request's own time-out, for the start of the process
STOPPED = "stopped while the request was under way"
STOPPED_BEFORE = "stopped before the request was made"


def request_of(run_id: str, work: HttpCall, variables: Mapping[str, str]) -> Request:
    """Return the request with the session's variables in their places."""
    headers = {name: filled(value, variables) for name, value in work.headers.items()}
    return Request(
        url=filled(work.url, variables, in_url=True),
        method=work.method,
        headers={"Idempotency-Key": run_id, **headers},
        body=filled(work.body, variables),
        timeout_s=work.timeout_s,
    )


async def run(run_id: str, request: Request, stop: asyncio.Event, *, may_repeat: bool) -> RunEnded:
    """Make a request; return its end. If it is stopped, what becomes of it cannot be known."""
    if stop.is_set():
        return RunEnded(run_id, Outcome.NOT_STARTED, detail=STOPPED_BEFORE)
    started = now_utc().timestamp()
    answer = await unless(stop, perform(request))
    if answer is None:
        return RunEnded(run_id, Outcome.UNKNOWN, detail=STOPPED)
    return _result(run_id, answer, started, may_repeat=may_repeat)


async def perform(request: Request) -> Answer:
    """Return the answer to a request, whatever comes of it."""
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "futago.jobs.http_call", stdin=PIPE, stdout=PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError as e:
        return Answer(fault=f"no helper process can be started: {e}", was_sent=False)
    try:
        async with asyncio.timeout(request.timeout_s + GRACE_S):
            said, _ = await process.communicate(msgspec.json.encode(request))
        return msgspec.json.decode(said, type=Answer)
    except TimeoutError:
        return Answer(fault=f"no answer within {request.timeout_s:g} s")
    except (OSError, RuntimeError, *UNREADABLE) as e:  # RuntimeError: uvloop, of a process that has died
        return Answer(fault=f"the helper process broke: {e}")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _result(run_id: str, answer: Answer, started: float, *, may_repeat: bool) -> RunEnded:
    ended = now_utc().timestamp()
    silence = Outcome.TIMED_OUT if may_repeat else Outcome.UNKNOWN
    outcome = Outcome.EXITED if answer.status else silence if answer.was_sent else Outcome.NOT_STARTED
    return RunEnded(
        run_id,
        outcome,
        exit_code=answer.status or None,
        started=started,
        ended=ended,
        output=answer.body,
        output_bytes=answer.body_bytes,
        detail=answer.fault[:DETAIL_CHARS_MAX],
    )
