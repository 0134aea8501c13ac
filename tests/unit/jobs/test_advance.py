"""The pure core of job control against a reference interpreter that is too simple to be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from futago.jobs.advance import advance, after, end_state
from futago.jobs.model import (
    AT_AGENT,
    ENDS,
    SUCCESS,
    Ended,
    Event,
    JobMoved,
    JobName,
    JobState,
    Reread,
    SessionId,
    SessionMoved,
    SessionState,
    Started,
    Taken,
    Tree,
    make_tree,
)
from futago.jobs.plan import AllOf, Codes, Command, EndIs, Net, Unit, make_net, predecessors
from futago.link.orders import Outcome

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
S = JobState


def job(name: str, *needs: str | EndIs) -> Unit:
    needed = AllOf(tuple(n if isinstance(n, EndIs) else EndIs(JobName(n)) for n in needs))
    return Unit(JobName(name), Command("h1", "true"), start=needed, warning=Codes(((1, 9),)))


def needs_of(unit: Unit) -> tuple[EndIs, ...]:
    assert isinstance(unit.start, AllOf)
    return tuple(part for part in unit.start.parts if isinstance(part, EndIs))


def fresh(net: Net) -> Tree:
    return make_tree(SessionId(1), net, SessionState.STARTING, dict.fromkeys(net.units, S.WAITING))


def play(tree: Tree, *events: Event) -> Tree:
    for event in events:
        tree = after(tree, advance(tree, event, NOW))
    return tree


def ended(name: str, code: int = 0) -> Ended:
    return Ended(JobName(name), Outcome.EXITED, code)


def states(tree: Tree) -> dict[str, str]:
    return {str(k): v.value for k, v in tree.states.items()}


def test_chain_goes_on_job_by_job() -> None:
    tree = play(fresh(make_net("n", (job("a"), job("b", "a"), job("c", "b")))), Started())
    assert states(tree) == {"a": "ordered", "b": "waiting", "c": "waiting"}
    tree = play(tree, Taken(JobName("a")), ended("a"))
    assert states(tree) == {"a": "normal", "b": "ordered", "c": "waiting"}
    tree = play(tree, ended("b"), ended("c"))
    assert tree.state is SessionState.NORMAL


def test_job_waits_for_all_of_its_predecessors() -> None:
    tree = play(fresh(make_net("n", (job("a"), job("b"), job("c", "a", "b")))), Started(), ended("b"))
    assert tree.states[JobName("c")] is S.WAITING
    assert play(tree, ended("a")).states[JobName("c")] is S.ORDERED


def test_failure_takes_its_branch_and_leaves_the_other_out() -> None:
    on_fail = job("f", EndIs(JobName("a"), frozenset({S.ABNORMAL})))
    net = make_net("n", (job("a"), job("b", "a"), job("c", "b"), on_fail))
    tree = play(fresh(net), Started(), ended("a", 77))
    assert states(tree) == {"a": "abnormal", "b": "not-run", "c": "not-run", "f": "ordered"}
    tree = play(tree, ended("f"))
    assert tree.state is SessionState.ABNORMAL


def test_job_is_decided_as_soon_as_one_need_cannot_be_met() -> None:
    tree = play(fresh(make_net("n", (job("a"), job("b"), job("c", "a", "b")))), Started())
    steps = advance(tree, ended("a", 77), NOW)
    assert JobMoved(JobName("c"), S.WAITING, S.NOT_RUN, NOW, "`a` ended abnormal") in steps


def test_any_end_includes_not_being_run() -> None:
    last = job("z", EndIs(JobName("b"), ENDS))
    tree = play(fresh(make_net("n", (job("a"), job("b", "a"), last))), Started(), ended("a", 77))
    assert states(tree) == {"a": "abnormal", "b": "not-run", "z": "ordered"}


def test_unknown_end_is_neither_success_nor_failure() -> None:
    on_fail = job("f", EndIs(JobName("a"), frozenset({S.ABNORMAL})))
    net = make_net("n", (job("a"), job("b", "a"), on_fail))
    tree = play(fresh(net), Started(), Ended(JobName("a"), Outcome.UNKNOWN))
    assert states(tree) == {"a": "unknown", "b": "not-run", "f": "not-run"}
    assert tree.state is SessionState.UNKNOWN


def test_exit_codes_are_judged_by_the_jobs_own_ranges() -> None:
    j = job("a")
    assert end_state(j, ended("a", 0)) is S.NORMAL
    assert end_state(j, ended("a", 9)) is S.WARNING
    assert end_state(j, ended("a", 10)) is S.ABNORMAL
    assert end_state(j, Ended(j.name, Outcome.TIMED_OUT, 0)) is S.ABNORMAL
    assert end_state(j, Ended(j.name, Outcome.NOT_STARTED)) is S.ABNORMAL
    assert end_state(j, Ended(j.name, Outcome.EXITED, None)) is S.UNKNOWN


def test_events_that_say_nothing_new_have_no_transitions() -> None:
    tree = play(fresh(make_net("n", (job("a"), job("b", "a")))), Started())
    assert advance(tree, Started(), NOW) == ()
    assert advance(tree, ended("b"), NOW) == ()  # never ordered
    assert advance(tree, ended("nobody"), NOW) == ()
    tree = play(tree, Taken(JobName("a")))
    assert advance(tree, Taken(JobName("a")), NOW) == ()
    tree = play(tree, ended("a"))
    assert advance(tree, ended("a", 77), NOW) == ()


def test_session_ends_with_the_transition_that_closes_its_last_job() -> None:
    tree = play(fresh(make_net("n", (job("a"), job("b", "a"), job("c", "b")))), Started())
    steps = advance(tree, ended("a", 77), NOW)
    assert steps[-1] == SessionMoved(SessionState.RUNNING, SessionState.ABNORMAL, NOW)


def test_two_ends_that_were_committed_apart_are_followed_up_when_the_rows_are_read_again() -> None:
    """Neither commit knew of the other's end, so neither of them ordered what waits for both, or ended the session."""
    net = make_net("n", (job("a"), job("b"), job("c", "a", "b"), job("d", "c")))
    rows = {JobName("a"): S.NORMAL, JobName("b"): S.NORMAL, JobName("c"): S.WAITING, JobName("d"): S.WAITING}
    tree = play(make_tree(SessionId(1), net, SessionState.RUNNING, rows), Reread())
    assert states(tree) == {"a": "normal", "b": "normal", "c": "ordered", "d": "waiting"}
    over = make_tree(SessionId(1), net, SessionState.RUNNING, dict.fromkeys(net.units, S.NORMAL))
    assert advance(over, Reread(), NOW) == (SessionMoved(SessionState.RUNNING, SessionState.NORMAL, NOW),)
    begun = fresh(net)
    assert advance(begun, Reread(), NOW) == ()  # one that did not begin is not begun by reading it


