"""`futago jury set` and `show`: who sits in the third vote.

Here the jurors are looked up and each is asked, over the pair's own TLS, whether it can vote; the seating itself is a
change of view and belongs to the controller.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from collections.abc import Sequence
from typing import Any

from futago.link import tls
from futago.link.frames import FrameStream
from futago.link.jurors import FRAME_BYTES_MAX, Identified, Identify
from futago.runtime.clock import S, now_at
from futago.runtime.faults import FutagoFault, OperatorFault, Refused, RemoteProtocolFault
from futago.setup import control, paths, settings
from futago.setup.install import Say
from futago.setup.settings import Juror, Settings

SIZES = (3, 5)
ANSWER_S_MAX = 5.0
SEAT_S_MAX = 30.0
RECORDED_S_MAX = 5.0
POLL_S = 0.3


def seat(names: Sequence[str], *, say: Say) -> None:
    """Seat these agents as the pair's jury. A name may be written as name=address where the pair has no record of it.

    Raises:
        OperatorFault: wrong number, unknown or silent jurors, or the controller refused.
        Refused: no controller answers here.
    """
    own = settings.load()
    check_names(own, names)
    jurors = find(names)
    say(f"asking {', '.join(j.name for j in jurors)}")
    asyncio.run(ask_each(own, jurors))
    say("all answer and can vote; seating them")
    rows = [{"name": j.name, "address": j.address, "port": j.port} for j in jurors]
    control.ask("jury", jurors=rows, deadline_s=SEAT_S_MAX, on_progress=say)


def show() -> dict[str, Any]:
    """Return the controller's account of the third vote, as in the status. Raises Refused."""
    vote = control.ask("status")["status"].get("third_vote")
    return vote if isinstance(vote, dict) else {}


def check_names(own: Settings, names: Sequence[str]) -> None:
    """The right number of different hosts, none of them a member. Raises OperatorFault."""
    bare = [name.partition("=")[0] for name in names]
    why = "A majority of a fixed, odd number decides; more than five only slows it."
    if len(bare) not in SIZES:
        raise OperatorFault(f"A jury has 3 or 5 jurors, not {len(bare)}.", hint=why, code="jury.size")
    check_bare(bare, own)


def check_bare(bare: Sequence[str], own: Settings) -> None:
    """Different hosts, none of them a member. Raises OperatorFault."""
    twice = sorted({name for name in bare if bare.count(name) > 1})
    if twice:
        raise OperatorFault(f"Named twice: {', '.join(twice)}.", hint="Name each once.", code="jury.size")
    for name in bare:
        settings.check_name(name, what="A juror")
        if name in {m.name for m in own.members}:
            raise OperatorFault(
                f"{name} is a member; a juror must be a third machine.", hint="Name agents.", code="jury.member"
            )


def find(names: Sequence[str]) -> list[Juror]:
    """Return the jurors with their addresses: those given, else those under which the pair knows its agents. Raises
    OperatorFault.
    """
    unknown = [name for name in names if "=" not in name]
    known = _wait_recorded(unknown)
    found = []
    for name, _, given in (n.partition("=") for n in names):
        address = given or known.get(name, "")
        if not address:
            raise OperatorFault(
                f"The pair knows no agent `{name}`.",
                hint=f"Run `futago agent enroll` on it first, or write {name}=ADDRESS.",
                code="jury.unknown",
            )
        try:
            found.append(Juror(name, str(ipaddress.ip_address(address))))
        except ValueError as e:
            raise OperatorFault(
                f"`{address}` is not an address.", hint="Write name=192.0.2.21.", code="jury.unknown"
            ) from e
    if len({j.address for j in found}) != len(found):
        raise OperatorFault(
            "Two jurors have the same address.", hint="Each must be a machine of its own.", code="jury.size"
        )
    return found


def _wait_recorded(names: Sequence[str]) -> dict[str, str]:
    """Return the addresses on record; an agent that has only just connected is on record within seconds."""
    end_at = now_at() + int(RECORDED_S_MAX * S)
    known: dict[str, str] = {}
    while names:
        known = asyncio.run(_recorded(names))
        if len(known) == len(names) or now_at() > end_at:
            break
        time.sleep(POLL_S)
    return known


async def _recorded(names: Sequence[str]) -> dict[str, str]:
    """Return the addresses of those names that are enrolled agents, from the pair's records on this member.

    Raises:
        OperatorFault: the database on this member does not answer.
    """
    from futago.store.commit import Connection, Store

    async def work(connection: Connection) -> dict[str, str]:
        sql = (
            "SELECT host_name, host(address) FROM host WHERE host_name = ANY(%s) AND has_agent AND address IS NOT NULL"
        )
        rows = await (await connection.execute(sql, (list(names),))).fetchall()
        return {str(row[0]): str(row[1]) for row in rows}

    user = f"host={paths.PG_SOCKET_DIR} port={paths.PORT_POSTGRES} dbname=futago user=postgres connect_timeout=2"
    try:
        store = await Store.open(conninfo=user, size_max=1, application_name="futago-jury")
        try:
            return await store.read(work, name="jury.find")
        finally:
            await store.close()
    except Refused as e:
        raise OperatorFault(
            f"The pair's records cannot be read on this member: {e}.",
            hint="Write name=ADDRESS for each juror.",
            code="jury.records",
        ) from e


async def ask_each(own: Settings, jurors: Sequence[Juror]) -> None:
    """Ask every juror whether it can vote.

    Raises:
        OperatorFault: naming each that cannot, and why.
    """
    context = tls.client_context()
    async with asyncio.TaskGroup() as group:
        asked = {juror: group.create_task(_problem(own, juror, context)) for juror in jurors}
    problems = [f"{j.name} ({j.address}): {task.result()}" for j, task in asked.items() if task.result()]
    if problems:
        raise OperatorFault(
            f"Not every juror can vote: {'; '.join(problems)}. Nothing has been changed.",
            hint=f"Its agent must run, and both members must reach its TCP port {paths.PORT_JUROR}.",
            code="jury.silent",
        )


async def _problem(own: Settings, juror: Juror, context: ssl.SSLContext) -> str:
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            reader, writer = await asyncio.open_connection(juror.address, juror.port, ssl=context)
            try:
                tls.require(writer, pair_id=own.pair.id, kind="agent", name=juror.name)
                stream: FrameStream[Identified] = FrameStream(
                    reader, writer, Identified, frame_bytes_max=FRAME_BYTES_MAX
                )
                await stream.send(Identify(serial=1))
                answer = await stream.receive()
            finally:
                writer.transport.abort()
    except TimeoutError:
        return f"no answer within {ANSWER_S_MAX:g} s"
    except RemoteProtocolFault as e:
        return str(e)
    except (OSError, EOFError, FutagoFault) as e:
        return str(e) or type(e).__name__
    return "" if answer.acceptor_id else "its vote file is damaged"
