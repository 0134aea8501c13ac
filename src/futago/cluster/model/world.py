"""What a member knows of its PostgreSQL, the peer, W, the gate, the fence device, operators and its own recovery."""

# ruff: noqa: RUF009  every default is immutable
from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from futago.cluster.model.views import At, Epoch, Lsn, MemberName, View


class PgState(Enum):
    """What our own PostgreSQL is doing, as far as this member knows."""

    ABSENT = "absent"  # no usable data directory (joining from empty, or a broken ladder step)
    # data directory there, not running, was not started since this member booted or was stopped by us
    STOPPED = "stopped"
    DIED = "died"  # it ran in this boot and ended without our order, or could not be started
    STARTING = "starting"
    STANDBY = "standby"  # running, in recovery
    PRIMARY = "primary"  # running, accepts writes
    HUNG = "hung"  # running, but the probe over a new connection got no answer within its limit
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Pg:
    """Our own PostgreSQL. LSNs are 0 when unknown."""

    state: PgState = PgState.STOPPED
    timeline: int = 0
    # as primary: own insert/flush position; as standby: received and flushed; stopped: from the control file, else 0
    flush: Lsn = Lsn(0)
    replay: Lsn = Lsn(0)
    # as primary: WAL position when it began to accept writes after this start or promotion, or, if that was later, when
    # the gate was closed last: ending a session that waits for the peer makes its commit visible without the peer
    start_lsn: Lsn = Lsn(0)
    is_streaming: bool = False  # as standby: the WAL receiver streams from the peer on our timeline
    peer_is_streaming: bool = False  # as primary: the peer's walsender is in state streaming
    peer_flush: Lsn = Lsn(0)  # as primary: what the peer reported as flushed
    # as primary, enforced or with a streaming peer: since when the peer has not confirmed something we wrote
    unconfirmed_since: At | None = None
    enforced: bool | None = None  # do commits wait for the peer? None: unknown or in change
    barrier_epoch: Epoch = Epoch(0)  # VerifyBarrier passed while this SOLO epoch was durable (0: not since enforcing)
    is_disk_ok: bool = True  # the data volume's write probe succeeded lately: it can be written now
    # the disk failed once (an I/O error), and its data have not been copied anew and read back since: cluster/volume.py
    is_suspect: bool = False
    died_count: int = 0  # deaths since the last stable minute
    # the data directory is a standby's (standby.signal): it must be promoted, never started as primary
    has_standby_signal: bool = False

    @property
    def is_disk_well(self) -> bool:
        """The data volume can be written, and what is on it is trusted."""
        return self.is_disk_ok and not self.is_suspect


