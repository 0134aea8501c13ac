"""Everything that one member knows at one instant, and the settings that the decision needs."""

# ruff: noqa: RUF009  every default is immutable
from __future__ import annotations

from dataclasses import dataclass

from futago.cluster.model.views import At, Durable, Epoch, MemberName
from futago.cluster.model.world import Fence, Gate, Op, Peer, Pg, Register, Rejoin, Wants


@dataclass(frozen=True, slots=True)
class Config:
    """Settings that the decision needs. All times in nanoseconds."""

    me: MemberName
    peer: MemberName
    h: int  # heartbeat interval
    k: int  # missed heartbeats until the peer counts as silent
    bias: int  # how much longer the standby waits than the primary
    t_stall: int  # how long an unconfirmed write or an unanswered T3/T4 is borne
    authority: str = "register"  # or "fence": the fence device of the other member is the third vote
    recovery: str = "auto"  # or "manual"
    fence_after: str = "on"  # or "stay_off"
    has_peer: bool = True  # False until a second member has joined
    # authority "fence": by how much the shots of the two members are apart when both may shoot; more than a shot takes
    fence_delay: int = 5_000_000_000

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
    # our receiver tells no sender any more that a message is safe before the peer has it, and the peer has all of which it did
    journals_settled: bool = True
    service_ok: bool = True
    manager_ok: bool = True  # as primary: the manager's and web's own heartbeats are fresh
    # an operator is at work on the pair: nobody takes over, hands over, shoots or powers on by himself. What goes on: a
    # primary whose peer is away goes on alone (T1, T3), the peer is taken back (T5), and operators' own orders
    maintenance: bool = False
    is_leaving: bool = False  # this machine is being shut down: hand over, or be let go
    # when W gave us the present view without the peer's consent; None: it consented, or we restarted since
    won_at: At | None = None
    started_at: At = At(0)  # when this controller began to watch
    # the last contact to peer or W that an earlier controller of this boot noted (on tmpfs): T_self is not renewed by a
    # restart. None: this host booted since; 0: something was adopted and nothing is known
    contact_before: At | None = None
    # the loop found that it had stood still for longer than t_self: until it has heard peer or W again, act as
    # isolated
    woke_at: At | None = None
    # authority "fence": the epoch of the paired view that both members had on disk, heard from the other one *in this
    # boot* of this host (on tmpfs): only so long as it lasts may a shot decide. See docs/internals/cluster.md
    met_epoch: Epoch = Epoch(0)
    power_ons: tuple[At, ...] = ()  # when this controller powered the other member on without being asked, newest last
    # does anybody answer for the floating IP on the network, while it is not ours? None: not known
    address_answers: bool | None = None
