"""One check of one host, now: `python -m futago.monitoring.once`. What to check comes as JSON on standard input, what was
found goes as JSON to standard output.

A program of its own, so that other columns can have a host checked by the probes that monitoring uses. It changes no
status and writes no row; `failures` of the monitor, which counts checks in a row, means nothing here.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec
from pydantic import TypeAdapter, ValidationError

from futago.inventory.model import PingMonitor, PollingMonitor, TcpMonitor
from futago.monitoring.model import Check, Ping, Result, Tcp
from futago.monitoring.probes import tcp
from futago.monitoring.probes.ping import Pinger
from futago.monitoring.store import check_of

_SPEC: TypeAdapter[PingMonitor | TcpMonitor] = TypeAdapter(PollingMonitor)


class Asked(msgspec.Struct, frozen=True):
    """`spec`: the monitor's object."""

    spec: dict[str, object]
    host: str
    address: str


async def probe(check: Check) -> Result:
    """Check once."""
    match check.probe:
        case Ping():
            pinger = Pinger()
            try:
                return await pinger.ping(check.address, check.timeout)
            finally:
                pinger.close()
        case Tcp(port=port):
            return await tcp.probe(check.address, port, check.timeout)


def look(asked: Asked) -> dict[str, str]:
    """Return what is found: the verdict and a sentence; `refused`: the monitor is none that asks hosts."""
    try:
        spec = _SPEC.validate_python(asked.spec)
    except ValidationError:
        kind = asked.spec.get("check")
        return {"verdict": "refused", "text": f"a monitor of kind `{kind}` asks no host: it cannot be run as a job"}
    result = asyncio.run(probe(check_of(spec, host=asked.host, address=asked.address)))
    return {"verdict": str(result.verdict), "text": f"{asked.host} ({asked.address}): {result.text}"}


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(look(msgspec.json.decode(sys.stdin.buffer.read(), type=Asked))))
