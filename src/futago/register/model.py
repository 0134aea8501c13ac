"""The nouns of the register W: ballots, the value it holds, and the messages between a member (proposer) and a juror
(acceptor).

No rule lives here: acceptor.py and ballot.py have them. The picture: a jury of 3 or 5 acceptors holds one value, the
newest view of one pair. Whoever wants to change it needs a majority twice: a promise to a ballot, then the acceptance
of a value under that ballot (CASPaxos, Rystsov 2018).

A ballot is never used for two values: its `nonce` is drawn anew by every proposal, so a restarted controller cannot
repeat an old ballot.
"""

from __future__ import annotations

from enum import Enum

import msgspec


class Ballot(msgspec.Struct, frozen=True, order=True):
    """The rank of one attempt. Compared by counter, then by proposer, then by nonce."""

    counter: int = 0
    proposer: str = ""
    nonce: int = 0


NO_BALLOT = Ballot()


class Value(msgspec.Struct, frozen=True):
    """What the register holds: a view, and the version of the jury's roster that has to be asked from now on."""

    epoch: int
    primary: str
    insync: tuple[str, ...]
    """Sorted names."""
    floor: int = 0
    roster: int = 1


class AcceptorState(msgspec.Struct, frozen=True):
    """What one juror keeps on its disk for one pair. It must be durable before the reply that goes with it is sent.

    `acceptor_id` is drawn when the file is made: a juror that lost its file is a new acceptor and must not answer for
    the old one.
    """

    pair_id: str
    acceptor_id: str
    roster: int = 0
    """Highest roster version ever seen; lower ones are refused."""
    promised: Ballot = NO_BALLOT
    accepted: Ballot = NO_BALLOT
    value: Value | None = None


class Address(msgspec.Struct, frozen=True):
    """Whom a request is meant for; repeated in every request, so that a misdirected one is refused."""

    pair_id: str
    acceptor_id: str
    roster: int


class Query(msgspec.Struct, frozen=True, tag="query"):
    """Tell me what you hold. Changes nothing, costs no disk write."""

    to: Address
    serial: int


class Prepare(msgspec.Struct, frozen=True, tag="prepare"):
    """Promise not to take part in any lower ballot, and tell me what you hold."""

    to: Address
    serial: int
    ballot: Ballot


class Accept(msgspec.Struct, frozen=True, tag="accept"):
    """Hold this value, unless you promised a higher ballot."""

    to: Address
    serial: int
    ballot: Ballot
    value: Value


class Held(msgspec.Struct, frozen=True, tag="held"):
    """Answer to Query."""

    serial: int
    promised: Ballot
    accepted: Ballot
    value: Value | None


class Promise(msgspec.Struct, frozen=True, tag="promise"):
    """Answer to Prepare: given."""

    serial: int
    ballot: Ballot
    accepted: Ballot
    value: Value | None


class Accepted(msgspec.Struct, frozen=True, tag="accepted"):
    """Answer to Accept: held, durably."""

    serial: int
    ballot: Ballot


class RejectReason(Enum):
    """Why a request was refused."""

    BALLOT = "ballot"  # a higher ballot was promised: `promised` says which
    WRONG_PAIR = "wrong-pair"
    WRONG_ACCEPTOR = "wrong-acceptor"  # this juror lost its file or was enrolled anew: it has no vote in this roster
    OLD_ROSTER = "old-roster"  # a newer jury was seated: `roster` says which
    UNABLE = "unable"  # the juror cannot write its file
    WENT_BACK = "restored from an old copy"  # never sent: the asking member noticed it, and does not believe the juror


class Reject(msgspec.Struct, frozen=True, tag="reject"):
    """Answer to any request: refused."""

    serial: int
    reason: RejectReason
    promised: Ballot = NO_BALLOT
    roster: int = 0


Request = Query | Prepare | Accept
Reply = Held | Promise | Accepted | Reject
