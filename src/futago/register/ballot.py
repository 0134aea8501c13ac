"""The member's side of the register: read it, or put a newer view into it. A protocol object without I/O.

    idle -> query -> (a majority agrees) read done
                  \\-> prepare -> accept -> done | refused
    a higher ballot of the other member: back off, prepare again with a still higher one
    the deadline: UNKNOWN if anything was sent that may still be stored, else FAILED

The driver (register/jury.py, or the simulator) does: `for juror, message in p.messages_to_send(now): send(...)`,
hands each reply to `p.receive(juror, reply, now)`, and calls again at `p.wake_at` at the latest, until `p.outcome` is
no longer PENDING.

A put that has ended as DONE or REFUSED makes every earlier put of the same member void: it can no longer be stored.

A put is stored only if the held epoch is lower (or if it seats a newer roster at the same epoch). Its outcome REFUSED
carries the value held.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from futago.cluster.model import Epoch, Lsn, MemberName, View
from futago.register.model import (
    NO_BALLOT,
    Accept,
    Accepted,
    Address,
    Ballot,
    Held,
    Prepare,
    Promise,
    Query,
    Reject,
    RejectReason,
    Reply,
    Request,
    Value,
)

RESEND_NS = 250_000_000  # a juror's fsync takes 5-30 ms; later than this the request or its answer was lost
BACKOFF_NS = 40_000_000  # two proposers that collide: the loser waits longer than a ballot's two round trips


class Outcome(Enum):
    """How a proposal ended."""

    PENDING = "pending"
    DONE = "done"  # read: `value` is what is held; put: our value is held
    REFUSED = "refused"  # put: a value with the same or a higher epoch is held, it is in `value`
    UNKNOWN = "unknown"  # put: our value may have been stored, or may still be
    FAILED = "failed"  # nothing was stored by us and nothing will be: no majority answered in time


class Phase(Enum):
    """Where a proposal stands."""

    QUERY = "query"
    PREPARE = "prepare"
    ACCEPT = "accept"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Juror:
    """One seat of the roster."""

    name: str
    acceptor_id: str


@dataclass(frozen=True, slots=True)
class Roster:
    """The jury of one pair. An odd number of seats; a majority of them decides."""

    pair_id: str
    version: int
    jurors: tuple[Juror, ...]

    @property
    def quorum(self) -> int:
        return len(self.jurors) // 2 + 1


def value_of(view: View, *, roster: int) -> Value:
    """Return what the register is to hold for `view`."""
    return Value(
        epoch=view.epoch, primary=view.primary, insync=tuple(sorted(view.insync)), floor=view.floor, roster=roster
    )


def view_of(value: Value) -> View:
    """Return the view that the register holds."""
    return View(
        epoch=Epoch(value.epoch),
        primary=MemberName(value.primary),
        insync=frozenset(MemberName(n) for n in value.insync),
        floor=Lsn(value.floor),
    )


def may_store(held: Value | None, new: Value) -> bool:
    """Tell whether `new` may take the place of `held`: the compare of the compare-and-set."""
    if held is None:
        return True
    if new.roster > held.roster:
        return new.epoch >= held.epoch
    return new.roster == held.roster and new.epoch > held.epoch


class Proposal:
    """One read or one put, from start to outcome.

    Args:
        roster: whom to ask.
        me: this member's name, part of the ballot.
        nonce: a number never used by this member before (random, at least 48 bits).
        deadline_at: when to give up.
        put: the value to store; None: read.
        seen: the highest ballot seen by earlier proposals (`highest`); starting above it saves a round trip.
    """

    def __init__(
        self,
        roster: Roster,
        *,
        me: str,
        nonce: int,
        deadline_at: int,
        put: Value | None = None,
        seen: Ballot = NO_BALLOT,
    ) -> None:
        self.roster = roster
        self.outcome = Outcome.PENDING
        self.value: Value | None = None
        self.heard: dict[str, str] = {}
        """Per juror name: "" when it answered, else why it refused; jurors that are missing did not answer."""
        self.deadline_at = deadline_at
        self.wake_at = deadline_at
        self.phase = Phase.QUERY if put is None else Phase.PREPARE
        self._put = put
        self._me = me
        self._nonce = nonce
        self._counter = seen.counter + 1
        self.highest = seen
        """The highest ballot that any juror has told us of."""
        self._serial = 0
        self._sent_at: dict[str, int] = {}
        self._held: dict[str, Held | Promise] = {}
        self._accepted: set[str] = set()
        self._choice: Value | None = None
        self._is_ours = False
        self._may_land = False
        self._retry_at: int | None = None
        self._attempts = 0

    @property
    def ballot(self) -> Ballot:
        """The ballot of the present attempt."""
        return Ballot(counter=self._counter, proposer=self._me, nonce=self._nonce)

    def messages_to_send(self, now: int) -> list[tuple[str, Request]]:
        """Return (juror name, request) for every juror that has to be asked now; moves time on."""
        self._handle_timer(now)
        if self.phase is Phase.ENDED:
            return []
        answered: set[str] = set(self._accepted) if self.phase is Phase.ACCEPT else set(self._held)
        out: list[tuple[str, Request]] = []
        wake_at = self.deadline_at if self._retry_at is None else min(self.deadline_at, self._retry_at)
        for juror in self.roster.jurors:
            if juror.name in answered:
                continue
            sent_at = self._sent_at.get(juror.name)
            if sent_at is None or now - sent_at >= RESEND_NS:
                self._sent_at[juror.name] = sent_at = now
                out.append((juror.name, self._request(juror)))
            wake_at = min(wake_at, sent_at + RESEND_NS)
        self.wake_at = max(wake_at, now + 1)
        return out

    def receive(self, juror: str, reply: Reply, now: int) -> None:
        """Take one answer. Answers to earlier phases and unknown jurors are ignored."""
        if self.phase is Phase.ENDED or all(j.name != juror for j in self.roster.jurors):
            return
        self.wake_at = now
        match reply:
            case Reject():
                self._receive_reject(juror, reply, now)
            case Held():
                self.heard[juror] = ""
                if self.phase is Phase.QUERY and reply.serial == self._serial:
                    self._receive_held(juror, reply, now)
            case Promise():
                self.heard[juror] = ""
                if self.phase is Phase.PREPARE and reply.ballot == self.ballot:
                    self._receive_promise(juror, reply)
            case Accepted():
                self.heard[juror] = ""
                if self.phase is Phase.ACCEPT and reply.ballot == self.ballot:
                    self._accepted.add(juror)
                    if len(self._accepted) >= self.roster.quorum:
                        self._conclude()

    def _request(self, juror: Juror) -> Request:
        to = Address(pair_id=self.roster.pair_id, acceptor_id=juror.acceptor_id, roster=self.roster.version)
        match self.phase:
            case Phase.QUERY:
                return Query(to=to, serial=self._serial)
            case Phase.PREPARE:
                return Prepare(to=to, serial=self._serial, ballot=self.ballot)
            case _:
                assert self._choice is not None
                self._may_land = self._may_land or self._is_ours
                return Accept(to=to, serial=self._serial, ballot=self.ballot, value=self._choice)

    def _handle_timer(self, now: int) -> None:
        if self.phase is Phase.ENDED:
            return
        if now >= self.deadline_at:
            self.phase = Phase.ENDED
            self.outcome = Outcome.UNKNOWN if self._may_land else Outcome.FAILED
        elif self._retry_at is not None and now >= self._retry_at:
            self._begin(Phase.PREPARE)
            self._counter = max(self._counter, self.highest.counter) + 1

    def _begin(self, phase: Phase) -> None:
        self.phase = phase
        self._serial += 1
        self._sent_at.clear()
        self._accepted.clear()
        self._retry_at = None
        if phase is not Phase.ACCEPT:
            self._held.clear()

    def _receive_reject(self, juror: str, reply: Reject, now: int) -> None:
        if reply.reason is not RejectReason.BALLOT:
            self.heard[juror] = reply.reason.value
            return
        self.heard[juror] = ""
        self.highest = max(self.highest, reply.promised)
        if self._retry_at is None and self.highest > self.ballot and self.phase is not Phase.QUERY:
            pause = BACKOFF_NS * self._attempts + self._nonce % BACKOFF_NS if self._attempts else 0
            self._attempts += 1  # the first refusal only tells where to start; from the second on it is a collision
            self._retry_at = now + pause

    def _receive_held(self, juror: str, reply: Held, now: int) -> None:
        self._held[juror] = reply
        self.highest = max(self.highest, reply.promised)
        if len(self._held) < self.roster.quorum:
            return
        if self._settled() is not None:
            self._finish_read()
        elif len(self._held) == len(self.roster.jurors):  # all answered and none of the values has a majority
            self._begin(Phase.PREPARE)
            self._counter = self.highest.counter + 1
        elif self._retry_at is None:  # the missing juror may still settle it; else prepare
            self._retry_at = now + BACKOFF_NS

    def _receive_promise(self, juror: str, reply: Promise) -> None:
        self._held[juror] = reply
        if len(self._held) < self.roster.quorum:
            return
        newest = max(self._held.values(), key=lambda h: h.accepted)
        held, new = newest.value, self._put
        if new is None and self._settled() is not None:
            self._finish_read()
            return
        if new is None or (held is not None and held != new and not may_store(held, new)):
            # also a refused put goes on: accepted under this ballot, what is held makes every earlier put void
            self._choice, self._is_ours = held, False
        else:
            self._choice, self._is_ours = new, True
        self._begin(Phase.ACCEPT)

    def _settled(self) -> Ballot | None:
        """Return the newest ballot if a majority reports it: its value was chosen, nothing newer before."""
        newest = max(h.accepted for h in self._held.values())
        agreeing = sum(1 for h in self._held.values() if h.accepted == newest)
        return newest if agreeing >= self.roster.quorum else None

    def _finish_read(self) -> None:
        self.value = max(self._held.values(), key=lambda h: h.accepted).value
        self.phase = Phase.ENDED
        self.outcome = Outcome.DONE if self._put is None else Outcome.REFUSED

    def _conclude(self) -> None:
        self.value = self._choice
        self.phase = Phase.ENDED
        self.outcome = Outcome.DONE if self._put is None or self._is_ours else Outcome.REFUSED
