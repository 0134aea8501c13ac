"""Simulated clients: writers that remember what was acknowledged.

A writer goes to whoever answers for the floating address; a stray one tries any member. It reads before it writes, so that everything visible
counts as shown. It gives up after a while without ever cancelling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from futago.cluster.model import PgState
from futago.sim.engine import MS, S

if TYPE_CHECKING:
    from futago.sim.member import SimMember
    from futago.sim.world import World

PATIENCE_NS = 3 * S


class Writer:
    """One client that writes numbered rows."""

    def __init__(self, world: World, name: str, *, is_stray: bool) -> None:
        self.world = world
        self.engine = world.engine
        self.name = name
        self.is_stray = is_stray
        self._session: tuple[SimMember, int, int] | None = None
        self._attempt = 0
        self.acked_at = 0
        self.engine.after(self.engine.between(0, S), self.write)

    def _next(self, delay: int) -> None:
        self.engine.after(delay, self.write)

    def write(self) -> None:
        """Try one commit."""
        if self.world.is_over:
            return
        member = self._find()
        if member is None:
            self._next(200 * MS)
            return
        self.world.checker.on_read(member)
        self._attempt += 1
        attempt = self._attempt
        number = self.world.next_number()
        db = member.db
        instance = db.instance
        wait = max(0, db.disk_free_at - self.engine.now) + MS + db.disk_slow_ns

        def append() -> None:
            if db.instance != instance or not db.is_primary or member.frozen_at is not None:
                ended(None)
                return
            db.commit(number, ended)

        def ended(ok: bool | None) -> None:
            if ok:
                self.world.checker.on_ack(member, number)
                self.acked_at = self.engine.now
            if attempt == self._attempt:
                self._attempt += 1
                if not ok:
                    self._session = None
                self._next(self.engine.between(150 * MS, 700 * MS))

        def give_up() -> None:
            if attempt == self._attempt:
                self._attempt += 1
                self._session = None
                self._next(100 * MS)

        self.engine.after(wait, append)
        self.engine.after(PATIENCE_NS, give_up)

    def _find(self) -> SimMember | None:
        """The member to write to: the present session's, or a new one."""
        session = self._session
        if session is not None:
            m, instance, sessions = session
            if m.db.instance == instance and m.db.sessions_instance == sessions and m.is_reached_by_clients():
                return m if m.db.is_primary else None
            self._session = None
        members = [m for m in self.world.members if m.is_reached_by_clients() and (self.is_stray or m.address)]
        if not members:
            return None
        m = members[0] if len(members) == 1 else self.engine.random.choice(members)
        if not (m.gate_open and m.db.state is PgState.PRIMARY):
            return None
        self._session = (m, m.db.instance, m.db.sessions_instance)
        return m
