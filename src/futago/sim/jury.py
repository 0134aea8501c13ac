"""Simulated jurors around the production acceptor, and the way of a proposal to them and back.

A juror works on one request at a time and answers after its disk has it; when it crashes, what was not on the disk never happened.
"""

from __future__ import annotations

from collections.abc import Callable

from futago.register.acceptor import handle
from futago.register.ballot import Juror, Outcome, Proposal, Roster
from futago.register.model import AcceptorState, Reply, Request
from futago.sim.engine import MS, Engine
from futago.sim.network import Network

PAIR_ID = "sim"
ROSTER = Roster(PAIR_ID, 1, tuple(Juror(f"j{i}", f"x{i}") for i in (1, 2, 3)))


class SimJuror:
    """One juror's host."""

    def __init__(self, engine: Engine, seat: Juror) -> None:
        self.engine = engine
        self.name = seat.name
        self.state = AcceptorState(pair_id=PAIR_ID, acceptor_id=seat.acceptor_id)
        self.is_up = True
        self.boot = 0
        self._free_at = 0

    def crash(self) -> None:
        """Lose everything that is not on the disk."""
        self.is_up = False
        self.boot += 1

    def receive(self, request: Request, answer: Callable[[Reply], None]) -> None:
        """Take one request; answer when its effect is durable."""
        if not self.is_up:
            return
        boot = self.boot
        is_read = handle(self.state, request)[0] is self.state
        delay = MS // 5 if is_read else self.engine.between(2 * MS, 25 * MS)
        self._free_at = max(self._free_at, self.engine.now) + delay

        def work() -> None:
            if self.is_up and self.boot == boot:
                self.state, reply = handle(self.state, request)
                answer(reply)

        self.engine.at(self._free_at, work)


class Asking:
    """One proposal under way between a member and the jurors."""

    def __init__(
        self,
        network: Network,
        jurors: dict[str, SimJuror],
        proposal: Proposal,
        *,
        who: str,
        is_listening: Callable[[], bool],
        done: Callable[[Proposal], None],
    ) -> None:
        self._network = network
        self._jurors = jurors
        self._proposal = proposal
        self._who = who
        self._is_listening = is_listening
        self._done = done
        self._token = 0
        self._is_over = False
        self.pump()

    def pump(self) -> None:
        """Send what is due, and look again when the proposal wants to."""
        p = self._proposal
        if self._is_over:
            return
        engine = next(iter(self._jurors.values())).engine
        for name, request in p.messages_to_send(engine.now):
            if self._network.is_open(self._who, name) and not self._network.is_lost():
                self._send(engine, name, request)
        if p.outcome is not Outcome.PENDING:
            self._is_over = True
            self._done(p)
            return
        self._token += 1
        token = self._token
        engine.at(p.wake_at, lambda: self.pump() if token == self._token else None)

    def _send(self, engine: Engine, name: str, request: Request) -> None:
        juror = self._jurors[name]
        engine.after(
            self._network.delay(), lambda: juror.receive(request, lambda reply: self._reply(engine, name, reply))
        )

    def _reply(self, engine: Engine, name: str, reply: Reply) -> None:
        if self._network.is_open(name, self._who) and not self._network.is_lost():
            engine.after(self._network.delay(), lambda: self._receive(engine, name, reply))

    def _receive(self, engine: Engine, name: str, reply: Reply) -> None:
        if self._is_listening() and self._proposal.outcome is Outcome.PENDING:
            self._proposal.receive(name, reply, engine.now)
            self.pump()
