"""The gate: the one file that lets application roles into the database, and the proof of what it does.

Lives here: closing, opening, and asking PostgreSQL what is true. Must not live here: when. The idea: a door with a
bouncer. Closed means: the list is changed first, then those inside are shown out. Open means: somebody has just
walked in by that door.
"""

from __future__ import annotations

import asyncio
import signal

from futago.cluster import pgconf, pgwire
from futago.cluster.model import Gate
from futago.cluster.pgconf import Layout
from futago.cluster.pgwire import PgConnection, ServerError
from futago.cluster.unit import DeathWatch
from futago.runtime.faults import Refused, Unknown
from futago.runtime.worker import Worker
from futago.setup import files
from futago.setup.settings import Settings

WRITE_S_MAX = 0.5
VERIFY_S_MAX = 1.0
POLL_S = 0.004
REJECTED = "28000"  # invalid_authorization_specification: pg_hba.conf rejects connection
_END_SESSIONS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "  # noqa: S608  our own constant
    f"WHERE usename = {pgwire.literal(pgconf.APP_ROLE)}"
)


class GateKeeper:
    """Writes the file, has it read, and verifies by a new connection as the application role.

    Args:
        system: the thread of the system disk.
        death: the running PostgreSQL.
    """

    def __init__(self, settings: Settings, layout: Layout, *, system: Worker, death: DeathWatch) -> None:
        self.settings = settings
        self._layout = layout
        self._system = system
        self._death = death

    async def write(self, *, gate_open: bool) -> None:
        """Write the file. Raises Refused if the disk refuses, Unknown if it is late."""
        text, ident = pgconf.hba_text(self.settings, gate_open=gate_open), pgconf.ident_text(self.settings)
        owner = files.Owner("root", "postgres")

        def put() -> None:
            # The sync of a disk would be a part of every outage; and every start of PostgreSQL begins by writing them closed.
            files.write(self._layout.ident, ident, mode=0o640, owner=owner, is_durable=False)
            files.write(self._layout.hba, text, mode=0o640, owner=owner, is_durable=False)

        try:
            await self._system.do(put, deadline_s=WRITE_S_MAX)
        except OSError as e:
            raise Refused(f"{self._layout.hba}: {e}") from e

    async def open(self) -> None:
        """Let application roles in; return when one has been let in.

        Raises:
            Refused, Unknown: it may be open; the caller closes it.
        """
        await self.write(gate_open=True)
        await self._await_state(Gate.OPEN)

    async def close(self) -> None:
        """Keep application roles out and end their sessions; return when one is kept out.

        Raises:
            Refused, Unknown: it may still be open; only the death of PostgreSQL closes it surely.
        """
        await self.write(gate_open=False)
        if not self._death.pid:
            return
        await self._await_state(Gate.CLOSED)
        layout = self._layout
        await pgwire.ask(_END_SESSIONS, deadline_s=VERIFY_S_MAX, socket_dir=layout.socket_dir, port=layout.port)

    async def look(self) -> Gate:
        """Ask PostgreSQL itself, by a new connection as the application role."""
        if not self._death.pid:
            return Gate.CLOSED
        try:
            connection = await PgConnection.open(
                user=pgconf.APP_ROLE,
                database=pgconf.APP_DATABASE,
                name="futago-gate",
                deadline_s=VERIFY_S_MAX,
                socket_dir=self._layout.socket_dir,
                port=self._layout.port,
            )
        except ServerError as e:
            return Gate.CLOSED if e.sqlstate == REJECTED else Gate.UNKNOWN
        except (Refused, Unknown):
            return Gate.UNKNOWN
        connection.close()
        return Gate.OPEN

    async def _await_state(self, wanted: Gate) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + VERIFY_S_MAX
        self._death.signal(signal.SIGHUP)
        while (found := await self.look()) is not wanted:
            if loop.time() > ends:
                raise Unknown(f"the gate should be {wanted.value} but is {found.value}")
            await asyncio.sleep(POLL_S)
