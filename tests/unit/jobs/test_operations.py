"""What people may do to a running session: pure decisions, by example and against random nets and random operations."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_advance import NOW, Fates, S, ended, fates_of, fresh, job, needs_of, nets, play, states

from futago.jobs.advance import advance, after, refusal
from futago.jobs.model import (
    AT_AGENT,
    ENDS,
    Ended,
    Event,
    JobName,
    JobState,
    NeverTaken,
    Operated,
    Operation,
    Reread,
    SessionId,
    SessionState,
    Started,
    Taken,
    Tree,
    make_tree,
)
from futago.jobs.plan import EndIs, Net, make_net
from futago.jobs.rerun import jobs_again


def asked(operation: str, name: str | None = None) -> Operated:
    return Operated(Operation(operation), JobName(name) if name else None, "admin")


SIMPLE = (Operation.HOLD, Operation.RELEASE, Operation.SKIP, Operation.STOP)
CHAIN = make_net("n", (job("a"), job("b", "a"), job("c", "b")))


def test_held_job_waits_for_its_release_though_all_it_waits_for_has_come() -> None:
    tree = play(fresh(CHAIN), Started(), asked("hold", "b"), ended("a"))
    assert states(tree) == {"a": "normal", "b": "waiting", "c": "waiting"}
    assert advance(tree, Reread(), NOW) == ()
    assert states(play(tree, asked("release", "b"))) == {"a": "normal", "b": "ordered", "c": "waiting"}


def test_release_before_its_time_starts_nothing() -> None:
    tree = play(fresh(CHAIN), Started(), asked("hold", "b"), asked("release", "b"))
    assert states(tree) == {"a": "ordered", "b": "waiting", "c": "waiting"}
    assert play(tree, ended("a")).states[JobName("b")] is S.ORDERED


def test_held_job_whose_conditions_cannot_be_met_is_not_run() -> None:
    tree = play(fresh(CHAIN), Started(), asked("hold", "b"), ended("a", 77))
    assert tree.state is SessionState.ABNORMAL and tree.states[JobName("b")] is S.NOT_RUN


def test_skipped_job_counts_as_done_for_those_that_wait_for_it() -> None:
    tree = play(fresh(CHAIN), Started(), asked("skip", "b"))
    assert states(tree) == {"a": "ordered", "b": "skipped", "c": "ordered"}
    assert play(tree, ended("c"), ended("a")).state is SessionState.NORMAL


def test_stopped_session_starts_nothing_more_and_ends_with_what_still_runs() -> None:
    on_fail = job("f", EndIs(JobName("a"), frozenset({S.ABNORMAL})))
    net = make_net("n", (job("a"), job("b", "a"), on_fail))
    tree = play(fresh(net), Started(), Taken(JobName("a")), asked("stop"))
    assert tree.stopping == {"a"} and states(tree) == {"a": "running", "b": "not-run", "f": "not-run"}
    assert play(tree, ended("a", 143)).state is SessionState.ABNORMAL


def test_stopped_job_that_its_agent_never_had_is_not_run() -> None:
    tree = play(fresh(CHAIN), Started(), asked("stop", "a"), NeverTaken(JobName("a")))
    assert states(tree) == {"a": "not-run", "b": "not-run", "c": "not-run"}
    untouched = play(fresh(CHAIN), Started())
    assert advance(untouched, NeverTaken(JobName("a")), NOW) == ()  # without a stop it is ordered again


@pytest.mark.parametrize(
    ("operation", "name", "why"),
    [
        ("skip", "a", "not waiting any more: it is ordered"),
        ("hold", "x", "has no job `x`"),
        ("hold", None, "needs the name of a job"),
        ("release", "b", "is not held"),
    ],
)
def test_operation_without_a_meaning_is_refused_with_a_reason_and_changes_nothing(
    operation: str, name: str | None, why: str
) -> None:
    tree = play(fresh(CHAIN), Started())
    assert why in refusal(tree, asked(operation, name))
    assert advance(tree, asked(operation, name), NOW) == ()


def test_sessions_that_have_not_begun_or_have_ended_take_no_operations() -> None:
    assert "not begun" in refusal(fresh(CHAIN), asked("stop"))
    over = play(fresh(CHAIN), Started(), ended("a", 77))
    assert refusal(over, asked("stop")) == "The run has ended abnormal."
    twice = play(fresh(CHAIN), Started(), asked("stop", "a"))
    assert "being stopped already" in refusal(twice, asked("stop", "a"))


@settings(max_examples=150, deadline=None)
@given(net=nets(), data=st.data())
def test_no_order_of_operations_hangs_a_session_or_starts_what_is_held(net: Net, data: st.DataObject) -> None:
    fates = fates_of(net, data)
    tree = play(fresh(net), Started())
    names = sorted(net.units)
    for _ in range(60):
        if tree.state is not SessionState.RUNNING:
            break
        at_agent = sorted(n for n, s in tree.states.items() if s in AT_AGENT)
        if at_agent and data.draw(st.booleans()):
            name = data.draw(st.sampled_from(at_agent))
            event = (
                NeverTaken(name)
                if name in tree.stopping and tree.states[name] is S.ORDERED
                else Ended(name, *fates[name])
            )
        else:
            operation = data.draw(st.sampled_from(SIMPLE))
            whole = operation is Operation.STOP and data.draw(st.integers(0, 9)) == 0
            event = Operated(operation, None if whole else data.draw(st.sampled_from(names)), "admin")
        before, steps = tree, advance(tree, event, NOW)
        if isinstance(event, Operated):
            assert bool(refusal(before, event)) == (steps == ())
        tree = after(tree, steps)
        check_step(before, tree, event)
    for name in sorted(tree.held):  # release everything: what is left must come to an end
        tree = play(tree, Operated(Operation.RELEASE, name, "admin"))
    while at_agent := [n for n, s in tree.states.items() if s in AT_AGENT]:
        tree = play(tree, Ended(at_agent[0], *fates[at_agent[0]]))
    assert tree.state is not SessionState.RUNNING
    assert all(s in ENDS for s in tree.states.values())


@settings(max_examples=120, deadline=None)
@given(net=nets(), data=st.data())
def test_run_again_ends_again_and_what_lies_before_the_point_keeps_its_result(net: Net, data: st.DataObject) -> None:
    before = to_its_end(play(fresh(net), Started()), fates_of(net, data))
    job = data.draw(st.one_of(st.none(), st.sampled_from(sorted(net.units))))
    try:
        again = jobs_again(before, job, NOW).jobs
    except ValueError:
        needs = needs_of(net.units[job]) if job else ()
        assert any(before.states[n.job] not in n.ends for n in needs) or before.state in (
            SessionState.NORMAL,
            SessionState.WARNING,
        )
        return
    assert job is None or job in again
    states = {n: S.WAITING if n in again else s for n, s in before.states.items()}
    fates = fates_of(net, data)
    after_ = to_its_end(play(make_tree(SessionId(1), net, SessionState.STARTING, states), Started()), fates)
    assert all(after_.states[n] is s for n, s in before.states.items() if n not in again)
    for name in again:  # each is decided as if the others had always been so
        met = all(after_.states[n.job] in n.ends for n in needs_of(net.units[name]))
        assert (after_.states[name] is S.NOT_RUN) == (not met)


def to_its_end(tree: Tree, fates: Fates) -> Tree:
    while at_agent := [n for n, s in tree.states.items() if s in AT_AGENT]:
        tree = play(tree, Ended(at_agent[0], *fates[at_agent[0]]))
    assert tree.state is not SessionState.RUNNING
    return tree


def check_step(before: Tree, after_: Tree, event: Event) -> None:
    for name, state in after_.states.items():
        was = before.states[name]
        if was in ENDS:
            assert state is was  # an end stays an end
        if state is JobState.ORDERED and was is JobState.WAITING:
            assert name not in after_.held
            needs = needs_of(after_.net.units[name])
            assert all(after_.states[n.job] in n.ends for n in needs)
    whole = isinstance(event, Operated) and event.job is None and event.operation is Operation.STOP
    if whole:
        assert JobState.WAITING not in after_.states.values()
    assert after_.open_count == sum(1 for s in after_.states.values() if s not in ENDS)
    assert (after_.state is SessionState.RUNNING) == (after_.open_count > 0)
