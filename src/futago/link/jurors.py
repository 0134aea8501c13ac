"""What members say to a juror on PORT_JUROR: the register's own messages, and the question who it is.

Frames of link/frames.py over mutual TLS; one reply to each request, in order; a connection may stay open. A roster
names each juror by its acceptor id, so `futago jury set` asks for it first.
"""

from __future__ import annotations

import msgspec

from futago.register.model import Accept, Accepted, Held, Prepare, Promise, Query, Reject

FRAME_BYTES_MAX = 64 * 1024  # a view is a few hundred bytes
IDLE_S_MAX = 60.0  # a connection without a request is given up by the juror


class Identify(msgspec.Struct, frozen=True, tag="identify"):
    """Who are you?"""

    serial: int


class Identified(msgspec.Struct, frozen=True, tag="identified"):
    """`acceptor_id` empty: this juror cannot vote (its file is damaged). `roster`: the highest version it has seen."""

    serial: int
    acceptor_id: str
    roster: int


JurorRequest = Query | Prepare | Accept | Identify
JurorReply = Held | Promise | Accepted | Reject | Identified
