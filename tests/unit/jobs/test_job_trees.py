"""Nets inside nets, groups of conditions and branches: as a reference interpreter says, whatever the order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from random_trees import Fate, Reference, S, fates, trees
from test_advance import NOW, play

from futago.jobs.advance import advance
from futago.jobs.model import (
    AT_AGENT,
    ENDS,
    ROOT,
    Due,
    Ended,
    JobName,
    JobState,
    Reread,
    SessionId,
    SessionState,
    Started,
    Taken,
    Tree,
    make_tree,
)
from futago.jobs.plan import Command, Net, SubNet, inside
from futago.link.orders import Outcome


def fresh(net: Net) -> Tree:
    return make_tree(SessionId(1), net, SessionState.STARTING, dict.fromkeys(net.units, S.WAITING))


def end_of(name: JobName, fate: Fate) -> Ended:
    state, code = fate
    if state is S.UNKNOWN:
        return Ended(name, Outcome.UNKNOWN)
    return Ended(name, Outcome.EXITED if code is not None else Outcome.TIMED_OUT, code)


def at_agents(tree: Tree) -> list[JobName]:
    return sorted(n for n, s in tree.states.items() if s in AT_AGENT and isinstance(tree.net.units[n].work, Command))


def seen(tree: Tree) -> dict[JobName, JobState]:
    """The states as the reference knows them: a job that its agent has taken is ordered."""
    return {
        n: S.ORDERED if s is S.RUNNING and isinstance(tree.net.units[n].work, Command) else s
        for n, s in tree.states.items()
    }


def check_counts(tree: Tree) -> None:
    for net, children in tree.net.children.items():
        assert tree.open[net] == sum(1 for c in children if tree.states[c] not in ENDS)


@settings(max_examples=100, deadline=None)
@given(net=trees(), data=st.data())
def test_random_trees_with_random_ends_in_random_order_are_as_the_reference_says(net: Net, data: st.DataObject) -> None:
    tree = play(fresh(net), Started())
    done: dict[JobName, Fate] = {}
    while True:
        assert seen(tree) == dict(Reference(net, done).states())
        check_counts(tree)
        assert (tree.state is SessionState.RUNNING) == (tree.open[ROOT] > 0)
        assert advance(tree, Reread(), NOW) == ()
        for name in data.draw(st.sets(st.sampled_from(sorted(net.units)), max_size=2)):
            assert advance(tree, Due(name), NOW) == ()  # an instant at which nothing is due brings nothing about
        running = at_agents(tree)
        if not running:
            break
        name = data.draw(st.sampled_from(running))
        if tree.states[name] is S.ORDERED and data.draw(st.booleans()):
            tree = play(tree, Taken(name))
        else:
            done[name] = data.draw(fates)
            tree = play(tree, end_of(name, done[name]))
            assert advance(tree, end_of(name, done[name]), NOW) == ()
    stuck = {n for n, s in tree.standings.items() if s.is_stuck}
    open_ones = {n for n, s in tree.states.items() if s not in ENDS}
    for name in open_ones:  # whatever has not ended waits for somebody who waits for a person
        blocking = {*inside(net, name), name, *net.units}
        assert stuck & blocking
    assert bool(open_ones) == (tree.state is SessionState.RUNNING)
    if not open_ones:
        top = {tree.states[c] for c in net.children[ROOT]}
        worst = next((s for s in (S.ABNORMAL, S.UNKNOWN, S.WARNING) if s in top), S.NORMAL)
        assert tree.state.value == worst.value


@settings(max_examples=100, deadline=None)
@given(net=trees(), data=st.data())
def test_nothing_in_a_net_begins_before_the_net_and_nothing_is_open_in_one_that_has_ended(
    net: Net, data: st.DataObject
) -> None:
    tree = play(fresh(net), Started())
    while running := at_agents(tree):
        for name, unit in net.units.items():
            if unit.parent != ROOT and tree.states[unit.parent] is S.WAITING:
                assert tree.states[name] is S.WAITING
            if isinstance(unit.work, SubNet) and tree.states[name] in ENDS:
                assert all(tree.states[i] in ENDS for i in inside(net, name))
        name = data.draw(st.sampled_from(running))
        tree = play(tree, end_of(name, data.draw(fates)))
