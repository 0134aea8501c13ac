"""The conversation of an agent with one member, and the loop that keeps it up.

The agent talks to every member all the time, so that after a switch nothing has to be set up; but it obeys only one:
a session that declared itself active in an epoch not lower than any this agent was ever told of. Everything else is
refused and counted. A lost session harms no run.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from futago.agent.carry import FileCarrier
from futago.agent.epoch import EpochFence
from futago.agent.held import Phase
from futago.agent.runs import RunKeeper
from futago.link import tls
from futago.link.files import FileAnswer, FileStep, Trouble
from futago.link.frames import FrameStream
from futago.link.orders import (
    ASK_RUNS_MAX,
    BEAT_S,
    FRAME_BYTES_MAX,
    RECONNECT_S_MAX,
    SILENCE_S,
    WELCOME_S,
    Ask,
    Beat,
    Committed,
    FromManager,
    Hello,
    Order,
    OrderTaken,
    ReadOutput,
    RefusalReason,
    Refused,
    RoleChanged,
    RunsReport,
    Stop,
    Welcome,
)
from futago.runtime import service
from futago.runtime.apart import apart
from futago.runtime.cancel import heed_cancellation
from futago.runtime.faults import RemoteProtocolFault, WorldFault
from futago.runtime.log import Log
from futago.setup import paths

READS_MAX = 64  # outputs somebody wants to look at, and not answered yet
STEPS_MAX = 64  # steps of file transfers that are not done; a manager sends one a file at a time
CARRIERS = 8  # steps at once
RECONNECT_S_MIN = 0.05
RECONNECT_S_STEP = 0.2


@dataclass(frozen=True, slots=True)
class Me:
    """What an agent says of itself. `context` holds its certificate."""

    name: str
    pair_id: str
    boot: str
    version: str
    context: ssl.SSLContext


@dataclass(slots=True)
class Counters:
    """Since this agent process started."""

    connected: int = 0
    strangers: int = 0  # whoever answered was not a member of our pair
    stale_orders: int = 0
    stale_commits: int = 0
    delivered: int = 0


class Session:
    """One connection to one member, from Hello to its end."""

    def __init__(
        self,
        stream: FrameStream[FromManager],
        *,
        me: Me,
        keeper: RunKeeper,
        fence: EpochFence,
        counters: Counters,
        on_members: Callable[[Sequence[str]], None],
        log: Log,
        carrier: FileCarrier | None = None,
    ) -> None:
        self._carrier = carrier
        self._steps: asyncio.Queue[FileStep] = asyncio.Queue(maxsize=STEPS_MAX)
        self._on_members = on_members
        self._stream = stream
        self._me = me
        self._keeper = keeper
        self._fence = fence
        self._counters = counters
        self._log = log
        self._epoch = -1
        self._is_active = False
        self._to_deliver: dict[str, None] = {}
        self._news = asyncio.Event()
        self._reads: asyncio.Queue[ReadOutput] = asyncio.Queue(maxsize=READS_MAX)

    @property
    def is_obeyed(self) -> bool:
        """Whether this member may give orders at this instant."""
        return self._is_active and self._fence.admits(self._epoch)

    def offer(self, run_id: str) -> None:
        """A run has ended: deliver its result, if this is the member to deliver it to."""
        self._to_deliver[run_id] = None
        self._news.set()

    async def run(self) -> None:
        """Greet, then talk until the connection ends or falls silent.

        Raises:
            ExceptionGroup: of OSError, EOFError, TimeoutError, RemoteProtocolFault, WorldFault.
        """
        async with asyncio.timeout(WELCOME_S):
            await self._greet()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._receive())
            group.create_task(self._deliver())
            group.create_task(self._beat())
            group.create_task(self._read_outputs())
            if self._carrier is not None:
                for _ in range(CARRIERS):
                    group.create_task(self._carry(self._carrier))

    async def _greet(self) -> None:
        me = self._me
        await self._stream.send(
            Hello(
                agent=me.name,
                boot=me.boot,
                version=me.version,
                epoch=self._fence.highest,
                open_runs=len(self._keeper.open_ids),
                carries_files=self._carrier is not None,
                lists_files=self._carrier is not None,
            )
        )
        answer = await self._stream.receive()
        if not isinstance(answer, Welcome):
            raise RemoteProtocolFault(f"expected a welcome, got {type(answer).__name__}")
        self._counters.connected += 1
        self._log.event("member.connected", member=answer.member, epoch=answer.epoch, is_active=answer.is_active)
        service.notify_status(f"connected to {answer.member}")  # `futago agent enroll` waits for it
        await self._role(answer)

    async def _role(self, told: Welcome | RoleChanged) -> None:
        self._is_active = False  # until the epoch is on disk
        await self._fence.learn(told.epoch)
        self._epoch, self._is_active = told.epoch, told.is_active
        if self._fence.admits(told.epoch):  # one that was away for long may not know who is a member now
            self._on_members(told.members)
        self._to_deliver = dict.fromkeys(self._keeper.ended_ids)
        self._news.set()

    async def _receive(self) -> None:
        while True:
            async with asyncio.timeout(SILENCE_S):
                message = await self._stream.receive()
            match message:
                case Order():
                    self._order(message)
                case Committed():
                    self._commit(message.run_id)
                case Ask():
                    self._ask(message)
                case Stop():
                    self._stop(message.run_id)
                case ReadOutput():
                    if not self._reads.full():  # whoever looks asks again
                        self._reads.put_nowait(message)
                case FileStep():
                    if not self._steps.full():  # whoever carries asks again
                        self._steps.put_nowait(message)
                case RoleChanged():
                    await self._role(message)
                case Beat():
                    pass
                case Welcome():
                    raise RemoteProtocolFault("a second welcome")

    def _order(self, order: Order) -> None:
        reason = self._refusal(order)
        if reason is None:
            self._keeper.take(order, self._answer)
            return
        self._counters.stale_orders += 1
        self._log.warning(
            "order.refused",
            run_id=order.run_id,
            reason=reason.value,
            order_epoch=order.epoch,
            highest_epoch=self._fence.highest,
        )
        self._answer(Refused(order.run_id, reason, self._fence.highest))

    def _refusal(self, order: Order) -> RefusalReason | None:
        if not self._fence.admits(order.epoch) or not self._fence.admits(self._epoch):
            return RefusalReason.STALE
        if not self._is_active or order.epoch != self._epoch:
            return RefusalReason.INACTIVE
        return None

    def _answer(self, answer: OrderTaken | Refused) -> None:
        if not self._stream.writer.is_closing():
            self._stream.post(answer)

    def _commit(self, run_id: str) -> None:
        if self.is_obeyed:
            self._keeper.commit(run_id)
            self._to_deliver.pop(run_id, None)
        else:
            self._counters.stale_commits += 1

    def _stop(self, run_id: str) -> None:
        """End a run. Orders come before it on this connection, so one that is not here was never taken."""
        if not self.is_obeyed:
            self._counters.stale_orders += 1
        elif not self._keeper.stop(run_id):
            self._stream.post(RunsReport(held=[], absent=[], stopped=[run_id]))

    def _ask(self, ask: Ask) -> None:
        if len(ask.run_ids) > ASK_RUNS_MAX:
            raise RemoteProtocolFault(f"asked for {len(ask.run_ids)} runs at once")
        held, absent = [], []
        for run_id in ask.run_ids:
            match self._keeper.phase(run_id):
                case None:
                    absent.append(run_id)
                case Phase.ENDED:
                    self._to_deliver[run_id] = None
                case Phase.TAKING:
                    pass  # the disk may refuse it yet: its answer follows, and who misses that asks again
                case Phase.HELD:
                    held.append(run_id)
        if ask.all_ended:
            self._to_deliver.update(dict.fromkeys(self._keeper.ended_ids))
        self._stream.post(RunsReport(held=held, absent=absent))
        self._news.set()

    async def _deliver(self) -> None:
        """Send results, oldest first, as long as this member is the one to send them to."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self.is_obeyed and self._to_deliver:
                run_id = next(iter(self._to_deliver))
                del self._to_deliver[run_id]
                result = await self._keeper.result(run_id)
                if result is not None and self.is_obeyed:
                    await self._stream.send(result)
                    self._counters.delivered += 1

    async def _read_outputs(self) -> None:
        """Show what runs write to whoever looks. That harms nothing, so an epoch is not asked for."""
        while True:
            asked = await self._reads.get()
            part = await self._keeper.read_output(asked)
            async with asyncio.timeout(SILENCE_S):
                await self._stream.send(part)

    async def _carry(self, carrier: FileCarrier) -> None:
        """Do steps of file transfers, for the member that may give orders."""
        while True:
            step = await self._steps.get()

            def may_go_on(step: FileStep = step) -> bool:
                return self.is_obeyed and step.epoch == self._epoch

            if may_go_on():
                answer = await carrier.step(step, may_go_on)
            else:
                self._counters.stale_orders += 1
                answer = FileAnswer(step.run_id, step.ticket, Trouble.AGAIN, "this member may not give orders")
            async with asyncio.timeout(SILENCE_S):
                await self._stream.send(answer)

    async def _beat(self) -> None:
        while True:
            async with asyncio.timeout(SILENCE_S):
                await self._stream.send(Beat())
            await asyncio.sleep(BEAT_S)


