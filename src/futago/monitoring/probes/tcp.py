"""TCP: can a connection to a port be opened?"""

from __future__ import annotations

import asyncio
import errno
import os
from datetime import timedelta

from futago.monitoring.model import Result, Verdict
from futago.runtime.clock import MS, now_at, now_utc

# errors of our own machine: they say nothing about the host
_OURS = {
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.EADDRNOTAVAIL,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.EACCES,
}


async def probe(address: str, port: int, timeout: timedelta) -> Result:  # noqa: ASYNC109  a field of the monitor
    """Open a connection and close it again, `timeout` at most."""
    at_utc, began = now_utc(), now_at()
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            _, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        return Result(
            at_utc, Verdict.FAILED, None, f"port {port}: no answer within {timeout / timedelta(milliseconds=1):g} ms"
        )
    except OSError as e:
        verdict = Verdict.IMPOSSIBLE if e.errno in _OURS else Verdict.FAILED
        return Result(at_utc, verdict, None, f"port {port}: {os.strerror(e.errno) if e.errno else e}")
    value = (now_at() - began) / MS
    writer.transport.abort()
    return Result(at_utc, Verdict.OK, value, f"port {port}: connected in {value:.2f} ms")
