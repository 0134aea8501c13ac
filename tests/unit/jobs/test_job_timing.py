"""What time, variables, other nets and attempts bring about: pure decisions, by example."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from test_advance import NOW, ended, job

from futago.jobs.advance import advance, after
from futago.jobs.model import (
    Ask,
    Due,
    Ended,
    Event,
    JobName,
    JobRetried,
    JobState,
    Notice,
    Noticed,
    Operated,
    Operation,
    OtherStands,
    Reread,
    SessionId,
    SessionState,
    Started,
    Tree,
    make_tree,
)
from futago.jobs.parameters import Parameter, filled, found_in, values_of
from futago.jobs.plan import (
    AllOf,
    AnyOf,
    Comparison,
    Elapsed,
    EndIs,
    Limit,
    OtherEnded,
    Pause,
    Retry,
    TimeIs,
    Unit,
    VariableIs,
    make_net,
)
from futago.jobs.queues import Queues, Rule
from futago.jobs.timing import next_due
from futago.link.orders import Outcome

S = JobState
A, B = JobName("a"), JobName("b")
DAY = NOW.date()
MINUTE = timedelta(minutes=1)


def session(*units: Unit, timezone: str = "UTC", day: date = DAY) -> Tree:
    net = make_net("n", units, timezone=timezone)
    return make_tree(SessionId(1), net, SessionState.STARTING, dict.fromkeys(net.units, S.WAITING), day=day)


def at(tree: Tree, event: Event, now: datetime = NOW) -> Tree:
    return after(tree, advance(tree, event, now))


def test_time_of_day_is_of_the_sessions_day_in_its_zone_and_goes_on_past_midnight() -> None:
    tree = at(
        session(replace(job("a"), start=TimeIs(timedelta(hours=25.5))), timezone="Asia/Tokyo", day=date(2026, 1, 2)),
        Started(),
    )
    due = datetime(2026, 1, 2, 16, 30, tzinfo=UTC)  # half past one on the third, in Tokyo
    assert next_due(tree, A, NOW) == due
    assert at(tree, Due(A), due - MINUTE).states == {A: S.WAITING}
    assert at(tree, Due(A), due).states == {A: S.ORDERED}
    assert at(tree, Reread(), due).states == {A: S.ORDERED}  # a manager that comes later finds it
    assert next_due(at(tree, Due(A), due), A, due) is None


def test_elapsed_time_counts_from_the_sessions_beginning_and_groups_are_decided_as_soon_as_certain() -> None:
    either = replace(job("b"), start=AnyOf((EndIs(A, frozenset({S.ABNORMAL})), Elapsed(5 * MINUTE))))
    tree = at(session(job("a"), either), Started())
    assert at(tree, ended("a", 77)).states[B] is S.ORDERED
    waits = at(tree, ended("a"))
    assert waits.states[B] is S.WAITING  # time never says no
    assert at(waits, Due(B), NOW + 5 * MINUTE).states[B] is S.ORDERED


def test_late_start_tells_once_and_gives_the_end_that_it_says() -> None:
    limit = Limit(elapsed=5 * MINUTE, then=S.SKIPPED)
    tree = at(session(job("a"), replace(job("b", "a"), start_limit=limit)), Started())
    steps = advance(tree, Due(B), NOW + 5 * MINUTE)
    assert Noticed(B, Notice.LATE_START, NOW + 5 * MINUTE) in steps
    assert after(tree, steps).states[B] is S.SKIPPED
    tells = at(session(job("a"), replace(job("b", "a"), start_limit=Limit(elapsed=MINUTE))), Started())
    told = at(tells, Due(B), NOW + MINUTE)
    assert told.standings[B].is_late and advance(told, Due(B), NOW + 2 * MINUTE) == ()
    begun = at(told, ended("a"))
    assert begun.states[B] is S.ORDERED and not begun.standings[B].is_late


def test_late_end_stops_the_job_and_gives_the_end_that_it_says() -> None:
    limit = Limit(length=MINUTE, stops=True, then=S.WARNING)
    tree = at(session(replace(job("a"), end_limit=limit)), Started())
    assert next_due(tree, A, NOW) == NOW + MINUTE
    late = at(tree, Due(A), NOW + MINUTE)
    assert late.stopping == {A}
    assert at(late, Ended(A, Outcome.EXITED, 143)).states[A] is S.WARNING


def test_deviation_from_past_durations_is_reckoned_from_the_jobs_own_beginning() -> None:
    tree = at(session(replace(job("a"), end_limit=Limit(deviations=3))), Started())
    assert next_due(tree, A, NOW) is None  # nothing is known of its past
    tree.typical_s = {A: (100.0, 10.0)}
    assert next_due(tree, A, NOW) == NOW + timedelta(seconds=130)


def test_pause_ends_when_its_time_is_over() -> None:
    tree = at(session(Unit(A, Pause(MINUTE))), Started())
    assert tree.states[A] is S.RUNNING and next_due(tree, A, NOW) == NOW + MINUTE
    assert at(tree, Due(A), NOW + MINUTE).state is SessionState.NORMAL


def test_job_is_tried_again_so_often_and_unknown_only_where_the_definition_says_so() -> None:
    tree = at(session(replace(job("a"), retry=Retry(2, MINUTE)), job("b", "a")), Started())
    steps = advance(tree, ended("a", 77), NOW)
    assert steps == (JobRetried(A, S.ORDERED, S.ABNORMAL, NOW, 1, NOW + MINUTE, 77),)
    tree = after(tree, steps)
    assert tree.states == {A: S.READY, B: S.WAITING} and next_due(tree, A, NOW) == NOW + MINUTE
    assert at(tree, Due(A), NOW).states[A] is S.READY
    again = at(at(tree, Due(A), NOW + MINUTE), ended("a", 77), NOW + MINUTE)
    last = at(at(again, Due(A), NOW + 2 * MINUTE), ended("a", 77))
    assert last.states == {A: S.ABNORMAL, B: S.NOT_RUN}
    unknown = at(session(replace(job("a"), retry=Retry(2))), Started())
    assert at(unknown, Ended(A, Outcome.UNKNOWN)).states[A] is S.UNKNOWN
    harmless = at(session(replace(job("a"), retry=Retry(2, on_unknown=True))), Started())
    assert at(harmless, Ended(A, Outcome.UNKNOWN)).states[A] is S.ORDERED
    stopped = at(at(session(replace(job("a"), retry=Retry(2))), Started()), Operated(Operation.STOP, A, "admin"))
    assert at(stopped, ended("a", 143)).states[A] is S.ABNORMAL


def test_variable_decides_when_it_has_the_value_and_denies_when_nobody_can_set_it_any_more() -> None:
    setter = replace(job("a"), sets={"ROWS": "ROWS="})
    tree = at(session(setter, replace(job("b"), start=VariableIs("ROWS", Comparison.MORE, "10"))), Started())
    assert tree.states[B] is S.WAITING
    assert at(tree, Ended(A, Outcome.EXITED, 0, {"ROWS": "11", "OTHER": "1"})).states[B] is S.ORDERED
    assert at(tree, Ended(A, Outcome.EXITED, 0, {"ROWS": "many"})).states[B] is S.NOT_RUN
    assert at(tree, ended("a")).states[B] is S.NOT_RUN
    assert at(tree, Ended(A, Outcome.EXITED, 0, {"OTHER": "1"})).variables == {}


def test_another_nets_session_decides_when_it_has_ended() -> None:
    ask = Ask("intake")
    tree = at(session(replace(job("a"), start=OtherEnded(ask, frozenset({SessionState.NORMAL})))), Started())
    assert at(tree, OtherStands(ask, None)).states[A] is S.WAITING
    running = at(tree, OtherStands(ask, SessionState.RUNNING))
    assert running.states[A] is S.WAITING and advance(running, OtherStands(ask, SessionState.RUNNING), NOW) == ()
    assert at(running, OtherStands(ask, SessionState.NORMAL)).states[A] is S.ORDERED
    assert at(running, OtherStands(ask, SessionState.ABNORMAL)).states[A] is S.NOT_RUN


def test_calendar_that_is_closed_and_skip_give_their_ends_when_the_job_would_start() -> None:
    closed = replace(job("b", "a"), calendar="bank", if_closed=S.WARNING)
    tree = session(job("a"), closed, replace(job("c", "a"), skip=S.SKIPPED))
    tree.shut = frozenset({"bank"})
    tree = at(at(tree, Started()), ended("a"))
    assert tree.states == {A: S.NORMAL, B: S.WARNING, JobName("c"): S.SKIPPED}
    assert tree.state is SessionState.WARNING


def test_places_go_by_priority_then_by_waiting_and_who_may_not_go_keeps_nobody_from_going() -> None:
    queues = Queues({"q": Rule(2), "each": Rule(1, per_host=True)})
    for number, (name, priority) in enumerate([("low", 0), ("held", 9), ("high", 5), ("older", 5)]):
        since = NOW - MINUTE if name == "older" else NOW
        queues.wait(name, "q", "h1", priority=priority, since=since, number=number)
    given = []
    for run_id in queues.next_ones(lambda r: r != "held"):
        given.append(run_id)
        queues.occupy(run_id, "q", "h1")
    assert given == ["older", "high"]
    assert list(queues.next_ones(lambda _: True)) == []
    queues.leave("older")
    queues.retry_aside()
    assert next(queues.next_ones(lambda _: True)) == "held"
    for host in ("h1", "h2"):
        queues.occupy(f"on-{host}", "each", host)
    assert queues.is_full_for("each", "h1") and not queues.is_full_for("each", "h3")
    assert queues.set_rules({"q": Rule(2), "each": Rule(3)}) and not queues.is_full_for("each", "h1")


def test_values_are_checked_and_reach_no_shell_as_text() -> None:
    parameters = {"N": Parameter(type="integer", min=1, max=9), "D": Parameter(type="date", default="2026-01-02")}
    assert values_of(parameters, {"N": "3"}) == {"N": "3", "D": "2026-01-02"}
    assert filled("/{{ N }}/{{X}}", {"N": "a b"}) == "/a b/"
    assert filled("http://h/?q={{N}}", {"N": "a&b=/c"}, in_url=True) == "http://h/?q=a%26b%3D%2Fc"
    assert found_in("x\nROWS=1\nROWS= 2 \nno ROWS=3\n", {"ROWS": "ROWS="}) == {"ROWS": "2"}
    assert AllOf() == AllOf(())
