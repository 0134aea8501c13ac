"""The jury over the network: the connections to the jurors, and proposals carried to their outcome.

Lives here: TLS, sending, receiving, deadlines, and how each juror fares. Must not live here: what counts as agreed
(ballot.py). A witness is a jury of one. The idea: a messenger per juror who runs back and forth and never thinks. Connections stay open, because
a handshake at the moment of a failure would cost more than the vote.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from futago.cluster.model import View
from futago.link import tls
from futago.link.frames import FrameStream
from futago.link.jurors import FRAME_BYTES_MAX, Identified, Identify, JurorReply
from futago.register import ballot
from futago.register.ballot import Outcome, Proposal, Roster
from futago.register.memory import Memory
from futago.register.model import (
    NO_BALLOT,
    Accepted,
    Ballot,
    Held,
    Promise,
    Reject,
    RejectReason,
    Reply,
    Request,
    Value,
)
from futago.register.port import Health
from futago.runtime.clock import S, now_at
from futago.runtime.faults import Refused, RemoteProtocolFault, Unknown
from futago.runtime.log import Log
from futago.setup.settings import Juror, Settings

READ_S_MAX = 1.0
PUT_S_MAX = 1.5
CONNECT_S_MAX = 1.0
RECONNECT_S = 0.3
ANSWER_LATE = 3 * S  # each is asked every second; one that lets a request lie for so long gets a new connection
OUTSTANDING_MAX = 16  # requests in flight to one juror; beyond it new ones are dropped, as the network might
HEALTH_AGE_MAX = 5 * S


@dataclass(slots=True)
class _Messenger:
    """One juror's connection. `outstanding`: whose requests are out, in order, and since when."""

    juror: Juror
    stream: FrameStream[JurorReply] | None = None
    outstanding: deque[tuple[_Hearing, int]] = field(default_factory=deque)
    ok_at: int | None = None
    error: str = "not connected yet"


class _Hearing:
    """One proposal on its way."""

    def __init__(self, proposal: Proposal) -> None:
        self.proposal = proposal
        self.bell = asyncio.Event()

    def receive(self, juror: str, reply: Reply) -> None:
        self.proposal.receive(juror, reply, now_at())
        self.bell.set()


class Jury:
    """The jurors of one roster.

    Args:
        jurors: with their acceptor ids; version: of the roster.
        kind: jury, or witness for a jury of one.
        memory: what each juror has shown so far.
    """

    def __init__(
        self,
        *,
        pair_id: str,
        me: str,
        jurors: Sequence[Juror],
        version: int,
        context: ssl.SSLContext,
        log: Log,
        kind: str = "jury",
        memory: Memory | None = None,
    ) -> None:
        self.roster = Roster(pair_id, version, tuple(ballot.Juror(j.name, j.acceptor) for j in jurors))
        self._me, self._context, self._log = me, context, log
        self._messengers = {j.name: _Messenger(j) for j in jurors}
        self._highest: Ballot = NO_BALLOT
        self._put_lock = asyncio.Lock()  # a put begins only when the last has ended: what the register promises
        self._is_retired = False
        self._kind = kind
        self._memory = memory or Memory()

    @property
    def kind(self) -> str:
        return self._kind

    @property
    def version(self) -> int:
        return self.roster.version

    async def run(self) -> None:
        """Keep the connections until cancelled."""
        async with asyncio.TaskGroup() as group:
            for messenger in self._messengers.values():
                group.create_task(self._serve(messenger))

    async def read(self) -> Value | None:
        """Return what a majority holds; None: nothing yet.

        Raises:
            Refused: no majority answered.
        """
        proposal = await self._carry(None, deadline_s=READ_S_MAX)
        self._require_in_use()
        if proposal.outcome is not Outcome.DONE:
            raise Refused(self._why(proposal))
        return proposal.value

    async def put(self, value: Value) -> tuple[bool, Value | None]:
        """Store `value` if its epoch is newer.

        Returns:
            Whether it is held now, and what is held.

        Raises:
            Unknown: it may be held, or may yet be. Refused: no majority answered, and it will not be held.
        """
        async with self._put_lock:
            self._require_in_use()
            proposal = await self._carry(value, deadline_s=PUT_S_MAX)
        match proposal.outcome:
            case Outcome.DONE:
                return True, proposal.value
            case Outcome.REFUSED:
                return False, proposal.value
            case Outcome.UNKNOWN:
                raise Unknown(self._why(proposal))
            case _:
                raise Refused(self._why(proposal))

    async def seat(self, value: Value) -> tuple[bool, Value | None]:
        """As `put`: the acceptors' identities and the roster's version say that this is the jury meant."""
        return await self.put(value)

    def _require_in_use(self) -> None:
        if self._is_retired:
            raise Refused("this third vote is being replaced")

    def retire(self) -> bool:
        """Answer nothing more; return False if a put is under way."""
        self._is_retired = True
        return not self._put_lock.locked()

    def health(self, now: int) -> list[Health]:
        """Return how every juror fares."""
        found = []
        for name, m in self._messengers.items():
            is_ok = m.ok_at is not None and now - m.ok_at <= HEALTH_AGE_MAX and not m.error
            found.append(Health(name, is_ok, "" if is_ok else m.error or "silent"))
        return found

    def heard_at(self) -> int:
        """Return when any juror last answered; 0: never."""
        return max((m.ok_at or 0 for m in self._messengers.values()), default=0)

    # --- carrying ---------------------------------------------------------------------------------------------------

    async def _carry(self, value: Value | None, *, deadline_s: float) -> Proposal:
        proposal = Proposal(
            self.roster,
            me=self._me,
            nonce=secrets.randbits(60),
            deadline_at=now_at() + int(deadline_s * S),
            put=value,
            seen=self._highest,
        )
        hearing = _Hearing(proposal)
        while proposal.outcome is Outcome.PENDING:
            hearing.bell.clear()
            for name, request in proposal.messages_to_send(now_at()):
                self._post(self._messengers[name], hearing, request)
            if proposal.outcome is not Outcome.PENDING:
                break
            pause = (proposal.wake_at - now_at()) / S
            if pause > 0:
                try:
                    async with asyncio.timeout(pause):
                        await hearing.bell.wait()
                except TimeoutError:
                    continue
        self._highest = max(self._highest, proposal.highest, proposal.ballot)
        return proposal

    def _post(self, messenger: _Messenger, hearing: _Hearing, request: Request) -> None:
        if messenger.stream is None or len(messenger.outstanding) >= OUTSTANDING_MAX:
            return
        messenger.outstanding.append((hearing, now_at()))
        messenger.stream.post(request)

    def _why(self, proposal: Proposal) -> str:
        silent = [n for n in self._messengers if n not in proposal.heard]
        refused = [f"{n}: {why}" for n, why in proposal.heard.items() if why]
        return "; ".join([*refused, f"silent: {', '.join(silent)}" if silent else ""]).strip("; ") or "no majority"

    # --- connections ------------------------------------------------------------------------------------------------

    async def _serve(self, messenger: _Messenger) -> None:
        while True:
            try:
                await self._converse(messenger)
            except TimeoutError:
                messenger.error = "does not answer"
            except RemoteProtocolFault as e:
                messenger.error = str(e)
                self._log.warning("jury.stranger", juror=messenger.juror.name, error=str(e))
            except (OSError, EOFError) as e:
                messenger.error = str(e) or type(e).__name__
            await asyncio.sleep(RECONNECT_S)

    async def _converse(self, messenger: _Messenger) -> None:
        stream = await connect(messenger.juror, pair_id=self.roster.pair_id, context=self._context)
        messenger.stream, messenger.error = stream, ""
        try:
            while True:
                async with asyncio.timeout(ANSWER_LATE / S):
                    reply = await stream.receive()
                if not messenger.outstanding or isinstance(reply, Identified):
                    raise RemoteProtocolFault("an answer that nobody asked for")
                hearing, _since = messenger.outstanding.popleft()
                reply = self._believed(messenger.juror, reply)
                messenger.ok_at, messenger.error = now_at(), _trouble(reply)
                hearing.receive(messenger.juror.name, reply)
        finally:
            messenger.stream = None
            messenger.outstanding.clear()
            stream.writer.transport.abort()

    def _believed(self, juror: Juror, reply: Reply) -> Reply:
        """Return the reply, or a refusal in its place if the juror has forgotten what it showed us before."""
        rank = _rank(reply)
        if rank is None or self._memory.note(f"{juror.acceptor}@{self.version}", rank):
            return reply
        self._log.error("jury.juror-went-back", juror=juror.name, promised=repr(rank))
        return Reject(serial=reply.serial, reason=RejectReason.WENT_BACK)


