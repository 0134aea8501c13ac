"""What the agent knows in memory about a run: a view of the disk (records.py), never more than that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from futago.agent.model import Keeper
from futago.link.orders import Order, OrderTaken, Refused

Answer = Callable[[OrderTaken | Refused], None]


class Phase(Enum):
    """Where a run stands, as far as this agent process knows."""

    TAKING = "taking"  # its order is being written
    HELD = "held"  # durable; started, or about to be, or to be looked at
    ENDED = "ended"


@dataclass(slots=True)
class HeldRun:
    """One run. `order` is None where it was not read yet, and again when the run has ended."""

    run_id: str
    phase: Phase
    answers: list[Answer] = field(default_factory=list)
    order: Order | None = None
    keeper: Keeper | None = None
    pidfd: int = -1
    starts: int = 0
    blank_looks: int = 0
    is_kept: bool = False  # its end is durable
    is_stopping: bool = False  # a person wants it ended
    kill_at: int | None = None  # it was asked to end; SIGKILL from then on
    stopper: int = 0  # the process of its stop command; 0: none


@dataclass(slots=True)
class Counters:
    """Since this agent process started."""

    taken: int = 0
    repeated: int = 0
    refused: int = 0
    started: int = 0
    adopted: int = 0
    ended: int = 0
    unknown: int = 0
    committed: int = 0
    timed_out: int = 0
    stopped: int = 0
