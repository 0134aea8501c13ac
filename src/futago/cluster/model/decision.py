"""What is decided: actions, when to look again, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from futago.cluster.model.actions import Action
from futago.cluster.model.views import At


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
