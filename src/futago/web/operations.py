"""Switchover and recovery, asked for by a person or a program, followed while they run.

One at a time. The request is in the audit trail before the controller hears of it, since the controller may well end
our own service (a switchover does). The progress is kept here for the stream and the page; it is lost when this
member stops to serve, and the pair's status tells the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from futago.access import store as rows
from futago.access.model import Principal
from futago.runtime.clock import now_utc
from futago.runtime.faults import FutagoFault, OperatorFault, Refused, Unknown
from futago.runtime.log import Log
from futago.store.commit import Connection
from futago.web.controller_link import ControllerLink, Operation
from futago.web.faults import body_of, conflict
from futago.web.model import OperationState, OperationStatus
from futago.web.serving import Serving

FIRST_WORD_S = 1.0  # a refusal comes at once; whatever takes longer has begun
PROGRESS_MAX = 50


class Operations:
    """Starts operations and knows how far the present one is.

    Args:
        publish: called at every change of `present`.
    """

    def __init__(self, *, serving: Serving, controller: ControllerLink, log: Log) -> None:
        self._serving = serving
        self._controller = controller
        self._log = log
        self._asked: asyncio.Queue[Operation] = asyncio.Queue(maxsize=1)
        self._settled = asyncio.Event()
        self.present: OperationStatus | None = None
        self.publish: Callable[[OperationStatus], None] = lambda _status: None

    async def start(self, operation: Operation, who: Principal) -> OperationStatus:
        """Ask for `operation`; return how far it is after a moment.

        Raises:
            HttpFault: 409, another one is running.
            OperatorFault: the controller refused.
            WorldFault: it could not be asked.
        """
        if self.present is not None and self.present.state is OperationState.RUNNING:
            raise conflict(
                f"A {self.present.operation} is already running.",
                hint="Wait for it to end.",
                code="pair.operation-running",
            )
        begun = OperationStatus(
            operation=operation.value, state=OperationState.RUNNING, by=who.account, since_utc=now_utc()
        )
        previous, self.present = self.present, begun  # taken before the first await: nobody else gets in
        try:
            await self._record(operation, who)
        except BaseException:
            self.present = previous
            raise
        self._settled.clear()
        self._set(begun)
        self._asked.put_nowait(operation)
        try:
            async with asyncio.timeout(FIRST_WORD_S):
                await self._settled.wait()
        except TimeoutError:
            return self.present
        if self.present.state is OperationState.REFUSED:
            raise OperatorFault(self.present.error, hint=self.present.hint, code="pair.refused")
        return self.present

    async def _record(self, operation: Operation, who: Principal) -> None:
        async def work(conn: Connection) -> None:
            await rows.record(conn, who, rows.Deed(f"pair.{operation.value}"))

        await self._serving.require().store.commit(work, name="web.audit")

    async def run(self) -> None:
        """Carry out what is asked for, until cancelled."""
        while True:
            operation = await self._asked.get()
            await self._carry_out(operation)
            self._settled.set()

    async def _carry_out(self, operation: Operation) -> None:
        state, error, hint = OperationState.DONE, "", ""
        try:
            async for line in self._controller.operate(operation):
                self._progress(line)
        except FutagoFault as fault:
            state = OperationState.UNKNOWN if isinstance(fault, Unknown) else OperationState.REFUSED
            body = body_of(fault)
            plain = isinstance(fault, OperatorFault | Refused)
            error, hint = (
                (body.error, body.hint) if plain else (str(fault), "The pair's status shows what became of it.")
            )
        self._log.event("web.operation", operation=operation.value, state=state.value, error=error)
        if self.present is not None:
            self._set(self.present.model_copy(update={"state": state, "error": error, "hint": hint}))

    def _progress(self, line: str) -> None:
        if self.present is not None:
            lines = [*self.present.progress, line][-PROGRESS_MAX:]
            self._set(self.present.model_copy(update={"progress": lines}))

    def _set(self, status: OperationStatus) -> None:
        self.present = status
        self.publish(status)
