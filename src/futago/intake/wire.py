"""What two receivers say to each other over the journal sync. Each streams its own journal; the other keeps a copy.

The sender (upstream) connects; the keeper of the copy (downstream) answers. Hello, Have, then Records one way and Acks
the other, with Beats and their Answers all the time. Light: the receiver imports it.
"""

from __future__ import annotations

import msgspec

from futago.intake.model import Incarnation

PROTOCOL_VERSION = 1
FRAME_BYTES_MAX = 4 << 20
BEAT_S = 0.3
SILENCE_S_MAX = 1.5  # no frame for so long: the conversation is over


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """Upstream begins."""

    version: int
    incarnation: Incarnation


class Have(msgspec.Struct, frozen=True, tag="have"):
    """Downstream tells what its copy holds: incarnation -> last durable sequence."""

    version: int
    last: dict[str, int]


class Records(msgspec.Struct, frozen=True, tag="records"):
    """Records as they are stored, in order, of one incarnation."""

    incarnation: Incarnation
    first: int
    last: int
    data: bytes


class Ack(msgspec.Struct, frozen=True, tag="ack"):
    """Everything up to here is on the disk of the copy."""

    incarnation: str
    last: int


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """Upstream lives. `synced` is the last sequence of `incarnation` on its own disk; times are its steady clock's."""

    sent_ns: int
    incarnation: str
    synced: int
    consumed: dict[str, dict[str, int]]


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """Downstream's answer to a beat, with its own steady clock, to measure how far it is ahead."""

    echo_ns: int
    received_ns: int
    replied_ns: int
    zero_ns: int
    consumed: dict[str, dict[str, int]]


UpstreamMessage = Hello | Records | Beat
DownstreamMessage = Have | Ack | Answer
