"""What follows from an event: the pure core of job control.

`advance` answers with transitions and changes nothing; `after` returns the tree that they make. An event that says
what is known already has no transitions, so events may be repeated. A job is decided as soon as it is certain:
ordered when every need is met, not run when one of them cannot be met any more; that decision may decide others, down
the net. A session ends when no job is open; its state is the worst of its jobs'.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from futago.jobs.model import (
    AT_AGENT,
    ENDS,
    Ended,
    Event,
    Job,
    JobMoved,
    JobName,
    JobState,
    Reread,
    SessionMoved,
    SessionState,
    Started,
    Taken,
    Transition,
    Tree,
)
from futago.link.orders import Outcome

_WORST_FIRST = (JobState.ABNORMAL, JobState.UNKNOWN, JobState.WARNING)


def advance(tree: Tree, event: Event, now: datetime) -> tuple[Transition, ...]:
    """Return what follows from `event` at `now`, in the order in which it follows."""
    match event:
        case Started():
            return _start(tree, now) if tree.state is SessionState.STARTING else ()
        case Taken(job):
            is_news = tree.states.get(job) is JobState.ORDERED
            return (JobMoved(job, JobState.ORDERED, JobState.RUNNING, now),) if is_news else ()
        case Ended(job):
            return _end(tree, event, now) if tree.states.get(job) in AT_AGENT else ()
        case Reread():
            return _catch_up(tree, now) if tree.state is SessionState.RUNNING else ()


def after(tree: Tree, transitions: Iterable[Transition]) -> Tree:
    """Return the tree that the transitions make."""
    states, state, open_count = dict(tree.states), tree.state, tree.open_count
    for step in transitions:
        if isinstance(step, SessionMoved):
            state = step.to
        else:
            states[step.job] = step.to
            open_count -= step.to in ENDS
    return Tree(tree.session_id, tree.net, state, states, open_count)


def end_state(job: Job, event: Ended) -> JobState:
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
            return (
                JobState.NORMAL
                if code in job.normal
                else JobState.WARNING
                if code in job.warning
                else JobState.ABNORMAL
            )


def _start(tree: Tree, now: datetime) -> tuple[Transition, ...]:
    first: list[Transition] = [SessionMoved(SessionState.STARTING, SessionState.RUNNING, now)]
    roots = (name for name, job in tree.net.jobs.items() if not job.needs)
    return (*first, *(JobMoved(name, tree.states[name], JobState.ORDERED, now) for name in roots))


def _end(tree: Tree, event: Ended, now: datetime) -> tuple[Transition, ...]:
    to = end_state(tree.net.jobs[event.job], event)
    followers = _spread(tree, {event.job: to}, tree.net.followers[event.job], now)
    return _close(tree, [JobMoved(event.job, tree.states[event.job], to, now), *followers], now)


def _catch_up(tree: Tree, now: datetime) -> tuple[Transition, ...]:
    """Return what follows from the states as they are: nothing, unless a decision is missing among them."""
    return _close(tree, _spread(tree, {}, tree.net.jobs, now), now)


def _close(tree: Tree, steps: list[JobMoved], now: datetime) -> tuple[Transition, ...]:
    """Return the steps, and the end of the session if no job is open after them."""
    open_count = tree.open_count - sum(1 for s in steps if s.to in ENDS)
    if open_count:
        return tuple(steps)
    final = {**tree.states, **{s.job: s.to for s in steps}}
    return (*steps, SessionMoved(tree.state, _worst(final.values()), now))


def _spread(tree: Tree, ended: dict[JobName, JobState], asked: Iterable[JobName], now: datetime) -> list[JobMoved]:
    """Return what is certain now for the jobs `asked`, and for those that wait for them.

    Args:
        ended: jobs whose end is news, not in the tree yet.
    """
    steps: list[JobMoved] = []
    fresh = dict(ended)
    queue = list(asked)
    while queue:
        name = queue.pop(0)
        if tree.states[name] is not JobState.WAITING or name in fresh:
            continue
        decided = _decide(tree, fresh, name, now)
        if decided is None:
            continue
        steps.append(decided)
        fresh[name] = decided.to
        if decided.to is JobState.NOT_RUN:
            queue.extend(tree.net.followers[name])
    return steps


def _decide(tree: Tree, fresh: dict[JobName, JobState], name: JobName, now: datetime) -> JobMoved | None:
    is_ready = True
    for need in tree.net.jobs[name].needs:
        state = fresh.get(need.job, tree.states[need.job])
        if state not in ENDS:
            is_ready = False
        elif state not in need.ends:
            why = f"`{need.job}` ended {state}" if state is not JobState.NOT_RUN else f"`{need.job}` was not run"
            return JobMoved(name, JobState.WAITING, JobState.NOT_RUN, now, why)
    return JobMoved(name, JobState.WAITING, JobState.ORDERED, now) if is_ready else None


def _worst(states: Iterable[JobState]) -> SessionState:
    seen = set(states)
    worst = next((s for s in _WORST_FIRST if s in seen), JobState.NORMAL)
    return SessionState(worst.value)
