"""`futago agent run`: the program on a managed host. It keeps runs, talks to both members, and sits as a juror.

Light: the standard library, uvloop and msgspec. It may be killed, restarted or upgraded at any time; runs go on (the unit
has KillMode=process) and the next agent adopts them.
"""

from __future__ import annotations

import asyncio
import resource
import ssl
import sys
from pathlib import Path

from futago import __version__
from futago.agent.carry import FileCarrier
from futago.agent.epoch import EpochFence
from futago.agent.juror import Juror
from futago.agent.ledger import LEDGER_FILE
from futago.agent.members import MemberBook
from futago.agent.records import Records
from futago.agent.runs import RunKeeper
from futago.agent.session import Me, MemberLink
from futago.link import tls
from futago.runtime import service
from futago.runtime.clock import boot_id
from futago.runtime.faults import Corrupt, FutagoFault, OperatorFault
from futago.runtime.log import Log
from futago.setup import paths, settings

EPOCH_FILE = "epoch.slots"
JUROR_FILE = "juror.slots"
CARRIED = "carried"
MEMBERS_FILE = "members.json"
COMMAND_NOFILE = 1024  # the soft limit that Linux programs are used to
EXIT_BROKEN = 1
EXIT_OPERATOR = 2


def main() -> int:
    """Run the agent until SIGTERM; return its exit code."""
    try:
        own = settings.load_agent()
        return service.run(lambda stop: _serve(own, stop))
    except FutagoFault as e:
        sys.stderr.write(f"{e}\n")
        return EXIT_OPERATOR if isinstance(e, OperatorFault) else EXIT_BROKEN


async def _serve(own: settings.AgentSettings, stop: asyncio.Event) -> int:
    log = Log(program="agent", host=own.name)
    boot = boot_id()
    nofile_soft = _raise_descriptors()
    fence = _fence(paths.AGENT_VAR / EPOCH_FILE)
    keeper = RunKeeper(Records(paths.AGENT_VAR, boot=boot), boot=boot, log=log, nofile_soft=nofile_soft)
    await _load(keeper)
    me = Me(name=own.name, pair_id=own.pair_id, boot=boot, version=__version__, context=_client_context())

    carrier = FileCarrier(paths.AGENT_VAR / CARRIED, log=log)

    def make_link(address: str) -> MemberLink:
        return MemberLink(address, me=me, keeper=keeper, fence=fence, log=log, on_members=book.learn, carrier=carrier)

    book = MemberBook(paths.AGENT_VAR / MEMBERS_FILE, enrolled=own.members, make_link=make_link, log=log)
    juror = Juror(paths.AGENT_VAR / JUROR_FILE, own=own, context=tls.server_context(), log=log)

    def offer(run_id: str) -> None:
        for link in book.links:
            link.offer(run_id)

    keeper.on_ended = offer
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(keeper.run()), group.create_task(juror.run())]
        tasks += [group.create_task(book.run()), group.create_task(carrier.run())]
        log.event(
            "agent.started", boot=boot, epoch=fence.highest, open_runs=len(keeper.open_ids), members=book.addresses
        )
        service.notify_ready(f"{len(keeper.open_ids)} open runs")
        await stop.wait()
        for task in tasks:
            task.cancel()
    log.event("agent.stopped", open_runs=len(keeper.open_ids))
    return 0


async def _load(keeper: RunKeeper) -> None:
    try:
        await keeper.load()
    except Corrupt as e:
        raise OperatorFault(
            f"{e}. The agent cannot know which runs this host has taken.",
            hint=f"Look at what runs here, remove {paths.AGENT_VAR / LEDGER_FILE} and restart futago-agent.",
            code="agent.ledger-corrupt",
        ) from e


def _fence(where: Path) -> EpochFence:
    """Return the fence as it lies on the disk.

    Raises:
        OperatorFault: it is damaged; going on without it could obey a stale member.
    """
    try:
        where.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fence = EpochFence(where)
        fence.load()
    except Corrupt as e:
        raise OperatorFault(
            f"{e}. The agent cannot know which member to obey.",
            hint=f"Make sure that `futago status` shows one primary, remove {where} and restart futago-agent.",
            code="agent.epoch-corrupt",
        ) from e
    except OSError as e:
        raise OperatorFault(
            f"{where.parent} cannot be made: {e}.", hint="Run the agent as root.", code="agent.var"
        ) from e
    return fence


def _client_context() -> ssl.SSLContext:
    try:
        return tls.client_context()
    except OSError as e:
        raise OperatorFault(
            f"The certificate of this host cannot be loaded: {e}.",
            hint="Run `futago agent enroll` here.",
            code="agent.certificate",
        ) from e


def _raise_descriptors() -> int:
    """Let the agent hold one descriptor per run; return the soft limit that commands shall have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(soft, COMMAND_NOFILE)