class MemberLink:
    """Keeps a session to one member: connects, and again within a second whenever it ends."""

    def __init__(
        self,
        address: str,
        *,
        me: Me,
        keeper: RunKeeper,
        fence: EpochFence,
        log: Log,
        on_members: Callable[[Sequence[str]], None] = lambda _: None,
        port: int = paths.PORT_AGENT,
        carrier: FileCarrier | None = None,
    ) -> None:
        self._carrier = carrier
        self._on_members = on_members
        self.counters = Counters()
        self._where = (address, port)
        self._me = me
        self._keeper = keeper
        self._fence = fence
        self._log = log.bind(address=address)
        self._session: Session | None = None

    def offer(self, run_id: str) -> None:
        """Tell the present session, if there is one, that a run has ended."""
        if self._session is not None:
            self._session.offer(run_id)

    async def run(self) -> None:
        """Connect and talk until cancelled."""
        pause_s = RECONNECT_S_MIN
        while True:
            before = self.counters.connected
            why = await self._once()
            heed_cancellation()
            if self.counters.connected > before:
                pause_s = RECONNECT_S_MIN
                self._log.warning("member.lost", why=why)
            await asyncio.sleep(pause_s)
            pause_s = min(RECONNECT_S_MAX, pause_s + RECONNECT_S_STEP)

    async def _once(self) -> str:
        """Hold one session; return why it ended."""
        try:
            async with asyncio.timeout(WELCOME_S):
                reader, writer = await asyncio.open_connection(*self._where, ssl=self._me.context)
        except (OSError, TimeoutError) as e:
            return str(e) or type(e).__name__
        try:
            tls.require(writer, pair_id=self._me.pair_id, kind="member")
            stream: FrameStream[FromManager] = FrameStream(reader, writer, FromManager, frame_bytes_max=FRAME_BYTES_MAX)
            self._session = Session(
                stream,
                me=self._me,
                keeper=self._keeper,
                fence=self._fence,
                counters=self.counters,
                on_members=self._on_members,
                log=self._log,
                carrier=self._carrier,
            )
            await apart(self._session.run())
        except RemoteProtocolFault as e:
            self.counters.strangers += 1
            self._log.error("member.strange", error=str(e))
            return str(e)
        except (OSError, EOFError, TimeoutError, WorldFault) as e:
            return str(e) or type(e).__name__
        except ExceptionGroup as group:
            return _why(group)
        finally:
            self._session = None
            writer.transport.abort()
        raise AssertionError("a session ends only by an exception")


def _why(group: ExceptionGroup[Exception]) -> str:
    """Return what ended a session; anything but the faults of the world is our bug and goes on."""
    expected, bug = group.split((OSError, EOFError, TimeoutError, RemoteProtocolFault, WorldFault))
    if bug is not None:
        raise bug
    assert expected is not None
    return "; ".join(str(e) or type(e).__name__ for e in expected.exceptions)
