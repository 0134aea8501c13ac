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
    JobMarked,
    JobMoved,
    JobName,
    JobState,
    NeverTaken,
    Operated,
    Operation,
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
        case NeverTaken(job):
            return _never_taken(tree, job, now)
        case Ended(job):
            return _end(tree, event, now) if tree.states.get(job) in AT_AGENT else ()
        case Reread():
            return _catch_up(tree, now) if tree.state is SessionState.RUNNING else ()
        case Operated():
            return _operate(tree, event, now)


def after(tree: Tree, transitions: Iterable[Transition]) -> Tree:
    """Return the tree that the transitions make."""
    states, state, open_count = dict(tree.states), tree.state, tree.open_count
    held, stopping = tree.held, tree.stopping
    for step in transitions:
        match step:
            case SessionMoved():
                state = step.to
            case JobMoved():
                states[step.job] = step.to
                open_count -= step.to in ENDS
            case JobMarked():
                held = _marked(held, step.job, step.is_held)
                stopping = _marked(stopping, step.job, step.is_stopping)
    return Tree(tree.session_id, tree.net, state, states, open_count, held, stopping)


def _marked(jobs: frozenset[JobName], job: JobName, is_in: bool | None) -> frozenset[JobName]:
    return jobs if is_in is None else jobs | {job} if is_in else jobs - {job}


def refusal(tree: Tree, asked: Operated) -> str:
    """Return why the operation has no meaning now, as a sentence; empty if it has one."""
    if tree.state is not SessionState.RUNNING:
        return f"The run has {'not begun' if tree.state is SessionState.STARTING else f'ended {tree.state}'}."
    if asked.job is None:
        return _whole_refusal(tree, asked.operation)
    state = tree.states.get(asked.job)
    return f"The run has no job `{asked.job}`." if state is None else _job_refusal(tree, asked, asked.job, state)


def _whole_refusal(tree: Tree, operation: Operation) -> str:
    if operation is not Operation.STOP:
        return f"{operation} needs the name of a job."
    can_be_stopped = any(s not in ENDS and name not in tree.stopping for name, s in tree.states.items())
    return "" if can_be_stopped else "Everything that is left of the run is being stopped already."


def _job_refusal(tree: Tree, asked: Operated, job: JobName, state: JobState) -> str:
    is_allowed = state not in ENDS if asked.operation is Operation.STOP else state is JobState.WAITING
    if not is_allowed:
        return f"`{job}` is not waiting any more: it is {state}."
    match asked.operation:
        case Operation.HOLD if job in tree.held:
            return f"`{job}` is held already."
        case Operation.RELEASE if job not in tree.held:
            return f"`{job}` is not held."
        case Operation.STOP if job in tree.stopping:
            return f"`{job}` is being stopped already."
    return ""


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
    return (*first, *_spread(tree, {}, tree.net.jobs, now))  # in a run that begins again, some have ended


def _end(tree: Tree, event: Ended, now: datetime) -> tuple[Transition, ...]:
    to = end_state(tree.net.jobs[event.job], event)
    followers = _spread(tree, {event.job: to}, tree.net.followers[event.job], now)
    return _close(tree, [JobMoved(event.job, tree.states[event.job], to, now), *followers], now)


def _never_taken(tree: Tree, job: JobName, now: datetime) -> tuple[Transition, ...]:
    """A job that is to be ended and that its agent never had will not start any more: nobody orders it again."""
    if tree.states.get(job) is not JobState.ORDERED or job not in tree.stopping:
        return ()
    followers = _spread(tree, {job: JobState.NOT_RUN}, tree.net.followers[job], now)
    return _close(
        tree, [JobMoved(job, JobState.ORDERED, JobState.NOT_RUN, now, "stopped before its start"), *followers], now
    )


def _catch_up(tree: Tree, now: datetime) -> tuple[Transition, ...]:
    """Return what follows from the states as they are: nothing, unless a decision is missing among them."""
    return _close(tree, _spread(tree, {}, tree.net.jobs, now), now)


def _operate(tree: Tree, asked: Operated, now: datetime) -> tuple[Transition, ...]:
    if refusal(tree, asked):
        return ()
    return _stop_all(tree, asked.by, now) if asked.job is None else _operate_job(tree, asked, asked.job, now)


def _operate_job(tree: Tree, asked: Operated, job: JobName, now: datetime) -> tuple[Transition, ...]:
    match asked.operation:
        case Operation.HOLD:
            return (JobMarked(job, is_held=True),)
        case Operation.RELEASE:
            mark = JobMarked(job, is_held=False)
            return (mark, *_spread(after(tree, [mark]), {}, [job], now))
        case Operation.SKIP:
            return _end_waiting(tree, job, JobState.SKIPPED, f"skipped by {asked.by}", now)
        case Operation.STOP if tree.states[job] is JobState.WAITING:
            return _end_waiting(tree, job, JobState.NOT_RUN, f"stopped by {asked.by}", now)
        case Operation.STOP:
            return (JobMarked(job, is_stopping=True),)


def _end_waiting(tree: Tree, job: JobName, to: JobState, why: str, now: datetime) -> tuple[Transition, ...]:
    followers = _spread(tree, {job: to}, tree.net.followers[job], now)
    return _close(tree, [JobMoved(job, JobState.WAITING, to, now, why), *followers], now)


def _stop_all(tree: Tree, by: str, now: datetime) -> tuple[Transition, ...]:
    """What waits is not run, whatever it waits for; what is at an agent is to be ended."""
    why = f"stopped by {by}"
    waiting = [JobMoved(n, s, JobState.NOT_RUN, now, why) for n, s in tree.states.items() if s is JobState.WAITING]
    at_agent = [n for n, s in tree.states.items() if s in AT_AGENT and n not in tree.stopping]
    return (*(JobMarked(name, is_stopping=True) for name in at_agent), *_close(tree, waiting, now))


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
    is_free = is_ready and name not in tree.held
    return JobMoved(name, JobState.WAITING, JobState.ORDERED, now) if is_free else None


def _worst(states: Iterable[JobState]) -> SessionState:
    seen = set(states)
    worst = next((s for s in _WORST_FIRST if s in seen), JobState.NORMAL)
    return SessionState(worst.value)
