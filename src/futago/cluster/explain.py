"""Answers to two questions of an operator: why is the pair as it is, and what would happen if X failed now.

Lives here: the questions, the shape of the answers, and facts as bytes, so that whoever asks may think for himself
instead of holding the controller up. Must not live here: a second opinion; every step of an answer is what the
production `decide` does with the facts as they would be (foresee.py breaks one thing, course.py plays it through). Pure: no clock, no I/O.

How to use it: the controller hands out `pack(facts, now)`; the CLI or the web program calls `unpack` and then `why`
and `what_if`. An answer costs some 10 to 300 ms of one processor, which is why the controller does not give it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import msgspec

from futago.cluster.decide import decide, matching_row
from futago.cluster.model import Decision, Facts, MemberName
from futago.cluster.situation import Situation


class Failure(Enum):
    """What can be asked about. "Primary" and "standby" are the members as they are now."""

    PRIMARY_POWER = "primary-power"
    STANDBY_POWER = "standby-power"
    BOTH_POWER = "both-power"
    PEER_NETWORK = "peer-network"  # every network between the two; each still reaches the third vote
    PRIMARY_NETWORK = "primary-network"  # every network of the primary
    HEARTBEAT_NETWORK = "heartbeat-network"  # the service network is alive
    THIRD_VOTE = "third-vote"
    PRIMARY_FENCE = "primary-fence"  # the device that powers the primary off
    STANDBY_FENCE = "standby-fence"
    POSTGRESQL = "postgresql"  # of the primary
    MANAGER = "manager"  # of the primary
    CONTROLLER = "controller"  # of the primary
    PRIMARY_DISK = "primary-disk"  # its data volume takes no more writes
    STANDBY_DISK = "standby-disk"


class Outcome(Enum):
    """How a failure ends, in one word."""

    GOES_ON = "goes-on"  # clients notice nothing
    PAUSES = "pauses"  # commits wait for a moment, the same member goes on
    SWITCHES = "switches"  # the other member takes over
    STOPS = "stops"  # nobody serves until the failure, or something else, is mended
    DOES_NOT_APPLY = "does-not-apply"  # there is nothing here that could fail so


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the story. `at_ms` counts from the failure."""

    at_ms: int
    member: MemberName
    rule: str
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What would happen.

    `sentences` say all of it, in order, for people. `pause_ms`: how long no commit is acknowledged; 0 for none, None
    if that lasts until somebody acts. `serves`: who serves afterwards, None for nobody. `command`: what resolves it,
    empty when nothing is needed.
    """

    failure: Failure
    title: str
    outcome: Outcome
    serves: MemberName | None
    pause_ms: int | None
    lost: str
    sentences: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    command: str = ""


def why(facts: Facts, now: int, decision: Decision | None = None) -> tuple[str, ...]:
    """Say why the pair is in its state, as this member sees it.

    Args:
        facts: what it knows at `now`.
        decision: what it decided then; decided anew if not given, which gives the same.

    Returns:
        Sentences: the reason with its rule, what ends it, the command if one is needed, what is not protected.
    """
    s = Situation(facts, now)
    decision = decision or decide(facts, now)
    return tuple(_why(s, decision))


def _why(s: Situation, decision: Decision) -> Iterator[str]:
    yield f"{decision.reason} [{decision.rule}]"
    row = matching_row(s)
    if row.id == decision.rule and row.waits_for:
        yield f"This lasts until: {row.waits_for}."
    if decision.command:
        yield f"The command for this is `{decision.command}`."
    if s.dv is not None:
        both = " and ".join(sorted(s.dv.insync))
        yield f"By view {s.epoch}, {s.dv.primary} is the primary, and an acknowledged write is on the disk of {both}."
    yield from decision.notes


def what_if(facts: Facts, now: int, failure: Failure) -> Answer:
    """Say what would happen if `failure` happened at `now`.

    Args:
        facts: what this member knows, of itself and of the other one; the answer is as good as that.

    Returns:
        The answer. It never raises for odd facts: what cannot be told is said.
    """
    from futago.cluster.foresee import answer  # it needs the nouns of this file

    return answer(facts, now, failure)


def what_ifs(facts: Facts, now: int) -> tuple[Answer, ...]:
    """Say it for every failure, in the order of `Failure`."""
    return tuple(what_if(facts, now, failure) for failure in Failure)


class _Packed(msgspec.Struct, frozen=True):
    now: int
    facts: Facts


def pack(facts: Facts, now: int) -> bytes:
    """Return facts and their instant as JSON."""
    return msgspec.json.encode(_Packed(now, facts))


def unpack(data: bytes) -> tuple[Facts, int]:
    """Return the facts and the instant that `pack` was given.

    Raises:
        runtime.unreadable.UNREADABLE: `data` is something else.
    """
    packed = msgspec.json.decode(data, type=_Packed)
    return packed.facts, packed.now