# --- the reference interpreter ----------------------------------------------------------------------------------------

Fates = Mapping[JobName, tuple[Outcome, int]]


def reference(net: Net, fates: Fates, done: set[JobName]) -> dict[JobName, JobState]:
    """What must be known once the runs in `done` have ended: by going over all jobs until nothing changes."""
    known: dict[JobName, JobState] = {}
    while True:
        before = dict(known)
        for name, j in net.units.items():
            ends = {n: known.get(n.job, S.WAITING) for n in needs_of(j)}
            if any(e in ENDS and e not in n.ends for n, e in ends.items()):
                known[name] = S.NOT_RUN
            elif all(e in n.ends for n, e in ends.items()):
                known[name] = end_state(j, Ended(name, *fates[name])) if name in done else S.ORDERED
            else:
                known[name] = S.WAITING
        if known == before:
            return known


ends = st.one_of(
    st.just(SUCCESS),
    st.just(ENDS),
    st.frozensets(st.sampled_from(sorted(ENDS)), min_size=1, max_size=3),
)


@st.composite
def nets(draw: st.DrawFn) -> Net:
    jobs = []
    for i in range(draw(st.integers(1, 12))):
        preds = draw(st.lists(st.integers(0, i - 1), max_size=4, unique=draw(st.booleans()))) if i else []
        needs = [EndIs(JobName(f"j{p}"), draw(ends)) for p in preds]
        jobs.append(job(f"j{i}", *needs))
    return make_net("n", tuple(draw(st.permutations(jobs))))


