"""Random nets inside nets, and a reference interpreter that is too simple to be wrong: it goes over all units again
and again until nothing changes, and knows nothing of events.
"""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import strategies as st

from futago.jobs.model import ENDS, ROOT, SUCCESS, JobName, JobState
from futago.jobs.plan import (
    AllOf,
    AnyOf,
    Approval,
    Codes,
    Command,
    Condition,
    DayIs,
    EndIs,
    Judge,
    Net,
    SubNet,
    Unit,
    ValueIs,
    make_net,
)

S = JobState
Fate = tuple[JobState, int | None]
fates = st.sampled_from(
    [(S.NORMAL, 0), (S.NORMAL, 0), (S.WARNING, 5), (S.ABNORMAL, 77), (S.ABNORMAL, None), (S.UNKNOWN, None)]
)
_ends = st.one_of(st.just(SUCCESS), st.just(ENDS), st.frozensets(st.sampled_from(sorted(ENDS)), min_size=1, max_size=3))


@st.composite
def trees(draw: st.DrawFn, *, with_approvals: bool = False) -> Net:
    """Draw a net of up to 16 units, nested up to three deep, with groups, branches and ends for what cannot be met."""
    units: list[Unit] = []
    _fill(draw, units, parent=ROOT, depth=0, with_approvals=with_approvals)
    return make_net("n", tuple(draw(st.permutations(units))))


def _fill(draw: st.DrawFn, units: list[Unit], *, parent: JobName, depth: int, with_approvals: bool) -> None:
    earlier: list[Unit] = []
    branches: list[JobName] = []
    for i in range(draw(st.integers(1, 4 if depth else 6))):
        name = JobName(f"{parent}/u{i}" if parent else f"u{i}")
        is_net = depth < 2 and len(units) < 12 and draw(st.integers(0, 3)) == 0
        is_branch = draw(st.integers(0, 2)) == 0
        unit = Unit(
            name,
            SubNet(draw(st.sampled_from(Judge)))
            if is_net
            else Approval()
            if with_approvals and draw(st.integers(0, 4)) == 0
            else Command("h1", "true"),
            parent=parent,
            start=draw(_conditions([u.name for u in earlier], [u.name for u in earlier if _has_value(u)])),
            if_unmet=draw(st.sampled_from([S.NOT_RUN, S.NOT_RUN, S.NORMAL, S.ABNORMAL, None])),
            above=tuple(branches) if is_branch else (),
            warning=Codes(((1, 9),)),
        )
        if is_branch:
            branches.append(name)
        earlier.append(unit)
        units.append(unit)
        if is_net:
            _fill(draw, units, parent=name, depth=depth + 1, with_approvals=with_approvals)


def _has_value(unit: Unit) -> bool:
    return not isinstance(unit.work, SubNet)


@st.composite
def _conditions(draw: st.DrawFn, names: list[JobName], valued: list[JobName], depth: int = 0) -> Condition:
    if not names:
        return AllOf()
    kind = draw(st.sampled_from(["end", "end", "value", "day", "all", "any"] if depth < 2 else ["end"]))
    if kind == "day":
        return DayIs("bank", draw(st.booleans()))
    if kind == "value" and valued:
        return ValueIs(draw(st.sampled_from(valued)), draw(st.sampled_from([Codes(((0, 0),)), Codes(((5, 99),))])))
    if kind in ("all", "any"):
        parts = tuple(draw(st.lists(_conditions(names, valued, depth + 1), min_size=1, max_size=3)))
        return AllOf(parts) if kind == "all" else AnyOf(parts)
    return EndIs(draw(st.sampled_from(names)), draw(_ends))


# --- the reference ----------------------------------------------------------------------------------------------------


class Reference:
    """What must be known of a tree once the runs in `done` have ended so."""

    def __init__(self, net: Net, done: dict[JobName, Fate]) -> None:
        self.net = net
        self.done = done
        self.known: dict[JobName, Fate] = dict.fromkeys(net.units, (S.WAITING, None))
        while True:
            before = dict(self.known)
            for unit in net.units.values():
                self.known[unit.name] = self._state(unit)
            if self.known == before:
                return

    def _state(self, unit: Unit) -> Fate:
        outer = S.RUNNING if unit.parent == ROOT else self.known[unit.parent][0]
        if self.known[unit.name][0] in ENDS:
            return self.known[unit.name]
        if outer in ENDS:
            return S.NOT_RUN, None
        if outer is not S.RUNNING:
            return S.WAITING, None
        own = self._sure(unit.start)
        lost = [self._sure(self.net.units[h].start) for h in unit.above]
        if own == "no":
            if unit.if_unmet is None and not unit.above:
                return S.WAITING, None
            return S.NOT_RUN if unit.above else unit.if_unmet or S.NOT_RUN, None
        if "yes" in lost:
            return S.NOT_RUN, None
        if own == "yes" and all(answer == "no" for answer in lost):
            return self._begun(unit)
        return S.WAITING, None

    def _begun(self, unit: Unit) -> Fate:
        if not isinstance(unit.work, SubNet):
            return self.done.get(unit.name, (S.ORDERED, None))
        inner = [state for name, (state, _) in self.known.items() if self.net.units[name].parent == unit.name]
        if any(state not in ENDS for state in inner):
            return S.RUNNING, None
        is_best = unit.work.judge is Judge.BEST and any(state in SUCCESS for state in inner)
        for state in (S.NORMAL, S.SKIPPED, S.WARNING) if is_best else (S.ABNORMAL, S.UNKNOWN, S.WARNING):
            if state in inner:
                return (
                    S.NORMAL
                    if state is S.SKIPPED and S.WARNING not in inner
                    else S.WARNING
                    if state is S.SKIPPED
                    else state
                ), None
        return S.NORMAL, None

    def _sure(self, condition: Condition) -> str:
        match condition:
            case AllOf(parts):
                answers = [self._sure(part) for part in parts]
                return "no" if "no" in answers else "open" if "open" in answers else "yes"
            case AnyOf(parts):
                answers = [self._sure(part) for part in parts]
                return "yes" if "yes" in answers else "open" if "open" in answers else "no"
            case EndIs(job, ends):
                state, _ = self.known[job]
                return "open" if state not in ENDS else "yes" if state in ends else "no"
            case ValueIs(job, codes):
                state, value = self.known[job]
                return "open" if state not in ENDS else "yes" if value is not None and value in codes else "no"
            case DayIs("bank", is_open):  # the days of these sessions are days on which it is open
                return "yes" if is_open else "no"
        raise AssertionError(condition)

    def states(self) -> Iterator[tuple[JobName, JobState]]:
        for name, (state, _) in self.known.items():
            yield name, state
