"""Which operations a person is offered for a unit, or for a whole run, as it stands. Pure.

What is offered may still be refused: whether the net around has begun, or who may approve, is decided when it is asked
for (operate.py). What would not be refused is always offered.
"""

from __future__ import annotations

from collections.abc import Callable

from futago.jobs.model import AT_AGENT, Operation, SessionState, Standing
from futago.jobs.operate import RULES
from futago.jobs.plan import Approval, Pause, Work

Op = Operation


def offered(work: Work, standing: Standing) -> list[Operation]:
    """Return the operations that have a meaning for a unit of a run that has begun and not ended."""
    return [
        operation
        for operation, rule in RULES.items()
        if standing.state in rule.states
        and not (rule.of and not isinstance(work, rule.of))
        and _is_open(operation, work, standing)
    ]


_OPEN: dict[Operation, Callable[[Work, Standing], bool]] = {
    Op.HOLD: lambda _, s: not s.is_held,
    Op.RELEASE: lambda _, s: s.is_held,
    Op.SUSPEND: lambda _, s: not s.is_suspended,
    Op.RESUME: lambda _, s: s.is_suspended,
    Op.STOP: lambda _, s: not s.is_stopping,
    # what runs is stopped first
    Op.END: lambda work, s: s.state not in AT_AGENT or s.is_stopping or isinstance(work, Pause | Approval),
}


def _is_open(operation: Operation, work: Work, standing: Standing) -> bool:
    return operation not in _OPEN or _OPEN[operation](work, standing)


def offered_of_run(state: SessionState, *, is_suspended: bool) -> list[Operation]:
    """Return the operations that have a meaning for a whole run."""
    if state is not SessionState.RUNNING:
        return []
    return [Op.RESUME if is_suspended else Op.SUSPEND, Op.STOP]