def _trouble(reply: Reply) -> str:
    """Return why the juror does not take part; empty if it does. Told by every reply, also one that came too late."""
    return reply.reason.value if isinstance(reply, Reject) and reply.reason is not RejectReason.BALLOT else ""


def _rank(reply: Reply) -> Ballot | None:
    """Return the highest ballot that the juror is bound by, as the reply tells it; None if it does not tell."""
    match reply:
        case Held():
            return reply.promised
        case Promise() | Accepted():
            return reply.ballot
        case Reject(reason=RejectReason.BALLOT):
            return reply.promised
        case _:
            return None


async def connect(juror: Juror, *, pair_id: str, context: ssl.SSLContext) -> FrameStream[JurorReply]:
    """Return a conversation with this juror.

    Raises:
        OSError, TimeoutError: it cannot be reached. RemoteProtocolFault: it is somebody else.
    """
    async with asyncio.timeout(CONNECT_S_MAX):
        reader, writer = await asyncio.open_connection(juror.address, juror.port, ssl=context)
    try:
        tls.require(writer, pair_id=pair_id, kind="agent", name=juror.name)
    except RemoteProtocolFault:
        writer.transport.abort()
        raise
    return FrameStream(reader, writer, JurorReply, frame_bytes_max=FRAME_BYTES_MAX)


async def identify(juror: Juror, *, pair_id: str, context: ssl.SSLContext) -> Identified:
    """Ask a juror for its identity.

    Raises:
        Refused: it does not answer, is somebody else, or cannot vote.
    """
    try:
        stream = await connect(juror, pair_id=pair_id, context=context)
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                await stream.send(Identify(serial=1))
                answer = await stream.receive()
        finally:
            stream.writer.transport.abort()
    except (OSError, EOFError, TimeoutError, RemoteProtocolFault) as e:
        raise Refused(f"{juror.name}: {str(e) or 'does not answer'}") from e
    if not isinstance(answer, Identified) or not answer.acceptor_id:
        raise Refused(f"{juror.name}: its vote file is damaged")
    return answer


def jury_of(
    settings: Settings, *, context: ssl.SSLContext, log: Log, kind: str = "jury", memory: Memory | None = None
) -> Jury:
    """Return the jury, or the witness, that the settings name."""
    return Jury(
        pair_id=settings.pair.id,
        me=settings.me,
        jurors=settings.jurors,
        version=settings.roster,
        context=context,
        log=log,
        kind=kind,
        memory=memory,
    )


def value(view: View, *, version: int) -> Value:
    """Return what the register is to hold for `view` under a roster."""
    return ballot.value_of(view, roster=version)