@dataclass(frozen=True, slots=True)
class Wants:
    """What a member asks of the other in its heartbeats.

    kind ``solo``: "let me serve alone in `epoch`" (T3). kind ``drop``: the same, to a member that has lost its memory,
    where there is no third vote to ask. kind ``handover``: "I will hand over to you in `epoch`" (T4, announced before
    gate and address go; the peer takes over by the third vote if it stays unfinished). kind ``rejoin``: "I am
    rejoining; keep my WAL".
    """

    kind: str
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a member says of itself every h on every link. Authenticated by HMAC in link/heartbeat.py."""

    member: MemberName
    boot: str
    seq: int
    view: View | None
    intent: Epoch
    is_able: bool
    pg: PgState
    timeline: int
    flush: Lsn
    replay: Lsn
    is_streaming: bool
    is_disk_ok: bool
    gate_open: bool
    address_held: bool
    wants: Wants | None
    journals_complete: bool
    is_fit: bool  # in its own judgement it could serve as primary now
    service_ok: bool  # its service network works as far as it can tell
    maintenance: bool = False  # an operator wants no automatic switch: see Facts.maintenance
    is_leaving: bool = False  # it is being shut down in good order and wants to hand over, or to be let go
    authority: str = "register"  # what decides by its settings; a fence that decides counts only where both say so
    is_suspect: bool = False  # see Pg.is_suspect
    manager_ok: bool = True  # its manager and web answer, so it would do better than a primary whose do not

    @property
    def is_disk_well(self) -> bool:
        """Its data volume can be written, and what is on it is trusted."""
        return self.is_disk_ok and not self.is_suspect


@dataclass(frozen=True, slots=True)
class Link:
    """One heartbeat path. Up only if both directions are fresh (the peer echoes what it heard)."""

    name: str
    rx_at: At | None = None  # last valid heartbeat received
    echo_at: At | None = None  # when we sent the newest heartbeat that the peer has echoed on this link


@dataclass(frozen=True, slots=True)
class Peer:
    """What is known of the other member.

    Silence is `now - heard_at`, or since `watching_since` when nothing was ever heard.
    """

    heartbeat: Heartbeat | None = None
    heard_at: At | None = None
    watching_since: At = At(0)
    links: tuple[Link, ...] = ()
    said_bye: bool = False  # an orderly shutdown was announced: silence need not be waited for
    unfit_since: At | None = None  # since when its heartbeats have said is_fit=False or is_able=False
    wants_since: At | None = None  # since when its heartbeats have carried the present `wants`


class Cas(Enum):
    """Outcome of the compare-and-set that was asked last."""

    NONE = "none"
    PENDING = "pending"
    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Register:
    """What is known of W.

    `read_at` and `contact_at` are the instants at which the request *began* whose answer from a majority arrived: an
    answer that lay in a buffer while this member stood still proves nothing about later. `asked_at`: when a read was
    last begun, answered or not.

    What every kind of W must keep: once a put of this member has ended as DONE or REFUSED, no earlier put of this
    member can be stored any more.
    """

    is_configured: bool = False
    view: View | None = None  # newest view read or written; None: never read, or empty
    read_at: At | None = None
    contact_at: At | None = None
    asked_at: At | None = None
    is_pending: bool = False  # a read is under way
    cas: Cas = Cas.NONE
    cas_epoch: Epoch = Epoch(0)
    cas_at: At | None = None  # when that outcome arrived


class Gate(Enum):
    """The pg_hba file that lets application roles in.

    UNKNOWN is treated as open when closing matters and as closed when serving matters.
    """

    CLOSED = "closed"
    OPEN = "open"
    UNKNOWN = "unknown"


class FenceOutcome(Enum):
    """What the fence device of the other member said to the last order."""

    NONE = "none"
    PENDING = "pending"
    OFF = "off"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Fence:
    """The forced stop of the other member, ordered for `epoch`, and what its device says of its power.

    `power_at` is the instant at which the question *began* that was answered last: an answer proves nothing about later.
    """

    is_configured: bool = False
    outcome: FenceOutcome = FenceOutcome.NONE
    epoch: Epoch = Epoch(0)
    at: At | None = None  # when the outcome arrived
    is_powered_on_again: bool = False  # power-on was ordered after the off of `epoch`
    has_power: bool | None = None  # what the device answered last; None: it did not answer the last question
    power_at: At | None = None
    asked_at: At | None = None  # when it was last asked, answered or not
    is_asking: bool = False


class OpKind(Enum):
    """What an operator asked for. One at a time; the executor clears it when decide emits OpDone."""

    NONE = "none"
    SWITCHOVER = "switchover"
    RECOVER = "recover"
    FORCE_PRIMARY = "force-primary"


@dataclass(frozen=True, slots=True)
class Op:
    kind: OpKind = OpKind.NONE
    since: At = At(0)


class RejoinStep(Enum):
    """The rungs of the recovery ladder; the executor climbs as far as needed and reports."""

    NONE = "none"
    RUNNING = "running"
    FAILED = "failed"  # this attempt failed; `retry_at` says when the next may start
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Rejoin:
    step: RejoinStep = RejoinStep.NONE
    rung: str = ""  # follow, rewind, basebackup, empty
    retry_at: At = At(0)
    failures: int = 0
