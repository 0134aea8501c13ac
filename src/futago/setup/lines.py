"""The lines that an operator carries to other machines, with fresh tokens in them. What must be filled in stands in
capitals.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from futago.runtime.clock import now_utc
from futago.runtime.faults import OperatorFault
from futago.setup import authority, fencing, paths, token
from futago.setup.settings import Settings
from futago.setup.token import Purpose


@dataclass(frozen=True, slots=True)
class Lines:
    """One line for the second member, one for every host; and the tokens in them.

    `state` and `join_when` are the sentences around the first.
    """

    state: str
    join_when: str
    join: str
    enroll: str
    join_token: str
    enroll_token: str


def fresh_token(own: Settings, purpose: Purpose, *, life: timedelta = token.LIFE) -> str:
    """Return a new token of this pair as one word.

    Raises:
        OperatorFault: this user may not read the key that seals it.
    """
    first, both = own.own, [own.own, *(m for m in own.members if m.name != own.me)]
    addresses = (first.service, first.heartbeat) if purpose is Purpose.JOIN else tuple(m.service for m in both)
    try:
        key, ca = paths.TOKEN_KEY.read_bytes(), paths.CA_CERT.read_bytes()
    except OSError as e:
        raise OperatorFault(
            f"The pair's keys cannot be read: {e}.", hint="Run this as root on a member.", code="setup.root"
        ) from e
    made = token.make(
        purpose,
        pair_id=own.pair.id,
        ca_sha256=authority.fingerprint(ca),
        members=addresses,
        now_utc=now_utc(),
        life=life,
    )
    return token.seal(made, key)


def join_line(own: Settings, word: str) -> str:
    """Return the line for the other member; for one that was there before, with its own values."""
    peer = own.peer
    if peer is None:
        return (
            f"futago join --token {word} --member {_second_name(own.me)} --service SERVICE_ADDRESS --heartbeat "
            "HEARTBEAT_ADDRESS"
            " --interface INTERFACE --fence ipmi://USER@FENCE_ADDRESS --fence-password-file FILE"
        )
    return (
        f"futago join --token {word} --member {peer.name} --service {peer.service} --heartbeat {peer.heartbeat}"
        f" --interface {peer.interface} {fencing.words(peer.fence)}"
    )


def enroll_line(word: str) -> str:
    """Return the line for hosts: the same for all of them."""
    return f"futago agent enroll --token {word}"


def lines(own: Settings, *, life: timedelta = token.LIFE) -> Lines:
    """Return both lines with fresh tokens."""
    join, enroll = (fresh_token(own, purpose, life=life) for purpose in (Purpose.JOIN, Purpose.ENROLL))
    if own.peer is None:
        state, when = f"{own.me} serves alone.", "On the second machine, with the words in capitals filled in"
    else:
        state, when = (
            f"The pair has two members, {own.me} and {own.peer.name}.",
            f"To put {own.peer.name} in place again",
        )
    return Lines(state, when, join_line(own, join), enroll_line(enroll), join, enroll)


def _second_name(first: str) -> str:
    """Return a name for the other member: m1 -> m2, tokyo -> tokyo-2."""
    return f"{first[:-1]}2" if first.endswith("1") else f"{first[:28]}-2"
