"""Simulated jurors around the production acceptor, and the way of a production proposal to them and back.

A juror works on one request at a time and answers after its disk has it; when it crashes, what was not on the disk never happened. One that loses
its disk is a new acceptor, which nobody has seated. While nothing is wrong anywhere, a reading takes one step instead of fifteen: the same
proposal and the same acceptors, at one instant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from futago.register.acceptor import handle, unable
from futago.register.ballot import Juror, Outcome, Proposal, Roster
from futago.register.model import AcceptorState, Query, Reply, Request
from futago.sim.engine import MS, Engine
from futago.sim.network import Network

PAIR_ID = "sim"


def roster_of(seats: int) -> Roster:
    """Return a jury of 3 or 5."""
    return Roster(PAIR_ID, 1, tuple(Juror(f"j{i}", f"x{i}") for i in range(1, seats + 1)))


class SimJuror:
    """One juror's host."""

    def __init__(self, engine: Engine, seat: Juror) -> None:
        self.engine = engine
        self.name = seat.name
        self.state = AcceptorState(pair_id=PAIR_ID, acceptor_id=seat.acceptor_id)
        self.is_up = True
        self.is_able = True  # its disk can be written
        self.is_lost = False  # its vote file is gone for good
        self.slow_ns = 0  # its disk takes so much longer
        self.boot = 0
        self._free_at = 0

    def crash(self) -> None:
        """Lose everything that is not on the disk."""
        self.is_up = False
        self.boot += 1

    def restore(self) -> None:
        """Come back with what is on the disk."""
        self.is_up = self.is_able = True
        self.slow_ns = 0

    def lose_disk(self) -> None:
        """Come back with an empty disk: another acceptor than the one that is seated."""
        self.crash()
        self.state = AcceptorState(pair_id=PAIR_ID, acceptor_id=f"{self.name}-again")
        self.is_up = self.is_lost = True

    @property
    def is_quick(self) -> bool:
        """It has nothing to do and nothing keeps it from answering."""
        return self.is_up and self.is_able and not self.slow_ns and self._free_at <= self.engine.now

    def receive(self, request: Request, answer: Callable[[Reply], None]) -> None:
        """Take one request; answer when its effect is durable."""
        if not self.is_up:
            return
        boot = self.boot
        delay = MS // 5 if isinstance(request, Query) else self.engine.between(2 * MS, 25 * MS) + self.slow_ns
        self._free_at = max(self._free_at, self.engine.now) + delay

        def work() -> None:
            if self.is_up and self.boot == boot:
                answer(self.answer(request))

        self.engine.at(self._free_at, work)

    def answer(self, request: Request) -> Reply:
        """Do it at once."""
        state, reply = handle(self.state, request)
        if state is not self.state and not self.is_able:
            return unable(request)
        self.state = state
        return reply


class Asking:
    """One proposal under way between a member and the jurors."""

    def __init__(
        self,
        network: Network,
        jurors: Mapping[str, SimJuror],
        proposal: Proposal,
        *,
        engine: Engine,
        who: str,
        is_listening: Callable[[], bool],
        done: Callable[[Proposal], None],
    ) -> None:
        self._network = network
        self._jurors = jurors
        self._proposal = proposal
        self._engine = engine
        self._who = who
        self._is_listening = is_listening
        self._done = done
        self._token = 0
        self._is_over = False

    def begin(self, *, may_hurry: bool) -> None:
        """Send the first requests; the short way if it may and can be taken."""
        if may_hurry and self._is_clear():
            self._engine.after(self._engine.between(MS, 3 * MS), self._read_at_once)
        else:
            self.pump()

    def _is_clear(self) -> bool:
        return all(j.is_quick for j in self._jurors.values()) and self._network.is_clear(self._who, self._jurors)

    def _read_at_once(self) -> None:
        p, now = self._proposal, self._engine.now
        if self._is_clear() and self._is_listening():
            requests = p.messages_to_send(now)
            first = int(self._engine.chance_of() * len(requests))  # nobody is always the one that is heard last
            for name, request in requests[first:] + requests[:first]:
                juror = self._jurors[name]
                if juror.is_quick and p.outcome is Outcome.PENDING:
                    p.receive(name, juror.answer(request), now)
        self.pump()

    def pump(self) -> None:
        """Send what is due, and look again when the proposal wants to."""
        p = self._proposal
        if self._is_over:
            return
        engine = self._engine
        if p.outcome is Outcome.PENDING:
            for name, request in p.messages_to_send(engine.now):
                if self._network.is_open(self._who, name):
                    self._send(name, request)
        if p.outcome is not Outcome.PENDING:
            self._is_over = True
            self._done(p)
            return
        self._token += 1
        engine.at(p.wake_at, partial(self._wake, self._token))

    def _wake(self, token: int) -> None:
        if token == self._token:
            self.pump()

    def _send(self, name: str, request: Request) -> None:
        juror = self._jurors[name]
        for delay in self._network.datagrams(self._who, name):
            self._engine.after(delay, lambda: juror.receive(request, partial(self._reply, name)))

    def _reply(self, name: str, reply: Reply) -> None:
        if self._network.is_open(name, self._who):
            for delay in self._network.datagrams(name, self._who):
                self._engine.after(delay, partial(self._receive, name, reply))

    def _receive(self, name: str, reply: Reply) -> None:
        if self._is_listening() and self._proposal.outcome is Outcome.PENDING:
            self._proposal.receive(name, reply, self._engine.now)
            self.pump()
