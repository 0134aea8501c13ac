"""Whether this member serves, and the store it serves from.

The role comes from the controller (RoleWatch). While it is primary with an open gate there is a store; at the instant
it is not, the store is gone and every request is refused at once, with the name of the member that serves. So a
request never waits for a database that it may not use.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from futago.access import store as rows
from futago.runtime.clock import now_utc
from futago.runtime.faults import OperatorFault
from futago.runtime.log import Log
from futago.runtime.role import Role, RoleWatch
from futago.setup.settings import Settings, load
from futago.store.commit import Connection, Store
from futago.web import queries
from futago.web.faults import NotServing
from futago.web.model import Health

OpenStore = Callable[[], Awaitable[Store]]


@dataclass(frozen=True, slots=True)
class Serve:
    """What a request works with: the store, and the epoch it goes into."""

    store: Store
    epoch: int


class Serving:
    """Opens the store when this member begins to serve and closes it when it ends.

    Args:
        settings: who we are, and the addresses of the members.
        watch: the controller's role stream; someone else runs it.
        open_store: makes a store (it connects on first use).
    """

    def __init__(self, *, settings: Settings, watch: RoleWatch, open_store: OpenStore, log: Log) -> None:
        self._settings = settings
        self._watch = watch
        self._open_store = open_store
        self._log = log
        self._store: Store | None = None

    @property
    def role(self) -> Role:
        return self._watch.role

    async def changed(self, since: Role) -> Role:
        """Return the role as soon as it differs from `since`."""
        return await self._watch.changed(since)

    def require(self) -> Serve:
        """Return what to serve from.

        Raises:
            NotServing: this member does not serve now.
        """
        role = self._watch.role
        if self._store is None or not role.is_active:
            raise NotServing(
                member=self._settings.me, primary=role.primary, primary_address=self._address(role.primary)
            )
        return Serve(self._store, role.epoch)

    def health(self) -> Health:
        """Return who we are and whether we serve."""
        role = self._watch.role
        return Health(
            member=self._settings.me,
            serving=self._store is not None and role.is_active,
            role=role.role.value,
            epoch=role.epoch,
            primary=role.primary,
            primary_address=self._address(role.primary),
            floating_ip=self._settings.pair.floating_ip.split("/")[0],
        )

    async def run(self) -> None:
        """Follow the role until cancelled."""
        role = self._watch.role
        async with asyncio.TaskGroup() as beside:
            while True:
                if role.is_active and self._store is None:
                    self._store = await self._open_store()
                    self._log.event("web.serving", epoch=role.epoch)
                    beside.create_task(self._store.warm(self._look, name="web.warm"))
                elif not role.is_active and self._store is not None:
                    store, self._store = self._store, None
                    beside.create_task(store.close())  # beside us: the gate may open again at any moment
                    self._log.event("web.not_serving", role=role.role.value, gate=role.gate.value)
                role = await self._watch.changed(role)

    @staticmethod
    async def _look(conn: Connection) -> None:
        """Read what nearly every first request reads, and open what it writes to."""
        await rows.principal_of_token(conn, b"", now_utc())
        await queries.open_tables(conn)

    async def close(self) -> None:
        """Stop serving, for good."""
        store, self._store = self._store, None
        if store is not None:
            await store.close()

    def _address(self, member: str | None) -> str | None:
        """Return where a member is; one that joined after we started stands in the settings file by now."""
        if member is not None and all(m.name != member for m in self._settings.members):
            with contextlib.suppress(OperatorFault):
                self._settings = load()
        return next((m.service for m in self._settings.members if m.name == member), None)