fate = st.one_of(
    st.tuples(st.just(Outcome.EXITED), st.sampled_from([0, 0, 0, 5, 77])),
    st.tuples(st.sampled_from([Outcome.UNKNOWN, Outcome.TIMED_OUT]), st.just(0)),
)


def fates_of(net: Net, data: st.DataObject) -> Fates:
    return {name: data.draw(fate, label=name) for name in net.units}


def half_written(tree: Tree, data: st.DataObject) -> Tree:
    """The same tree with some of its decisions about waiting jobs taken back, and the session's end."""
    undecided = [n for n, s in tree.states.items() if predecessors(tree.net.units[n]) and s in (S.ORDERED, S.NOT_RUN)]
    lost = data.draw(st.sets(st.sampled_from(sorted(undecided)))) if undecided else set()
    rows = {n: S.WAITING if n in lost else s for n, s in tree.states.items()}
    return make_tree(tree.session_id, tree.net, SessionState.RUNNING, rows)


@settings(max_examples=120, deadline=None)
@given(net=nets(), data=st.data())
def test_random_nets_with_random_ends_in_random_order_are_as_the_reference_says(net: Net, data: st.DataObject) -> None:
    fates = fates_of(net, data)
    tree = play(fresh(net), Started())
    done: set[JobName] = set()
    while True:
        seen = {n: S.ORDERED if s is S.RUNNING else s for n, s in tree.states.items()}
        assert seen == reference(net, fates, done)
        assert tree.open_count == sum(1 for s in tree.states.values() if s not in ENDS)
        assert (tree.state is SessionState.RUNNING) == (tree.open_count > 0)
        at_agent = sorted(n for n, s in tree.states.items() if s in AT_AGENT)
        if not at_agent:
            break
        name = data.draw(st.sampled_from(at_agent))
        if tree.states[name] is S.ORDERED and data.draw(st.booleans()):
            tree = play(tree, Taken(name))
        else:
            done.add(name)
            tree = play(tree, Ended(name, *fates[name]))
        known: list[Taken | Ended] = [Taken(name), *(Ended(d, *fates[d]) for d in sorted(done))]
        repeated = data.draw(st.sampled_from(known))
        if isinstance(repeated, Ended) or tree.states[name] is not S.ORDERED:
            assert advance(tree, repeated, NOW) == ()
        assert advance(tree, Reread(), NOW) == ()
        assert play(half_written(tree, data), Reread()).states == tree.states
    assert all(s in ENDS for s in tree.states.values())  # no net hangs
    worst = max(tree.states.values(), key=["not-run", "skipped", "normal", "warning", "unknown", "abnormal"].index)
    assert tree.state.value == (worst.value if worst is not S.NOT_RUN else "normal")


def test_wide_and_deep_nets_are_advanced_quickly_enough_to_be_bearable() -> None:
    jobs = [job("a"), *(job(f"m{i}", "a") for i in range(2000))]
    jobs.append(job("z", *(f"m{i}" for i in range(2000))))
    tree = play(fresh(make_net("n", tuple(jobs))), Started(), ended("a"))
    for i in range(2000):
        tree = play(tree, ended(f"m{i}"))
    assert tree.states[JobName("z")] is S.ORDERED
