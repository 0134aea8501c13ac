"""Which network the write-ahead log takes: the one that works.

Lives here: moving the stream when one of the two networks between the members dies. The idea: a driver who hears on
the radio that the bridge is closed, and turns off before reaching it. PostgreSQL itself finds out after five seconds
that its stream is dead, and until then every commit waits; the heartbeats know after less than one. So the standby is
told to take the other road (a changed connection is taken up at once), and the primary ends the sender that talks
into the dead one, which holds the standby's slot.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable

from futago.cluster import pgwire
from futago.cluster.model import Peer, PgState
from futago.cluster.postgres import Postgres
from futago.runtime.clock import now_at
from futago.runtime.faults import WorldFault

LOOK_S = 0.1
MISSED = 4  # heartbeats unanswered on one network, while the other answers
_END_SENDERS = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_replication WHERE client_addr = {address}::inet"


class WalPath:
    """Watches the links and keeps the stream on one that works.

    Args:
        peer: returns the fact about the other member.
    """

    def __init__(self, postgres: Postgres, *, peer: Callable[[], Peer]) -> None:
        self._postgres, self._board, self._log, self._peer = postgres, postgres.board, postgres.log, peer
        self._is_dead = {"service": False, "heartbeat": False}

    async def run(self) -> None:
        """Look for ever."""
        while True:
            for name in self.newly_dead():
                with contextlib.suppress(WorldFault):
                    await self._leave(name)
            await asyncio.sleep(LOOK_S)

    def newly_dead(self) -> list[str]:
        """Return the links that have just died while the other one lives."""
        now, limit = now_at(), MISSED * self._board.cfg.h
        fresh = {x.name: x.echo_at is not None and now - x.echo_at < limit for x in self._peer().links}
        found = []
        for name in self._is_dead:
            is_dead = not fresh.get(name, True) and any(fresh.values())
            if is_dead and not self._is_dead[name]:
                found.append(name)
            self._is_dead[name] = is_dead
        return found

    async def _leave(self, name: str) -> None:
        """Take the stream off this network, on whichever side we are."""
        postgres, peer = self._postgres, self._postgres.settings.peer
        if peer is None or peer.service == peer.heartbeat:
            return
        state = self._board.pg.state
        self._log.warning("wal.leaves-network", network=name, pg=state.value)
        postgres.wal_avoids = name
        if state is PgState.STANDBY:
            await postgres.write_conf(enforced=False)
            postgres.death.signal(signal.SIGHUP)
        elif state is PgState.PRIMARY:
            dead = peer.service if name == "service" else peer.heartbeat
            await postgres.ask(_END_SENDERS.format(address=pgwire.literal(dead)), deadline_s=1.0)
