"""One event's consequences, worked out on an overlay of the tree. Pure.

A turn keeps a queue of units about which something is news; deciding one may put others into the queue: those that
wait for its end, the children of a net that begins, the net whose last child has ended. It is over when the queue is
empty. The tree itself stays as it is; what came about is in `steps`, in the order in which it follows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime

from futago.jobs.conditions import holds, may_start, why_not
from futago.jobs.model import (
    AT_AGENT,
    ENDS,
    NOT_BEGUN,
    ROOT,
    SUCCESS,
    JobMarked,
    JobMoved,
    JobName,
    JobRetried,
    JobState,
    Notice,
    Noticed,
    SessionMoved,
    SessionState,
    Transition,
    Tree,
    VariableSet,
    change,
)
from futago.jobs.plan import Approval, Judge, Pause, SubNet, Unit, inside
from futago.jobs.timing import late_at, limit_of, pause_ends

_WORST_FIRST = (JobState.ABNORMAL, JobState.UNKNOWN, JobState.WARNING)
_STOPPED_BEFORE = "stopped before its start"


class Turn:
    """See the module. Ask for what the event says, then `settle`, then take `steps`."""

    def __init__(self, tree: Tree, now: datetime) -> None:
        self.tree = tree.overlay()
        self.now = now
        self.steps: list[Transition] = []
        self._queue: deque[JobName] = deque()

    def do(self, step: Transition) -> None:
        """Let a transition take effect."""
        self.steps.append(step)
        change(self.tree, (step,))

    def ask(self, names: Iterable[JobName]) -> None:
        """Have these units decided."""
        self._queue.extend(names)

    def settle(self) -> tuple[Transition, ...]:
        """Decide until nothing is left to decide; return everything that came about."""
        while self._queue:
            self.decide(self._queue.popleft())
        return tuple(self.steps)

    # --- what is certain now ----------------------------------------------------------------------------------------

    def decide(self, name: JobName) -> None:
        """Let a unit begin, or end without having begun, if that is certain."""
        standing = self.tree.standings[name]
        if standing.state is JobState.READY:
            self._go_on(name)
        elif standing.state is JobState.WAITING and self.is_open(self.tree.net.units[name].parent):
            verdict = may_start(name, self.tree, self.now)
            if verdict is False:
                self._give_up(name)
            elif verdict and self.is_free(name):
                self._let_begin(name)
        self.ask(self.tree.net.below.get(name, ()))  # it may be a branch that is taken now

    def is_open(self, net: JobName) -> bool:
        """Whether the net has begun and not ended."""
        if net == ROOT:
            return self.tree.state is SessionState.RUNNING
        return self.tree.standings[net].state is JobState.RUNNING

    def is_free(self, name: JobName) -> bool:
        """Whether nobody holds the unit or has suspended a net around it."""
        standings = self.tree.standings
        if standings[name].is_held or standings[name].is_suspended:
            return False
        while (name := self.tree.net.units[name].parent) != ROOT:
            if standings[name].is_suspended:
                return False
        return not self.tree.is_suspended

    def due(self, name: JobName) -> None:
        """Do what time has brought about."""
        unit, standing = self.tree.net.units[name], self.tree.standings[name]
        ends = pause_ends(unit, standing)
        if ends and ends <= self.now:
            self.end(name, JobState.NORMAL, value=0)
            return
        limit = limit_of(unit, standing)
        at = late_at(self.tree, unit, limit) if limit and not standing.is_late else None
        if limit and at and at <= self.now:
            self._late(name, tells=limit.tells, stops=limit.stops or limit.then is not None, then=limit.then)
        self.decide(name)

    def _late(self, name: JobName, *, tells: bool, stops: bool, then: JobState | None) -> None:
        has_begun = self.tree.standings[name].state not in NOT_BEGUN
        self.do(JobMarked(name, is_late=True))
        if tells:
            self.do(Noticed(name, Notice.LATE_END if has_begun else Notice.LATE_START, self.now))
        if has_begun and stops:
            self.stop(name, "stopped: it took too long")
        elif then is not None:
            self.end(name, then, why="it had not begun in time")

    def _give_up(self, name: JobName) -> None:
        unit = self.tree.net.units[name]
        if unit.above:  # whichever is certain first, that its conditions fail or that another is taken: one end
            is_lost = holds(unit.start, self.tree, self.now) is not False
            why = "another branch was taken" if is_lost else why_not(unit.start, self.tree, self.now)
            self.end(name, JobState.NOT_RUN, why=why)
        elif unit.if_unmet is not None:
            self.end(name, unit.if_unmet, why=why_not(unit.start, self.tree, self.now))
        elif not self.tree.standings[name].is_stuck:
            self.do(JobMarked(name, is_stuck=True))
            self.do(Noticed(name, Notice.STUCK, self.now))

    def _let_begin(self, name: JobName) -> None:
        unit = self.tree.net.units[name]
        if unit.skip is not None:
            self.end(name, unit.skip, why="left out by its definition")
        elif unit.calendar in self.tree.shut:
            self.end(name, unit.if_closed, why=f"calendar `{unit.calendar}` is closed on {self.tree.day}")
        else:
            self.begin(name)

    def begin(self, name: JobName, *, waits_in_queue: bool = True) -> None:
        """Let a unit begin, whatever it waits for."""
        unit, before = self.tree.net.units[name], self.tree.standings[name].state
        self.ask(self.tree.net.below.get(name, ()))
        match unit.work:
            case SubNet():
                self.do(JobMoved(name, before, JobState.RUNNING, self.now))
                self.ask(self.tree.net.children[name])
                self.close(name)
            case Pause() | Approval():
                self.do(JobMoved(name, before, JobState.RUNNING, self.now))
                if isinstance(unit.work, Approval):
                    self.do(Noticed(name, Notice.APPROVAL, self.now))
            case _ if unit.queue and waits_in_queue:
                self.do(JobMoved(name, before, JobState.READY, self.now))
            case _:
                self.do(JobMoved(name, before, JobState.ORDERED, self.now))

    def _go_on(self, name: JobName) -> None:
        """Order a READY job that waits for no place: a retry whose time has come."""
        ready = self.tree.standings[name].ready_utc
        if not self.tree.net.units[name].queue and self.is_free(name) and (ready is None or ready <= self.now):
            self.do(JobMoved(name, JobState.READY, JobState.ORDERED, self.now))

    # --- ends -------------------------------------------------------------------------------------------------------

    def end(self, name: JobName, to: JobState, *, value: int | None = None, why: str = "") -> None:
        """Let a unit end, and everything in it that has not begun with it."""
        self.do(JobMoved(name, self.tree.standings[name].state, to, self.now, why, value))
        for inner in inside(self.tree.net, name):
            if self.tree.standings[inner].state in NOT_BEGUN:
                self.do(
                    JobMoved(
                        inner, self.tree.standings[inner].state, JobState.NOT_RUN, self.now, f"`{name}` {_past(to)}"
                    )
                )
                self._tell(inner)
        self._tell(name)
        self.close(self.tree.net.units[name].parent)

    def _tell(self, name: JobName) -> None:
        """Have those decided who wait for this end, or for a variable that it can set no more."""
        self.ask(self.tree.net.followers[name])
        for variable in self.tree.net.units[name].sets:
            self.ask(self.tree.net.readers.get(variable, ()))

    def close(self, net: JobName) -> None:
        """End a net whose children have all ended."""
        if self.tree.open[net] or not self.is_open(net):
            return
        ends = [self.tree.standings[child].state for child in self.tree.net.children[net]]
        if net == ROOT:
            self.do(SessionMoved(self.tree.state, SessionState(worst(ends).value), self.now))
            return
        unit, standing = self.tree.net.units[net], self.tree.standings[net]
        self.end(net, self._after_stop(unit, standing.is_stopping and standing.is_late) or judged(unit, ends))

    def run_ended(self, name: JobName, to: JobState, value: int | None) -> None:
        """A run has ended so: the job tries again, or it ends."""
        unit, standing = self.tree.net.units[name], self.tree.standings[name]
        retry = unit.retry
        is_again = retry and standing.tries < retry.count and not standing.is_stopping and to not in retry.until
        if retry and is_again and (to is not JobState.UNKNOWN or retry.on_unknown):
            at = self.now + retry.interval
            self.do(JobRetried(name, standing.state, to, self.now, standing.tries + 1, at, value))
            self.ask((name,))
            return
        self.end(name, self._after_stop(unit, standing.is_stopping and standing.is_late) or to, value=value)

    def _after_stop(self, unit: Unit, was_late: bool) -> JobState | None:
        """The end that a unit is given that was stopped because it took too long."""
        return unit.end_limit.then if unit.end_limit and was_late else None

    def set_variables(self, name: JobName, said: dict[str, str]) -> None:
        """Take over the variables that a run has set, as far as its job may."""
        for variable in self.tree.net.units[name].sets:
            if variable in said:
                self.do(VariableSet(variable, said[variable]))
                self.ask(self.tree.net.readers.get(variable, ()))

    # --- stopping ---------------------------------------------------------------------------------------------------

    def stop(self, name: JobName, why: str) -> None:
        """End a unit, or (ROOT) everything: what has not begun is not run, what runs is to be ended."""
        names = inside(self.tree.net, name)
        if name != ROOT:
            names = (name, *names)
        for one in names:
            if self.tree.standings[one].state in NOT_BEGUN:
                self.do(JobMarked(one, is_stopping=True))
                self.do(JobMoved(one, self.tree.standings[one].state, JobState.NOT_RUN, self.now, why))
                self._tell(one)
        for one in names:
            self._stop_running(one, why)
        for one in reversed(names):
            if isinstance(self.tree.net.units[one].work, SubNet):
                self.close(one)
        self.close(ROOT if name == ROOT else self.tree.net.units[name].parent)

    def _stop_running(self, name: JobName, why: str) -> None:
        unit, standing = self.tree.net.units[name], self.tree.standings[name]
        if standing.state not in AT_AGENT:
            return
        if not standing.is_stopping:
            self.do(JobMarked(name, is_stopping=True))
        if isinstance(unit.work, Pause | Approval):
            to = self._after_stop(unit, standing.is_late) or JobState.ABNORMAL
            self.do(JobMoved(name, standing.state, to, self.now, why))
            self._tell(name)

    def never_taken(self, name: JobName) -> None:
        """A job that is to be ended and that its agent never had will not start any more: nobody orders it again."""
        standing = self.tree.standings[name]
        if standing.state is JobState.ORDERED and standing.is_stopping:
            self.end(name, JobState.NOT_RUN, why=_STOPPED_BEFORE)

    # --- going back -------------------------------------------------------------------------------------------------

    def reopen(self, name: JobName) -> None:
        """An end has been corrected: what was not run because of it waits again."""
        queue = list(self.tree.net.followers[name])
        while queue:
            follower = queue.pop(0)
            standing, unit = self.tree.standings[follower], self.tree.net.units[follower]
            if standing.state is JobState.WAITING:
                self.ask((follower,))
            if standing.state is not JobState.NOT_RUN or standing.is_stopping or not self.is_open(unit.parent):
                continue
            if may_start(follower, self.tree, self.now) is False:
                continue
            for one in (follower, *inside(self.tree.net, follower)):
                if self.tree.standings[one].state is JobState.NOT_RUN:
                    self.do(JobMoved(one, JobState.NOT_RUN, JobState.WAITING, self.now))
            self.ask((follower,))
            queue.extend(self.tree.net.followers[follower])


def _past(to: JobState) -> str:
    return "was not run" if to is JobState.NOT_RUN else f"ended {to} without being run"


def worst(ends: Iterable[JobState]) -> JobState:
    """Return the worst of these ends; what was not run, or left out, is as good as normal."""
    seen = set(ends)
    return next((state for state in _WORST_FIRST if state in seen), JobState.NORMAL)


def judged(unit: Unit, ends: list[JobState]) -> JobState:
    """Return how a net ends whose children ended so."""
    assert isinstance(unit.work, SubNet)
    if unit.work.judge is Judge.BEST and any(e in SUCCESS for e in ends):
        return JobState.NORMAL if JobState.NORMAL in ends or JobState.WARNING not in ends else JobState.WARNING
    return worst(ends)


assert not (NOT_BEGUN & ENDS)
