"""Actions: data only, idempotent; emitted again until their fact changes."""

from __future__ import annotations

from dataclasses import dataclass

from futago.cluster.model.views import Epoch, MemberName, View
from futago.cluster.model.world import Wants


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
    """Power the other member on.

    is_unasked: it lost its power by itself, and nobody asked for this; the executor adds the instant to
    Facts.power_ons.
    """

    epoch: Epoch
    is_unasked: bool = False


@dataclass(frozen=True, slots=True)
class AskPower:
    """Ask the other member's fence device whether it has power. Sets Fence.has_power and power_at."""


@dataclass(frozen=True, slots=True)
class NoteMet:
    """Note for this boot of the host (on tmpfs, not on disk) that both members have the view of `epoch`."""

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
    | AskPower
    | NoteMet
    | StartRejoin
    | OpDone
)
