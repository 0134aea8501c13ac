"""Random people do random things to random trees: what may never happen, and that every session can be brought to an
end.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from random_trees import S, fates, trees
from test_advance import NOW
from test_job_trees import check_counts, end_of, fresh

from futago.jobs.advance import advance, after, refusal
from futago.jobs.model import (
    AT_AGENT,
    ENDS,
    NOT_BEGUN,
    ROOT,
    Due,
    Event,
    JobName,
    JobState,
    NeverTaken,
    Operated,
    Operation,
    Reread,
    SessionState,
    Started,
    Taken,
    Tree,
)
from futago.jobs.plan import Approval, Command, Net, SubNet


class People(RuleBasedStateMachine):
    """A session, its agents, and people who operate on it."""

    tree: Tree

    @initialize(net=trees(with_approvals=True))
    def begin(self, net: Net) -> None:
        self.tree = fresh(net)
        self._feed(Started())

    def _feed(self, event: Event) -> None:
        before = self.tree
        steps = advance(before, event, NOW)
        if isinstance(event, Operated):
            assert bool(refusal(before, event)) == (steps == ())
        self.tree = after(before, steps)
        self._check_step(before, event)

    def _check_step(self, before: Tree, event: Event) -> None:
        operation = event.operation if isinstance(event, Operated) else None
        for name, state in self.tree.states.items():
            was = before.states[name]
            if was in ENDS and operation is not Operation.END:
                assert state is was  # an end stays an end
            if was in NOT_BEGUN and state in AT_AGENT and operation is not Operation.FORCE:
                assert not self._is_kept(name)
            if was in ENDS and state in AT_AGENT:
                assert was is S.NOT_RUN  # what has run does not run again by a corrected end

    def _is_kept(self, name: JobName) -> bool:
        if self.tree.is_suspended or self.tree.standings[name].is_held:
            return True
        while name != ROOT:
            if self.tree.standings[name].is_suspended:
                return True
            name = self.tree.net.units[name].parent
        return False

    def _at_agents(self) -> list[JobName]:
        units = self.tree.net.units
        return sorted(n for n, s in self.tree.states.items() if s in AT_AGENT and isinstance(units[n].work, Command))

    @rule(data=st.data())
    def run_ends(self, data: st.DataObject) -> None:
        running = self._at_agents()
        if running:
            name = data.draw(st.sampled_from(running))
            kind = data.draw(st.integers(0, 3))
            event = Taken(name) if kind == 0 else NeverTaken(name) if kind == 1 else end_of(name, data.draw(fates))
            self._feed(event)

    @rule(data=st.data(), operation=st.sampled_from(Operation))
    def operate(self, data: st.DataObject, operation: Operation) -> None:
        whole = data.draw(st.integers(0, 11)) == 0
        job = None if whole else data.draw(st.sampled_from(sorted(self.tree.net.units)))
        is_end = operation is Operation.END
        status = data.draw(st.sampled_from([S.NORMAL, S.ABNORMAL])) if is_end else None
        value = data.draw(st.sampled_from([None, 0, 7])) if is_end else None
        self._feed(Operated(operation, job, "admin", status=status, value=value))

    @rule(data=st.data())
    def nothing_is_due(self, data: st.DataObject) -> None:
        assert advance(self.tree, Due(data.draw(st.sampled_from(sorted(self.tree.net.units)))), NOW) == ()
        assert advance(self.tree, Reread(), NOW) == ()

    @invariant()
    def nets_and_their_units_agree(self) -> None:
        check_counts(self.tree)
        tree = self.tree
        for name, unit in tree.net.units.items():
            state = tree.states[name]
            outer = tree.states[unit.parent] if unit.parent else None
            if state in AT_AGENT:
                assert tree.state is SessionState.RUNNING and outer in (None, JobState.RUNNING)
            if isinstance(unit.work, SubNet) and state is S.RUNNING:
                assert tree.open[name] > 0
            if outer in ENDS:
                assert state in ENDS
        assert (tree.state is SessionState.RUNNING) == (tree.open[ROOT] > 0)

    def teardown(self) -> None:
        if not hasattr(self, "tree"):
            return
        for operation in (Operation.RELEASE, Operation.RESUME):
            for name in (None, *sorted(self.tree.net.units)):
                self._feed(Operated(operation, name, "admin"))
        while self.tree.state is SessionState.RUNNING:
            before = self.tree
            for name in self._at_agents():
                self._feed(end_of(name, (S.NORMAL, 0)))
            for name, unit in self.tree.net.units.items():
                if isinstance(unit.work, Approval):
                    self._feed(Operated(Operation.APPROVE, name, "admin"))
            if self.tree.states == before.states:  # only what is stuck can be left: a person skips it
                stuck = [n for n, s in self.tree.standings.items() if s.is_stuck and s.state is S.WAITING]
                assert stuck
                self._feed(Operated(Operation.SKIP, stuck[0], "admin"))
        assert all(state in ENDS for state in self.tree.states.values())


TestPeople = People.TestCase
TestPeople.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
