"""What the manager does itself for a job: which room does which kind, and how many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from futago.jobs import check_run, http_run
from futago.jobs.calls import Errand
from futago.jobs.hub import AgentHub
from futago.jobs.plan import ByManager, CheckOnce, HttpCall, Transfer
from futago.jobs.transfer_run import Carrier, written_out
from futago.jobs.transfer_several import Convoy
from futago.link.orders import RunEnded
from futago.store.commit import Store

PROCESSES_MAX = 8  # helper processes at once: each is about 40 MB
TRANSFERS_MAX = 4  # at once: each holds one piece of a file


class Errands:
    """See the module. Outlives boards, so that the bounds hold."""

    def __init__(self, store: Store, hub: AgentHub) -> None:
        self._store = store
        self._hub = hub
        self._processes = asyncio.Semaphore(PROCESSES_MAX)
        self._transfers = asyncio.Semaphore(TRANSFERS_MAX)

    def of(self, run_id: str, work: ByManager, variables: Mapping[str, str], *, is_resumed: bool = False) -> Errand:
        """Return what is to be done for a run. `is_resumed`: a manager before may have done it, or a part of it."""

        async def errand(stop: asyncio.Event) -> RunEnded:
            match work:
                case HttpCall():
                    async with self._processes:
                        request = http_run.request_of(run_id, work, variables)
                        return await http_run.run(run_id, request, stop, may_repeat=work.may_repeat)
                case CheckOnce():
                    async with self._processes:
                        return await check_run.run(run_id, work, self._store, stop)
                case Transfer():
                    async with self._transfers:
                        ready = written_out(work, variables)
                        carrier = (Convoy if work.files else Carrier)(self._hub, run_id, ready, is_resumed=is_resumed)
                        return await carrier.run(stop)

        return errand
