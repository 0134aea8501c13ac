"""What follows from an event: the pure core of job control.

`advance` answers with transitions and changes nothing; `after` returns the tree that they make. An event that says
what is known already has no transitions, so events may be repeated. A unit is decided as soon as it is certain:
begun when its conditions hold, ended when they cannot hold any more; that decision may decide others, down the net. A
net ends when nothing in it is open, and the session is the outermost net.

    conditions.py  may it start?      timing.py   what does time bring?
    turn.py        what follows       operate.py  what people may do
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from futago.jobs.model import (
    AT_AGENT,
    ENDS,
    ROOT,
    Admitted,
    Due,
    Ended,
    Event,
    JobMoved,
    JobState,
    NeverTaken,
    Operated,
    OtherSeen,
    OtherStands,
    Reread,
    SessionMoved,
    SessionState,
    Started,
    Taken,
    Transition,
    Tree,
    TurnedAway,
    change,
)
from futago.jobs.operate import operate, refusal
from futago.jobs.plan import Unit
from futago.jobs.turn import Turn
from futago.link.orders import Outcome

__all__ = ["advance", "after", "end_state", "refusal"]


def advance(tree: Tree, event: Event, now: datetime) -> tuple[Transition, ...]:
    """Return what follows from `event` at `now`, in the order in which it follows."""
    if tree.state is SessionState.STARTING:
        return _start(tree, now) if isinstance(event, Started) else ()
    if tree.state is not SessionState.RUNNING:
        return ()
    turn = Turn(tree, now)
    match event:
        case Started():
            pass
        case Reread():
            _reread(turn)
        case OtherStands(ask, state):
            if ask in tree.net.asks and tree.others.get(ask) is not state:
                turn.do(OtherSeen(ask, state))
                turn.ask(tree.net.asks[ask])
        case Operated():
            if not refusal(tree, event):
                operate(turn, event)
        case _ if event.job in tree.standings:
            _of_job(turn, event)
    return turn.settle()


def after(tree: Tree, transitions: Iterable[Transition]) -> Tree:
    """Return the tree that the transitions make; `tree` stays as it is. It costs a copy of a large tree's table: who
    needs only the newest tree uses `change`.
    """
    made = tree.overlay()
    change(made, transitions)
    made.standings, made.open = dict(made.standings), dict(made.open)
    made.variables, made.others = dict(made.variables), dict(made.others)
    return made


def end_state(unit: Unit, event: Ended) -> JobState:
    """Return in which state a run ends that ended so."""
    match event.outcome:
        case Outcome.UNKNOWN:
            return JobState.UNKNOWN
        case Outcome.TIMED_OUT | Outcome.NOT_STARTED:
            return JobState.ABNORMAL
        case Outcome.EXITED:
            code = event.exit_code
            if code is None:
                return JobState.UNKNOWN
            if code in unit.normal:
                return JobState.NORMAL
            return JobState.WARNING if code in unit.warning else JobState.ABNORMAL


def _start(tree: Tree, now: datetime) -> tuple[Transition, ...]:
    turn = Turn(tree, now)
    turn.do(SessionMoved(SessionState.STARTING, SessionState.RUNNING, now))
    turn.ask(tree.net.units)  # in a run that begins again, some have ended, and nets around others are open
    turn.close(ROOT)
    return turn.settle()


def _of_job(turn: Turn, event: Taken | NeverTaken | Ended | Due | Admitted | TurnedAway) -> None:
    name = event.job
    state, unit = turn.tree.standings[name].state, turn.tree.net.units[name]
    match event:
        case Taken() if state is JobState.ORDERED:
            turn.do(JobMoved(name, JobState.ORDERED, JobState.RUNNING, turn.now))
        case NeverTaken():
            turn.never_taken(name)
        case Ended() if state in AT_AGENT:
            turn.set_variables(name, dict(event.said))
            turn.run_ended(name, end_state(unit, event), event.exit_code)
        case Due() if state not in ENDS:
            turn.due(name)
        case Admitted() if state is JobState.READY and turn.is_free(name):
            turn.do(JobMoved(name, state, JobState.ORDERED, turn.now))
        case TurnedAway() if state is JobState.READY and unit.if_full is not None:
            turn.end(name, unit.if_full, why=f"queue `{unit.queue}` is full")


def _reread(turn: Turn) -> None:
    """Do what follows from the states as they are: nothing, unless a decision is missing among them."""
    for name in turn.tree.net.units:
        if turn.tree.standings[name].state not in ENDS:
            turn.due(name)
    for name in reversed(tuple(turn.tree.net.units)):
        if name in turn.tree.net.children:
            turn.close(name)
    turn.close(ROOT)
