"""What a rule is: a row of the table, and a section of rows. Must not live here: any rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from futago.cluster.model import Action, PairState
from futago.cluster.situation import Situation

Actions = tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One rule. `why` is a sentence for people; {me}, {peer} and {epoch} are filled in."""

    id: str
    when: Callable[[Situation], bool]
    why: str
    do: Callable[[Situation], Actions]
    state: PairState
    command: str = ""
    waits_for: str = ""  # what ends the situation when the row orders nothing (any more); empty: it always orders
    keeps_wants: bool = False  # what we ask of the peer stays as it is; everywhere else it is withdrawn
    asks_w: bool = False  # the row pursues the open question to W; everywhere else that question is settled and dropped


@dataclass(frozen=True, slots=True)
class Section:
    """The rows for one standing of this member."""

    name: str
    when: Callable[[Situation], bool]
    rows: tuple[Row, ...]


def always(_s: Situation) -> bool:
    return True


def nothing(_s: Situation) -> Actions:
    return ()
