"""The nouns of the pair's protocol: what is known (Facts), what is to be done (actions), what is decided (Decision).

Pure data: no clock, no I/O. Everything here is immutable. `decide` reads Facts and `now`; the executor performs
actions and turns their outcomes into new facts. All instants are integer nanoseconds of one member's own monotonic
clock (runtime/clock.py); instants of two members are never compared.

Words: a *view* is (epoch, primary, in-sync set). PAIRED means that both members are in sync, SOLO that the primary
serves alone. `W` is the register, the third vote. T1 to T9 are the transitions of docs/internals/cluster.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NewType

MemberName = NewType("MemberName", str)
Epoch = NewType("Epoch", int)
Lsn = NewType("Lsn", int)  # PostgreSQL write-ahead log position, bytes
At = NewType("At", int)  # nanoseconds, monotonic, local


@dataclass(frozen=True, slots=True)
class View:
    """Who serves, and whose disk must hold a write before it is acknowledged.

    `floor` is the primary's WAL position when the view was made: a member that restarts alone must reach it.
    """

    epoch: Epoch
    primary: MemberName
    insync: frozenset[MemberName]
    floor: Lsn = Lsn(0)

    @property
    def is_solo(self) -> bool:
        return len(self.insync) == 1


@dataclass(frozen=True, slots=True)
class Durable:
    """What this member has on its own system disk.

    `intent` is the epoch that was asked of W (0: none). `stopped_epoch` is the highest epoch for which the other
    member is known to have been stopped (fence said off), to have handed over, or to have learned the view: outward
    effects need no further proof in that epoch.
    """

    view: View | None = None
    intent: Epoch = Epoch(0)
    stopped_epoch: Epoch = Epoch(0)
    is_able: bool = True  # False: the last durable write failed or hangs
    # a view or an intent is being written, or such a write failed or hangs, so that either may be on the disk
    is_writing: bool = False


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
    is_disk_ok: bool = True  # the data volume's write probe succeeded lately
    died_count: int = 0  # deaths since the last stable minute
    # the data directory is a standby's (standby.signal): it must be promoted, never started as primary
    has_standby_signal: bool = False


@dataclass(frozen=True, slots=True)
class Wants:
    """What a member asks of the other in its heartbeats.

    kind ``solo``: "let me serve alone in `epoch`" (T3). kind ``handover``: "I will hand over to you in `epoch`" (T4,
    announced before gate and address go; the peer takes over through W if it stays unfinished). kind ``rejoin``: "I
    am rejoining; keep my WAL".
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
    maintenance: bool = False


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
    """The forced stop of the other member, ordered for `epoch`."""

    is_configured: bool = False
    outcome: FenceOutcome = FenceOutcome.NONE
    epoch: Epoch = Epoch(0)
    at: At | None = None  # when the outcome arrived
    is_powered_on_again: bool = False  # power-on was ordered after the off of `epoch`


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


@dataclass(frozen=True, slots=True)
class Config:
    """Settings that the decision needs. All times in nanoseconds."""

    me: MemberName
    peer: MemberName
    h: int  # heartbeat interval
    k: int  # missed heartbeats until the peer counts as silent
    bias: int  # how much longer the standby waits than the primary
    t_stall: int  # how long an unconfirmed write or an unanswered T3/T4 is borne
    authority: str = "register"  # or "fence"
    recovery: str = "auto"  # or "manual"
    fence_after: str = "on"  # or "stay_off"
    has_peer: bool = True  # False until a second member has joined

    @property
    def t_det(self) -> int:
        return self.h * self.k

    @property
    def t_self(self) -> int:
        """How long a primary without contact to the peer and to W keeps gate and address open."""
        return self.t_det + 500_000_000


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that one member knows at one instant."""

    cfg: Config
    durable: Durable = Durable()
    peer: Peer = Peer()
    register: Register = Register()
    pg: Pg = Pg()
    gate: Gate = Gate.CLOSED
    address_held: bool | None = False  # the floating IP; None: unknown
    fence: Fence = Fence()
    op: Op = Op()
    rejoin: Rejoin = Rejoin()
    wants: Wants | None = None  # what we ask of the peer now
    wants_since: At = At(0)
    journals_complete: bool = True  # the copies of both journals are complete on both members
    service_ok: bool = True
    manager_ok: bool = True  # as primary: the manager's and web's own heartbeats are fresh
    maintenance: bool = False
    # when W gave us the present view without the peer's consent; None: it consented, or we restarted since
    won_at: At | None = None
    started_at: At = At(0)  # when this controller began to watch
    # the last contact to peer or W that an earlier controller of this boot noted (on tmpfs): T_self is not renewed by a
    # restart. None: this host booted since; 0: something was adopted and nothing is known
    contact_before: At | None = None
    # the loop found that it had stood still for longer than t_self: until it has heard peer or W again, act as
    # isolated
    woke_at: At | None = None


# --- actions: data only, idempotent; emitted again until their fact changes
# ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PersistView:
    """Write the view durably; in the same write clear the intent if view.epoch >= intent.

    stopped: in the same write also set stopped_epoch = view.epoch: the other member was not the primary before, or it
    consented.
    """

    view: View
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class PersistIntent:
    """Write durably that W will be asked for `epoch`; 0: nothing is asked any more."""

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class PersistStopped:
    """Write durably that the other member is known to be stopped, or to know better, in `epoch`."""

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class ReadRegister:
    """Ask a majority of W for its view."""


@dataclass(frozen=True, slots=True)
class CasRegister:
    """Put the view into W if W's epoch is lower. Outcome in Register.cas."""

    view: View


