"""The loop of notification: events become entries of the outbox, entries are claimed, sent, marked.

Claim and mark are commits around the one act that cannot be taken back. So whatever dies in between leaves a
claimed row, and whoever comes next sends it again and says so on it. Each notification sends one entry at a time,
the oldest first, so that "ok again" does not overtake "critical".
"""

from __future__ import annotations

import asyncio
import secrets

from futago.notify import store as rows
from futago.notify.channels import mail
from futago.notify.model import Entry, OutboxState, Outcome
from futago.notify.retry import after_failure
from futago.runtime.engine import EngineContext
from futago.runtime.faults import Refused, Unknown, WorldFault
from futago.store.commit import Connection

POLL_S = 0.2
AGAIN_S = 0.1  # after the database refused
DEADLINE_S = 10.0


class OutboxEngine:
    """See the module."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._me = secrets.token_hex(8)  # this run: what another run has claimed is nobody's any more
        self._busy: dict[str, Entry] = {}
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._select())
            group.create_task(self._deliver(group))

    async def _select(self) -> None:
        while True:
            self._context.beat("notify")
            made = 0
            try:
                made = await self._context.store.commit(rows.select_events, name="notify.select", deadline_s=DEADLINE_S)
            except WorldFault as e:
                self._context.log.warning("notify.select", error=str(e))
            if made:
                self._woken.set()
            else:
                await asyncio.sleep(POLL_S)

    async def _deliver(self, group: asyncio.TaskGroup) -> None:
        while True:
            await self._context.outward.wait()
            self._woken.clear()
            for entry in await self._claim():
                self._busy[entry.notification] = entry
                group.create_task(self._one(entry))
            try:
                async with asyncio.timeout(POLL_S):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def _claim(self) -> list[Entry]:
        async def work(conn: Connection) -> list[Entry]:
            return await rows.claim(conn, me=self._me, epoch=self._context.epoch, busy=self._busy)

        try:
            return await self._context.store.commit(work, name="notify.claim", deadline_s=DEADLINE_S)
        except WorldFault as e:  # in doubt: nothing has been sent, and the next claim finds the rows as ours
            self._context.log.warning("notify.claim", error=str(e))
            return []

    async def _one(self, entry: Entry) -> None:
        try:
            await self._context.outward.wait()  # it may have been taken back since the claim
            outcome = await self._send(entry)
            self._context.log.event(
                "notify.outcome", outbox_id=entry.outbox_id, event_id=entry.event.event_id, notification=entry.notification,
                state=outcome.state, attempts=entry.attempts, duplicate=entry.possible_duplicate, error=outcome.error,
            )  # fmt: skip
            await self._mark(entry, outcome)
        finally:
            del self._busy[entry.notification]
            self._woken.set()

    async def _send(self, entry: Entry) -> Outcome:
        if entry.by is None:
            return Outcome(OutboxState.FAILED, entry.problem)
        pair = self._context.settings.pair
        try:
            data = mail.compose(entry, entry.by, pair_name=pair.name, pair_id=pair.id, epoch=self._context.epoch)
        except (ValueError, LookupError) as e:  # a text that no mail can carry: trying again would not help
            return Outcome(OutboxState.FAILED, f"cannot be written as a mail: {e}")
        try:
            note = await mail.send(data, entry.by, own_name=self._context.settings.me)
            return Outcome(OutboxState.SENT, note)
        except (Refused, Unknown) as e:
            return after_failure(
                entry.attempts,
                str(e),
                is_unknown=isinstance(e, Unknown),
                was_possible_duplicate=entry.possible_duplicate,
            )

    async def _mark(self, entry: Entry, outcome: Outcome) -> None:
        """Write the outcome until it is certain: the sending cannot be taken back."""

        async def work(conn: Connection) -> None:
            await rows.mark(conn, entry.outbox_id, outcome, me=self._me)

        while True:
            try:
                return await self._context.store.commit(work, name="notify.mark", deadline_s=DEADLINE_S)
            except WorldFault as e:
                self._context.log.warning("notify.mark", error=str(e), outbox_id=entry.outbox_id)
                await asyncio.sleep(AGAIN_S)
