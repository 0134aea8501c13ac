"""HTTP jobs: the manager's own runs. Each request is made by a helper process with a deadline.

A request begins only once `running` is committed. A manager that finds a running request it did not make itself (a
switch came between) makes it again if the job allows it; else nobody can know what became of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping

import msgspec

from futago.jobs.http_call import Answer, Request
from futago.jobs.parameters import filled
from futago.jobs.plan import HttpCall
from futago.link.orders import DETAIL_CHARS_MAX, Outcome, RunEnded
from futago.runtime.clock import now_utc
from futago.runtime.unreadable import UNREADABLE

CALLS_MAX = 8  # at once: each is a process of about 40 MB
GRACE_S = 5.0  # beyond the request's own time-out, for the start of the process
INTERRUPTED = "the manager changed while the request was under way"
STOPPED = "stopped while the request was under way"


def request_of(work: HttpCall, variables: Mapping[str, str]) -> Request:
    """Return the request with the session's variables in their places."""
    return Request(
        url=filled(work.url, variables, in_url=True),
        method=work.method,
        headers={name: filled(value, variables) for name, value in work.headers.items()},
        body=filled(work.body, variables),
        timeout_s=work.timeout_s,
    )


class Calls:
    """The requests of this process: under way, or ended and not committed. They outlive a board that was thrown away.

    `news` is set when one has ended: its end stands in `ended` until `forget`.
    """

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.ended: dict[str, RunEnded] = {}
        self._stops: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(CALLS_MAX)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._stops or run_id in self.ended

    def begin(self, run_id: str, request: Request) -> None:
        """Make a request, unless it is known."""
        if run_id in self:
            return
        request = msgspec.structs.replace(request, headers={"Idempotency-Key": run_id, **request.headers})
        self._stops[run_id] = asyncio.Event()
        task = asyncio.get_running_loop().create_task(self._make(run_id, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def end(self, said: RunEnded) -> None:
        """A request has ended so, or nobody knows what became of it."""
        self._stops.pop(said.run_id, None)
        self.ended[said.run_id] = said
        self.news.set()

    def forget(self, run_id: str) -> None:
        """The end is committed."""
        self.ended.pop(run_id, None)

    def stop(self, run_id: str) -> None:
        """End a request; what becomes of it cannot be known."""
        if run_id in self._stops:
            self._stops[run_id].set()

    async def close(self) -> None:
        """End everything that is under way."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _make(self, run_id: str, request: Request) -> None:
        async with self._places:
            started = now_utc().timestamp()
            waits = {
                asyncio.ensure_future(perform(request)),
                asyncio.ensure_future(self._stops[run_id].wait()),
            }
            try:
                done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in waits:
                    one.cancel()
                await asyncio.wait(waits)
            answer = next((r for t in done if isinstance(r := t.result(), Answer)), None)
            self.end(_result(run_id, answer, started) if answer else RunEnded(run_id, Outcome.UNKNOWN, detail=STOPPED))


async def perform(request: Request) -> Answer:
    """Return the answer to a request, whatever comes of it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "futago.jobs.http_call", stdin=PIPE, stdout=PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(request.timeout_s + GRACE_S):
            said, _ = await process.communicate(msgspec.json.encode(request))
        return msgspec.json.decode(said, type=Answer)
    except TimeoutError:
        return Answer(fault=f"no answer within {request.timeout_s:g} s")
    except (OSError, *UNREADABLE) as e:
        return Answer(fault=f"the helper process broke: {e}")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _result(run_id: str, answer: Answer, started: float) -> RunEnded:
    ended = now_utc().timestamp()
    no_answer = Outcome.TIMED_OUT if answer.was_sent else Outcome.NOT_STARTED
    outcome = Outcome.EXITED if answer.status else no_answer
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
