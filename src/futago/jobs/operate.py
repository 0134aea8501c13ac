"""What people may do to a running session: when each operation has a meaning, and what follows from it. Pure.

The table says in which states, and for which work, an operation has a meaning; everything else is refused with a
sentence. An operation that is refused changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from futago.jobs.model import (
    AT_AGENT,
    ENDS,
    NOT_BEGUN,
    ROOT,
    JobMarked,
    JobMoved,
    JobName,
    JobState,
    Operated,
    Operation,
    SessionState,
    Standing,
    Tree,
)
from futago.jobs.plan import Approval, Pause, SubNet, Unit
from futago.jobs.turn import Turn

S, Op = JobState, Operation
STATUSES = frozenset({S.NORMAL, S.WARNING, S.ABNORMAL})  # what a person may say that an end was


@dataclass(frozen=True, slots=True)
class Rule:
    """When an operation has a meaning for a unit. `states`: it stands in one of these. `of`: and is of this work."""

    states: frozenset[JobState]
    refusal: str  # {name}, {state}
    of: tuple[type, ...] = ()
    wrong: str = ""
    on_session: bool = False  # it may be asked of the whole session


_NOT_BEGUN = "`{name}` is not waiting any more: it is {state}."
RULES = {
    Op.HOLD: Rule(NOT_BEGUN, _NOT_BEGUN),
    Op.RELEASE: Rule(NOT_BEGUN, _NOT_BEGUN),
    Op.SKIP: Rule(NOT_BEGUN, _NOT_BEGUN),
    Op.FORCE: Rule(NOT_BEGUN, _NOT_BEGUN),
    Op.STOP: Rule(NOT_BEGUN | AT_AGENT, _NOT_BEGUN, on_session=True),
    Op.SUSPEND: Rule(
        NOT_BEGUN | AT_AGENT, "`{name}` has ended {state}.", (SubNet,), "`{name}` is a job: hold it.", on_session=True
    ),
    Op.RESUME: Rule(
        NOT_BEGUN | AT_AGENT, "`{name}` has ended {state}.", (SubNet,), "`{name}` is a job: release it.", on_session=True
    ),
    Op.END: Rule(frozenset(JobState), ""),
    Op.APPROVE: Rule(
        frozenset({S.RUNNING}), "`{name}` does not wait for an approval: it is {state}.", (Approval,), "`{name}` is no approval."
    ),
    Op.REJECT: Rule(
        frozenset({S.RUNNING}), "`{name}` does not wait for an approval: it is {state}.", (Approval,), "`{name}` is no approval."
    ),
}  # fmt: skip


def refusal(tree: Tree, asked: Operated) -> str:
    """Return why the operation has no meaning now, as a sentence; empty if it has one."""
    if tree.state is not SessionState.RUNNING:
        return f"The run has {'not begun' if tree.state is SessionState.STARTING else f'ended {tree.state}'}."
    if asked.job is None:
        return _of_session(tree, asked.operation)
    unit = tree.net.units.get(asked.job)
    if unit is None:
        return f"The run has no job `{asked.job}`."
    rule, standing = RULES[asked.operation], tree.standings[asked.job]
    if rule.of and not isinstance(unit.work, rule.of):
        return rule.wrong.format(name=asked.job)
    if standing.state not in rule.states:
        return rule.refusal.format(name=asked.job, state=standing.state)
    return _of_unit(tree, asked, unit, standing)


def _of_session(tree: Tree, operation: Operation) -> str:
    if not RULES[operation].on_session:
        return f"{operation} needs the name of a job."
    match operation:
        case Op.SUSPEND if tree.is_suspended:
            return "The run is suspended already."
        case Op.RESUME if not tree.is_suspended:
            return "The run is not suspended."
        case Op.STOP if all(s.state in ENDS or s.is_stopping for s in tree.standings.values()):
            return "Everything that is left of the run is being stopped already."
    return ""


def _of_unit(tree: Tree, asked: Operated, unit: Unit, standing: Standing) -> str:
    """Why it has no meaning for a unit whose state and work allow it."""
    name = unit.name
    if asked.operation is Op.END:
        return _end_refusal(tree, asked, unit, standing)
    if asked.operation in (Op.APPROVE, Op.REJECT):
        by = unit.work.by if isinstance(unit.work, Approval) else ()
        return f"`{name}` waits for {' or '.join(by)}, not for {asked.by}." if by and asked.by not in by else ""
    if asked.operation is Op.FORCE:
        return "" if _is_open(tree, unit.parent) else f"`{unit.parent}` around `{name}` has not begun."
    is_so, text = _ALREADY.get(asked.operation, (_never, ""))
    return text.format(name=name) if is_so(unit, standing) else ""


def _never(_unit: Unit, _standing: Standing) -> bool:
    return False


_ALREADY: dict[Operation, tuple[Callable[[Unit, Standing], bool], str]] = {
    Op.HOLD: (lambda _, s: s.is_held, "`{name}` is held already."),
    Op.RELEASE: (lambda _, s: not s.is_held, "`{name}` is not held."),
    Op.SUSPEND: (lambda _, s: s.is_suspended, "`{name}` is suspended already."),
    Op.RESUME: (lambda _, s: not s.is_suspended, "`{name}` is not suspended."),
    Op.STOP: (lambda _, s: s.is_stopping, "`{name}` is being stopped already."),
}


def _is_open(tree: Tree, net: JobName) -> bool:
    return net == ROOT or tree.standings[net].state is S.RUNNING


def _end_refusal(tree: Tree, asked: Operated, unit: Unit, standing: Standing) -> str:
    """Why a person may not say how it ends: what runs is stopped first; what is over with its net stays as it is."""
    name = unit.name
    runs = standing.state in AT_AGENT and not isinstance(unit.work, Pause | Approval)
    checks = (
        (asked.status not in STATUSES, f"Say how `{name}` ends: {', '.join(sorted(STATUSES))}."),
        (runs and isinstance(unit.work, SubNet), f"`{name}` is running: stop it, or end its jobs."),
        (
            runs and not standing.is_stopping,
            f"`{name}` is {standing.state}: stop it first; if its host is gone for good, then say how it ends.",
        ),
        (standing.state in ENDS and not _is_open(tree, unit.parent), f"`{unit.parent}` around `{name}` has ended."),
        (
            (standing.state, standing.value) == (asked.status, asked.value),
            f"`{name}` has ended {standing.state} already.",
        ),
    )
    return next((text for is_wrong, text in checks if is_wrong), "")


def operate(turn: Turn, asked: Operated) -> None:
    """Do what `refusal` has nothing against."""
    if asked.job is None:
        _SESSION[asked.operation](turn, asked)
    else:
        _UNIT[asked.operation](turn, asked, asked.job)


def _suspend_session(turn: Turn, _: Operated) -> None:
    turn.do(JobMarked(ROOT, is_suspended=True))


def _resume_session(turn: Turn, _: Operated) -> None:
    turn.do(JobMarked(ROOT, is_suspended=False))
    turn.ask(turn.tree.net.units)


def _stop_session(turn: Turn, asked: Operated) -> None:
    turn.stop(ROOT, f"stopped by {asked.by}")


def _hold(turn: Turn, _: Operated, job: JobName) -> None:
    turn.do(JobMarked(job, is_held=True))


def _release(turn: Turn, _: Operated, job: JobName) -> None:
    turn.do(JobMarked(job, is_held=False))
    turn.ask((job,))


def _skip(turn: Turn, asked: Operated, job: JobName) -> None:
    turn.end(job, S.SKIPPED, why=f"skipped by {asked.by}")


def _stop(turn: Turn, asked: Operated, job: JobName) -> None:
    turn.stop(job, f"stopped by {asked.by}")


def _suspend(turn: Turn, _: Operated, job: JobName) -> None:
    turn.do(JobMarked(job, is_suspended=True))


def _resume(turn: Turn, _: Operated, job: JobName) -> None:
    turn.do(JobMarked(job, is_suspended=False))
    turn.ask(turn.tree.net.units)


def _force(turn: Turn, _: Operated, job: JobName) -> None:
    if turn.tree.standings[job].is_held:
        turn.do(JobMarked(job, is_held=False))
    turn.begin(job, waits_in_queue=False)


def _end(turn: Turn, asked: Operated, job: JobName) -> None:
    assert asked.status is not None
    before = turn.tree.standings[job].state
    why = f"set by {asked.by}" + (f": {asked.text}" if asked.text else "")
    if before in ENDS:
        turn.do(JobMoved(job, before, asked.status, turn.now, why, asked.value))
        turn.reopen(job)
    else:
        turn.end(job, asked.status, value=asked.value, why=why)


def _approve(turn: Turn, asked: Operated, job: JobName) -> None:
    said = f": {asked.text}" if asked.text else ""
    if asked.operation is Op.APPROVE:
        turn.end(job, S.NORMAL, value=0, why=f"approved by {asked.by}{said}")
    else:
        turn.end(job, S.ABNORMAL, value=1, why=f"rejected by {asked.by}{said}")


_SESSION: dict[Operation, Callable[[Turn, Operated], None]] = {
    Op.STOP: _stop_session,
    Op.SUSPEND: _suspend_session,
    Op.RESUME: _resume_session,
}
_UNIT: dict[Operation, Callable[[Turn, Operated, JobName], None]] = {
    Op.HOLD: _hold,
    Op.RELEASE: _release,
    Op.SKIP: _skip,
    Op.STOP: _stop,
    Op.SUSPEND: _suspend,
    Op.RESUME: _resume,
    Op.FORCE: _force,
    Op.END: _end,
    Op.APPROVE: _approve,
    Op.REJECT: _approve,
}