@dataclass(frozen=True, slots=True)
class SetWants:
    """Say this to the peer in every heartbeat (None: nothing)."""

    wants: Wants | None


@dataclass(frozen=True, slots=True)
class Enforce:
    """on: commits wait for the peer (named explicitly). off: they do not; verified by a commit that returns, else
    PostgreSQL is restarted.

    Written to the controller's own include file first, so it also holds for the next start; applied by reload when
    PostgreSQL runs.
    """

    on: bool


@dataclass(frozen=True, slots=True)
class VerifyBarrier:
    """Prove that commits wait for the peer, and that it has all that was written before. Sets Pg.barrier_epoch.

    Pause its replay; a remote_apply probe must be seen waiting; note our flush position; resume; the probe must finish
    and the peer's flush must reach the noted position.
    """

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class StartPg:
    """Start PostgreSQL: as standby of the peer (recovery), or as primary.

    The gate file is closed first. Includes Enforce(enforced) in the include file.
    """

    as_standby: bool
    enforced: bool


@dataclass(frozen=True, slots=True)
class Promote:
    """Promote our standby; the include file has enforcement off before."""


@dataclass(frozen=True, slots=True)
class StopPg:
    """Stop PostgreSQL orderly (fast mode): the connected standby receives everything. A kill when it is late."""


@dataclass(frozen=True, slots=True)
class KillPg:
    """Kill the whole control group of PostgreSQL and wait until it is empty."""


@dataclass(frozen=True, slots=True)
class SetGate:
    """open: let application roles in, verified by a new connection. closed: refuse them and end their sessions."""

    open: bool


@dataclass(frozen=True, slots=True)
class HoldAddress:
    """True: own the floating IP (gratuitous ARP now and refreshed). False: give it up."""

    hold: bool


@dataclass(frozen=True, slots=True)
class FenceOff:
    """Power the other member off through its device: read the state first, off counts without a shot."""

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class FenceOn:
    """Power the other member on."""

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class StartRejoin:
    """Climb the recovery ladder against the primary `source`: follow, rewind, base backup, empty disk.

    Reports in Rejoin. While a destructive rung runs, or was cut short by a crash, Pg.state is ABSENT.
    """

    source: MemberName
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class OpDone:
    """The operator's request has been fulfilled or refused; `text` says which."""

    ok: bool
    text: str


Action = (
    PersistView
    | PersistIntent
    | PersistStopped
    | ReadRegister
    | CasRegister
    | SetWants
    | Enforce
    | VerifyBarrier
    | StartPg
    | Promote
    | StopPg
    | KillPg
    | SetGate
    | HoldAddress
    | FenceOff
    | FenceOn
    | StartRejoin
    | OpDone
)


class PairState(Enum):
    """The situation of the pair in one word, as this member sees it; the `state` of `futago status`."""

    PAIRED = "paired"
    SOLO = "solo"
    BLOCKED = "blocked"
    STARTING = "starting"
    SWITCHING = "switching"
    NO_PEER = "no-peer"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, when to look again at the latest, and why.

    `rule` is the id of the row that decided (stable, never reused); `reason` its sentence for people; `command` the
    one command that would resolve the situation, empty when none is needed. `is_serving`: this member may serve
    clients. `may_act_outward`: notifications, orders, floating IP (S5).
    """

    actions: tuple[Action, ...]
    wake_at: At
    rule: str
    reason: str
    command: str = ""
    is_serving: bool = False
    may_act_outward: bool = False
    notes: tuple[str, ...] = field(default=())  # further things not protected, each a sentence
    state: PairState = PairState.STARTING
    is_protected: bool = False
