"""The care of kept messages, beside the intake: index what is closed, drop what is too old or too much; and the texts of
events likewise.

One step, one transaction; a step that fails is tried again at the next round. A member that becomes primary goes on with
what the rows say.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from futago.intake import event_text, kept
from futago.intake.options import Messages, OptionsWatch
from futago.runtime.clock import now_utc
from futago.runtime.engine import EngineContext
from futago.runtime.faults import WorldFault
from futago.store.commit import Connection

ROUND_S = 5.0
INDEX_S = 300.0  # 50,000 messages take some seconds; on a machine without a core to spare a minute
DROP_S = 15.0


class Keeper:
    """Takes care until it is cancelled.

    Args:
        context: the engine's world.
        options: how long and how many.
    """

    def __init__(self, context: EngineContext, options: OptionsWatch) -> None:
        self._store = context.store
        self._log = context.log
        self._options = options
        self._full: event_text.Range | None = None  # events that become a segment when their writers have ended

    async def run(self) -> None:
        """One round after another."""
        while True:
            await asyncio.sleep(ROUND_S)
            try:
                while await self.step(self._options.current.messages) or await self.step_events():
                    pass
            except WorldFault as e:
                self._log.warning("intake.kept_put_off", error=str(e))

    async def step(self, wanted: Messages) -> bool:
        """Do the most urgent thing; return whether there was one."""
        now = now_utc()

        async def look(conn: Connection) -> list[kept.Segment]:
            return await kept.load_segments(conn)

        segments = await self._store.read(look, name="intake.segments")
        oldest = now - timedelta(days=wanted.days)
        if any(not one.is_closed and one.day < now.date() for one in segments):
            await self._commit(lambda conn: kept.close_old(conn, now.date()), "intake.segment_closed", DROP_S)
            return True
        gone = kept.surplus(segments, rows_max=wanted.rows, oldest_utc=oldest)
        if gone is not None:
            await self._commit(lambda conn: kept.drop(conn, gone.segment), "intake.segment_dropped", DROP_S)
            self._log.event("intake.segment_dropped", segment=gone.segment, rows=gone.rows)
            return True
        # The newest first: it is what people search in.
        bare = next((one for one in reversed(segments) if one.is_closed and not one.is_indexed), None)
        if bare is not None:
            await self._commit(lambda conn: kept.index(conn, bare.segment), "intake.segment_indexed", INDEX_S)
            return True
        return False

    async def step_events(self) -> bool:
        """Index the texts of a range of events, or forget one; return whether there was one."""
        if self._full is None:
            gone = await self._store.read(event_text.emptied, name="intake.event_text")
            if gone is not None:
                await self._commit(lambda conn: event_text.drop(conn, gone), "intake.event_text_dropped", DROP_S)
                return True
            self._full = await self._store.read(event_text.full_range, name="intake.event_text")
        full = self._full
        if full is None or full.writers & await self._store.read(event_text.writers, name="intake.event_writers"):
            return False
        self._full = None
        await self._commit(lambda conn: event_text.close(conn, full), "intake.event_text_indexed", INDEX_S)
        return True

    async def _commit(self, work: kept.Step, name: str, deadline_s: float) -> None:
        await self._store.commit(work, name=name, deadline_s=deadline_s)
