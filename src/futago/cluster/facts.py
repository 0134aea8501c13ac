"""The board: everything this member knows, in one place, from which `Facts` are taken.

Lives here: the present value of every fact, and the bell that rings when one changes. Must not live here: any
judgement. The idea: the board in a control room. Observers and the executor pin notes onto it; the decision reads all
of it at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from futago.cluster.model import (
    At,
    Config,
    Durable,
    Epoch,
    Facts,
    Fence,
    Gate,
    Op,
    Peer,
    Pg,
    Register,
    Rejoin,
    Wants,
)

NEVER = At(0)
NO_EPOCH = Epoch(0)


@dataclass(slots=True)
class Board:
    """All facts. Assign through `put` and the `put_...` methods, which ring the bell on a change."""

    cfg: Config
    started_at: At
    read_durable: Callable[[], Durable] = Durable
    read_peer: Callable[[], Peer] = Peer
    pg: Pg = field(default_factory=Pg)
    register: Register = field(default_factory=Register)
    gate: Gate = Gate.UNKNOWN
    address_held: bool | None = None
    fence: Fence = field(default_factory=Fence)
    op: Op = field(default_factory=Op)
    rejoin: Rejoin = field(default_factory=Rejoin)
    wants: Wants | None = None
    wants_since: At = NEVER
    journals_complete: bool = False
    journals_settled: bool = False
    service_ok: bool = True
    manager_ok: bool = True
    maintenance: bool = False
    is_leaving: bool = False
    met_epoch: Epoch = NO_EPOCH
    power_ons: tuple[At, ...] = ()
    address_answers: bool | None = None
    won_at: At | None = None
    woke_at: At | None = None
    contact_before: At | None = None
    bell: asyncio.Event = field(default_factory=asyncio.Event)
    turn: int = (
        0  # another one whenever commits begin or cease to wait for the peer; what was settled before counts no more
    )

    def __post_init__(self) -> None:
        self.turn = self.started_at  # no number of an earlier controller comes again

    def put(self, **changes: Any) -> None:
        """Set facts by name; ring the bell if one of them changed."""
        for name, value in changes.items():
            if getattr(self, name) != value:
                if name == "pg" and (value.enforced is True) != (self.pg.enforced is True):
                    self.turn += 1
                    self.journals_settled = False
                setattr(self, name, value)
                self.bell.set()

    def put_pg(self, **changes: Any) -> None:
        """Change parts of the fact about our own PostgreSQL."""
        self.put(pg=replace(self.pg, **changes))

    def put_register(self, **changes: Any) -> None:
        """Change parts of the fact about W."""
        self.put(register=replace(self.register, **changes))

    def put_fence(self, **changes: Any) -> None:
        """Change parts of the fact about the other member's fence device."""
        self.put(fence=replace(self.fence, **changes))

    def put_rejoin(self, **changes: Any) -> None:
        """Change parts of the fact about the recovery ladder."""
        self.put(rejoin=replace(self.rejoin, **changes))

    def facts(self) -> Facts:
        """Return everything, as of now."""
        return Facts(
            cfg=self.cfg,
            durable=self.read_durable(),
            peer=self.read_peer(),
            register=self.register,
            pg=self.pg,
            gate=self.gate,
            address_held=self.address_held,
            fence=self.fence,
            op=self.op,
            rejoin=self.rejoin,
            wants=self.wants,
            wants_since=self.wants_since,
            journals_complete=self.journals_complete,
            journals_settled=self.journals_settled,
            service_ok=self.service_ok,
            manager_ok=self.manager_ok,
            maintenance=self.maintenance,
            is_leaving=self.is_leaving,
            met_epoch=self.met_epoch,
            power_ons=self.power_ons,
            address_answers=self.address_answers,
            won_at=self.won_at,
            started_at=self.started_at,
            woke_at=self.woke_at,
            contact_before=self.contact_before,
        )
