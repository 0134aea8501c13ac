"""The managers' end of the agent link: accepts agents on PORT_AGENT, on both members always, and keeps the register
of who is connected.

So that a switch needs no new connection: sessions to a standby exist and are idle, and come to life when `set_role`
says so. The hub decides nothing about runs; it hands what agents say to the engine through one bounded queue, and
sends what the engine wants sent. While this member is not active, nothing that agents say about runs is kept: they
will say it again to whoever is.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field

import msgspec

from futago.link import tls
from futago.link.files import STEP_S, Deed, FileAnswer, FileStep
from futago.link.frames import FrameStream
from futago.link.listener import TlsListener
from futago.link.orders import (
    ASK_RUNS_MAX,
    BEAT_S,
    FRAME_BYTES_MAX,
    SILENCE_S,
    WELCOME_S,
    Ask,
    Beat,
    Committed,
    FromAgent,
    FromManager,
    Hello,
    Order,
    OrderTaken,
    OutputPart,
    ReadOutput,
    Refused,
    RoleChanged,
    RunEnded,
    RunsReport,
    Stop,
    Welcome,
)
from futago.runtime.faults import OperatorFault, RemoteProtocolFault
from futago.runtime.log import Log
from futago.runtime.role import INERT, Role
from futago.setup import paths
from futago.setup.settings import Settings, load

INBOX_MAX = 10_000  # what agents said and the engine has not looked at; then their sessions wait (back-pressure)
OUTBOX_MAX = 20_000  # messages to one agent that its connection has not taken; an agent that slow is disconnected
READ_S = 3.0  # an agent shows what a run writes within this time
CARRY_S = STEP_S + 5.0
LOOKS_MAX = 200  # people who look at outputs at the same time
REBIND_S = 0.5
MEMBERS_S = 2.0
EVERYWHERE = "0.0.0.0"  # noqa: S104  agents come from every network; mutual TLS guards the port


def members_now() -> list[str]:
    """Return the addresses of the members as the settings file tells them now; empty if it cannot be read."""
    try:
        return [m.service for m in load().members]
    except OperatorFault:
        return []


@dataclass(frozen=True, slots=True)
class Connected:
    """An agent has a session now. `address`: where it came from."""

    agent: str
    address: str
    boot: str


Said = OrderTaken | Refused | RunEnded | RunsReport


@dataclass(frozen=True, slots=True)
class Heard:
    """An agent said something about runs."""

    agent: str
    message: Said


HubEvent = Connected | Heard


@dataclass(slots=True)
class Counters:
    """Since the hub was made."""

    sessions: int = 0
    strangers: int = 0  # a certificate that is not an agent's of our pair
    replaced: int = 0  # a new session of an agent took the place of an older one
    overrun: int = 0  # sessions ended because the agent did not read
    ignored: int = 0  # said to us while we were not active
    sent_orders: int = 0


@dataclass(slots=True)
class _Session:
    agent: str
    address: str
    boot: str
    carries_files: bool = False
    lists_files: bool = False
    outbox: asyncio.Queue[FromManager] = field(default_factory=lambda: asyncio.Queue(maxsize=OUTBOX_MAX))
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # set: the session is to end


class AgentHub:
    """See the module. Made once by the manager; `run` accepts until cancelled, whatever the role.

    Args:
        settings: whose pair this is, and our name.
        listen: where to accept agents.
        context: the server side of mutual TLS; default: this member's own certificate.
        members: returns the addresses that agents shall know; reads a file, so it is called in a thread.
    """

    def __init__(
        self,
        settings: Settings,
        log: Log,
        *,
        listen: str = EVERYWHERE,
        port: int = paths.PORT_AGENT,
        context: ssl.SSLContext | None = None,
        members: Callable[[], list[str]] = members_now,
    ) -> None:
        self.counters = Counters()
        self.beside: list[Callable[[], Coroutine[None, None, None]]] = []  # what runs as long as the hub does
        self.inbox: asyncio.Queue[HubEvent] = asyncio.Queue(maxsize=INBOX_MAX)
        self._settings = settings
        self._log = log
        self._where = (listen, port)
        self._context = context
        self._members = members
        self._told: list[str] = []
        self._role = INERT
        self._sessions: dict[str, _Session] = {}
        self._looks: dict[int, tuple[str, asyncio.Future[OutputPart | FileAnswer | None]]] = {}
        self._ticket = 0

    # --- for the manager --------------------------------------------------------------------------------------------

    def set_role(self, role: Role) -> None:
        """Take the member's role; agents are told at once when epoch or activity changed."""
        before, self._role = self._role, role
        if (before.epoch, before.is_active) != (role.epoch, role.is_active):
            self._drain()
            for session in tuple(self._sessions.values()):
                self._put(session, RoleChanged(epoch=role.epoch, is_active=role.is_active, members=self._told))

    async def _follow_members(self) -> None:
        """Tell agents of a member that has joined, or moved: they talk to every member."""
        while True:
            found = await asyncio.to_thread(self._members)
            if found and found != self._told:
                self._told = found
                for session in tuple(self._sessions.values()):
                    role = self._role
                    self._put(session, RoleChanged(epoch=role.epoch, is_active=role.is_active, members=found))
            await asyncio.sleep(MEMBERS_S)

    async def run(self) -> None:
        """Accept agents until cancelled; where the port is taken, try again."""
        context = self._context or tls.server_context()
        listener = TlsListener(
            address=self._where[0], port=self._where[1], context=context, serve=self._serve, log=self._log
        )
        async with asyncio.TaskGroup() as group:  # none may die without the others
            for work in (self._follow_members, *self.beside):
                group.create_task(work())
            while True:
                try:
                    await listener.run()
                except OperatorFault as e:
                    self._log.error("hub.cannot_listen", error=str(e))
                    await asyncio.sleep(REBIND_S)

    # --- for the engine ---------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch that agents have been told."""
        return self._role.epoch

    @property
    def connected(self) -> list[Connected]:
        """The agents that have a session now."""
        return [Connected(agent=s.agent, address=s.address, boot=s.boot) for s in self._sessions.values()]

    def is_connected(self, agent: str) -> bool:
        return agent in self._sessions

    def order(self, agent: str, order: Order) -> bool:
        """Send an order; False if the agent has no session (it will be asked when it comes back)."""
        self.counters.sent_orders += 1
        return self._send(agent, order)

    def stop(self, agent: str, run_id: str) -> bool:
        """Tell the agent to end a run; what became of it is reported as every end is."""
        return self._send(agent, Stop(run_id))

    def committed(self, agent: str, run_id: str) -> bool:
        """Tell the agent that a result is on the disks of the pair."""
        return self._send(agent, Committed(run_id))

    def ask(self, agent: str, run_ids: Iterable[str], *, is_new: bool = False) -> bool:
        """Ask an agent what became of these runs. `is_new`: and for all results it keeps, for whoever asks knows
        none.
        """
        ids = list(run_ids)
        parts = [ids[i : i + ASK_RUNS_MAX] for i in range(0, max(1, len(ids)), ASK_RUNS_MAX)]
        return all([self._send(agent, Ask(part, all_ended=is_new and not i)) for i, part in enumerate(parts)])

    async def read_output(self, agent: str, run_id: str, offset: int) -> OutputPart | None:
        """Ask an agent what a run has written from `offset` on; None if it does not say within READ_S."""
        if len(self._looks) >= LOOKS_MAX:
            return None
        self._ticket += 1
        answer = await self._answer(agent, ReadOutput(run_id, self._ticket, offset), READ_S)
        return answer if isinstance(answer, OutputPart) else None

    async def carry(self, agent: str, step: FileStep, *, seconds: float = CARRY_S) -> FileAnswer | None:
        """Ask an agent for a step of a file transfer; None if it does not answer, or is of a version that cannot."""
        session = self._sessions.get(agent)
        if session is None or not (session.lists_files if step.deed is Deed.LIST else session.carries_files):
            return None
        self._ticket += 1
        step = msgspec.structs.replace(step, ticket=self._ticket, epoch=self._role.epoch)
        answer = await self._answer(agent, step, seconds)
        return answer if isinstance(answer, FileAnswer) and answer.run_id == step.run_id else None

    async def _answer(self, agent: str, asked: ReadOutput | FileStep, seconds: float) -> OutputPart | FileAnswer | None:
        """Send a question that has a ticket; return its answer, None if it does not come while the session lasts."""
        answer: asyncio.Future[OutputPart | FileAnswer | None] = asyncio.get_running_loop().create_future()
        self._looks[asked.ticket] = (agent, answer)
        try:
            if not self._send(agent, asked):
                return None
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._looks[asked.ticket]

    def _answered(self, session: _Session, said: OutputPart | FileAnswer) -> None:
        agent, waiting = self._looks.get(said.ticket, ("", None))
        if waiting is not None and agent == session.agent and not waiting.done():
            waiting.set_result(said)

    def _answer_no_more(self, agent: str) -> None:
        """The session has ended: nothing that was asked in it will be answered."""
        for asked, waiting in self._looks.values():
            if asked == agent and not waiting.done():
                waiting.set_result(None)

    def _send(self, agent: str, message: FromManager) -> bool:
        session = self._sessions.get(agent)
        return session is not None and self._role.is_active and self._put(session, message)

    def _put(self, session: _Session, message: FromManager) -> bool:
        try:
            session.outbox.put_nowait(message)
        except asyncio.QueueFull:
            self.counters.overrun += 1
            session.ended.set()
            return False
        return True

    def _drain(self) -> None:
        """Forget what agents said before the role changed: they say it again."""
        while not self.inbox.empty():
            self.inbox.get_nowait()

    # --- one session ------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            who = tls.require(writer, pair_id=self._settings.pair.id, kind="agent")
        except RemoteProtocolFault:
            self.counters.strangers += 1
            raise
        stream: FrameStream[FromAgent] = FrameStream(reader, writer, FromAgent, frame_bytes_max=FRAME_BYTES_MAX)
        async with asyncio.timeout(WELCOME_S):
            hello = await stream.receive()
        if not isinstance(hello, Hello) or hello.agent != who.name:
            self.counters.strangers += 1
            raise RemoteProtocolFault(f"{who.name} did not begin with a Hello of its own")
        session = _Session(
            agent=who.name,
            address=str(writer.get_extra_info("peername")[0]),
            boot=hello.boot,
            carries_files=hello.carries_files,
            lists_files=hello.lists_files,
        )
        self._log.event(
            "agent.connected", agent=who.name, address=session.address, version=hello.version, open_runs=hello.open_runs
        )
        await self._converse(session, stream)

    async def _converse(self, session: _Session, stream: FrameStream[FromAgent]) -> None:
        self._register(session)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(c) for c in (self._receive(session, stream), self._send_all(session, stream))
                ]
                await session.ended.wait()
                for task in tasks:
                    task.cancel()
        except* (OSError, EOFError, TimeoutError) as e:
            self._log.event(
                "agent.lost", agent=session.agent, why=str(e.exceptions[0]) or type(e.exceptions[0]).__name__
            )
        except* RemoteProtocolFault as e:
            self._log.warning("agent.broke_rules", agent=session.agent, error=str(e.exceptions[0]))
        finally:
            if self._sessions.get(session.agent) is session:
                del self._sessions[session.agent]
            self._answer_no_more(session.agent)

    def _register(self, session: _Session) -> None:
        older = self._sessions.get(session.agent)
        if older is not None:
            self.counters.replaced += 1
            older.ended.set()
        self._sessions[session.agent] = session
        self.counters.sessions += 1
        role = self._role
        welcome = Welcome(self._settings.me, role.epoch, is_active=role.is_active, members=self._told)
        self._put(session, welcome)
        if role.is_active and not self.inbox.full():  # full: the engine finds it in `connected`
            self.inbox.put_nowait(Connected(agent=session.agent, address=session.address, boot=session.boot))

    async def _receive(self, session: _Session, stream: FrameStream[FromAgent]) -> None:
        while True:
            async with asyncio.timeout(SILENCE_S):
                message = await stream.receive()
            if isinstance(message, Beat):
                continue
            if isinstance(message, OutputPart | FileAnswer):
                self._answered(session, message)
                continue
            if isinstance(message, Hello):
                raise RemoteProtocolFault("a second hello")
            if not self._role.is_active or self._sessions.get(session.agent) is not session:
                self.counters.ignored += 1
                continue
            await self.inbox.put(Heard(agent=session.agent, message=message))

    async def _send_all(self, session: _Session, stream: FrameStream[FromAgent]) -> None:
        while True:
            try:
                async with asyncio.timeout(BEAT_S):
                    message = await session.outbox.get()
            except TimeoutError:
                message = Beat()
            async with asyncio.timeout(SILENCE_S):
                await stream.send(message)
