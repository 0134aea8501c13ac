"""Who gets the next place: jobs that are ready and name a queue, in the order of their priority. Pure, no I/O.

A place is (queue, host); the host is empty where the queue counts over all hosts. The order: priority, then how long
it has been ready, then the run that came first. A job that may not go now (held, or its time has not come) is set
aside and does not keep others from going.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Rule:
    """A queue: how many at once, in all or on each host."""

    limit: int
    per_host: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Waiting:
    """A job that is ready. Compared in this order."""

    less: int  # its priority, negative
    since: datetime
    number: int
    run_id: str = field(compare=False)


@dataclass(slots=True)
class Queues:
    """See the module. `rules`: what is known of each queue; one that is not known has no limit."""

    rules: dict[str, Rule] = field(default_factory=dict)
    _busy: Counter[Place] = field(default_factory=Counter)
    _waiting: dict[Place, list[Waiting]] = field(default_factory=dict)
    _aside: dict[Place, list[Waiting]] = field(default_factory=dict)
    _places: dict[str, tuple[str, str]] = field(default_factory=dict)  # run id -> queue and host of a job that waits
    _held: dict[str, tuple[str, str]] = field(default_factory=dict)  # and of one that has a place

    def set_rules(self, rules: dict[str, Rule]) -> bool:
        """Take the queues as they are defined now; return whether anything is different."""
        if rules == self.rules:
            return False
        self.rules = dict(rules)
        held, self._held = self._held, {}
        self._busy.clear()
        for run_id, (queue, host) in held.items():
            self.occupy(run_id, queue, host)
        waiting = [w for kept in (self._waiting, self._aside) for heap in kept.values() for w in heap]
        self._waiting.clear()
        self._aside.clear()
        for one in waiting:
            if one.run_id in self._places:
                heapq.heappush(self._waiting.setdefault(self._place(*self._places[one.run_id]), []), one)
        return True

    def _place(self, queue: str, host: str) -> Place:
        rule = self.rules.get(queue)
        return (queue, host if rule and rule.per_host else "")

    def wait(self, run_id: str, queue: str, host: str, *, priority: int, since: datetime, number: int) -> None:
        """A job is ready and wants a place."""
        self._places[run_id] = (queue, host)
        heapq.heappush(
            self._waiting.setdefault(self._place(queue, host), []), Waiting(-priority, since, number, run_id)
        )

    def occupy(self, run_id: str, queue: str, host: str) -> None:
        """A job has begun."""
        self._places.pop(run_id, None)
        if run_id not in self._held:
            self._held[run_id] = (queue, host)
            self._busy[self._place(queue, host)] += 1

    def leave(self, run_id: str) -> None:
        """A job neither waits nor runs any more."""
        self._places.pop(run_id, None)
        held = self._held.pop(run_id, None)
        if held:
            self._busy[self._place(*held)] -= 1

    def retry_aside(self) -> None:
        """Somebody was released, or a time has come: look at those again that could not go."""
        for place, heap in self._aside.items():
            for one in heap:
                heapq.heappush(self._waiting.setdefault(place, []), one)
        self._aside.clear()

    def next_ones(self, may_go: Callable[[str], bool]) -> Iterator[str]:
        """Yield the runs that get a place now. Whoever is yielded must be `occupy`ed, or must `leave`, before the next
        is asked for.
        """
        for place, heap in list(self._waiting.items()):
            while heap and self._has_room(place):
                one = heapq.heappop(heap)
                if one.run_id not in self._places:
                    continue
                if may_go(one.run_id):
                    yield one.run_id
                else:
                    self._aside.setdefault(place, []).append(one)

    def _has_room(self, place: Place) -> bool:
        rule = self.rules.get(place[0])
        return rule is None or self._busy[place] < rule.limit

    def is_full_for(self, queue: str, host: str) -> bool:
        """Whether a job would have to wait."""
        return not self._has_room(self._place(queue, host))
