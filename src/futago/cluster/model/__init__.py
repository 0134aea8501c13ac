"""The nouns of the pair's protocol: what is known (Facts), what is to be done (actions), what is decided (Decision).

Pure data: no clock, no I/O. Everything here is immutable. `decide` reads Facts and `now`; the executor performs
actions and turns their outcomes into new facts. All instants are integer nanoseconds of one member's own monotonic
clock (runtime/clock.py); instants of two members are never compared.

Words: a *view* is (epoch, primary, in-sync set). PAIRED means that both members are in sync, SOLO that the primary
serves alone. `W` is the register, the third vote. T1 to T9 are the transitions of docs/internals/cluster.md.

Rooms: views, world (what is known of each part), facts (all of it), actions, decision. Import from here.
"""

from futago.cluster.model.actions import (
    Action,
    AskPower,
    CasRegister,
    Enforce,
    FenceOff,
    FenceOn,
    HoldAddress,
    KillPg,
    NoteMet,
    OpDone,
    PersistIntent,
    PersistStopped,
    PersistView,
    Promote,
    ReadRegister,
    SetGate,
    SetWants,
    StartPg,
    StartRejoin,
    StopPg,
    VerifyBarrier,
)
from futago.cluster.model.decision import (
    Decision,
    PairState,
)
from futago.cluster.model.facts import (
    Config,
    Facts,
)
from futago.cluster.model.views import (
    At,
    Durable,
    Epoch,
    Lsn,
    MemberName,
    View,
)
from futago.cluster.model.world import (
    Cas,
    Fence,
    FenceOutcome,
    Gate,
    Heartbeat,
    Link,
    Op,
    OpKind,
    Peer,
    Pg,
    PgState,
    Register,
    Rejoin,
    RejoinStep,
    Wants,
)

__all__ = [
    "Action",
    "AskPower",
    "At",
    "Cas",
    "CasRegister",
    "Config",
    "Decision",
    "Durable",
    "Enforce",
    "Epoch",
    "Facts",
    "Fence",
    "FenceOff",
    "FenceOn",
    "FenceOutcome",
    "Gate",
    "Heartbeat",
    "HoldAddress",
    "KillPg",
    "Link",
    "Lsn",
    "MemberName",
    "NoteMet",
    "Op",
    "OpDone",
    "OpKind",
    "PairState",
    "Peer",
    "PersistIntent",
    "PersistStopped",
    "PersistView",
    "Pg",
    "PgState",
    "Promote",
    "ReadRegister",
    "Register",
    "Rejoin",
    "RejoinStep",
    "SetGate",
    "SetWants",
    "StartPg",
    "StartRejoin",
    "StopPg",
    "VerifyBarrier",
    "View",
    "Wants",
]
