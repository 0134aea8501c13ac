"""`futago run witness`: a juror and nothing else, for a machine that shall hold the third vote and run no jobs (a NAS, a
small virtual machine, a router with a Linux). It is enrolled as an agent is, with `futago agent enroll --witness`.

The acceptor, its file and its port are those of an agent (agent/juror.py): a pair that names one host as its witness has
a jury of one. So an agent can be the witness, and a witness can sit in a jury. Light: the standard library, uvloop and
msgspec.
"""

from __future__ import annotations

import asyncio
import sys

from futago.agent.juror import Juror
from futago.agent.main import EXIT_BROKEN, EXIT_OPERATOR, JUROR_FILE
from futago.link import tls
from futago.runtime import service
from futago.runtime.faults import FutagoFault, OperatorFault
from futago.runtime.log import Log
from futago.setup import paths, settings

READY = "listening"  # what it tells systemd once it can be asked
POLL_S = 0.05


def main() -> int:
    """Run the witness until SIGTERM; return its exit code."""
    try:
        own = settings.load_agent()
        return service.run(lambda stop: _serve(own, stop))
    except FutagoFault as e:
        sys.stderr.write(f"{e}\n")
        return EXIT_OPERATOR if isinstance(e, OperatorFault) else EXIT_BROKEN


async def _serve(own: settings.AgentSettings, stop: asyncio.Event) -> int:
    log = Log(program="witness", host=own.name)
    try:
        context = tls.server_context()
        paths.AGENT_VAR.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as e:
        raise OperatorFault(
            f"The certificate or the directory of this witness cannot be used: {e}.",
            hint="Run `futago agent enroll --witness` here.",
            code="agent.certificate",
        ) from e
    juror = Juror(paths.AGENT_VAR / JUROR_FILE, own=own, context=context, log=log)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(juror.run())
        telling = group.create_task(_tell_ready(juror))
        await stop.wait()
        running.cancel()
        telling.cancel()
    log.event("witness.stopped", answered=juror.acceptor.counters.answered)
    return 0


async def _tell_ready(juror: Juror) -> None:
    await juror.listening.wait()
    service.notify_ready(READY if juror.acceptor.acceptor_id else f"{READY}, but its vote file is damaged")
