"""JobNet and Schedule in YAML: what is accepted means what it says, what is refused names the place."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from futago.inventory.definitions import parse
from futago.jobs.definitions import JobNet, read_net
from futago.jobs.model import ENDS, SUCCESS, JobName, JobState
from futago.jobs.plan import AllOf, CheckOnce, Command, EndIs, Place, Transfer
from futago.jobs.schedule_definitions import Schedule
from futago.jobs.sound import find_circle
from futago.runtime.faults import Corrupt, OperatorFault


def net(*jobs: str) -> JobNet:
    [found] = parse("kind: JobNet\nname: n\njobs:\n" + "".join(f"  - {j}\n" for j in jobs))
    assert isinstance(found.object, JobNet)
    return found.object


def complaint(*jobs: str) -> str:
    with pytest.raises(OperatorFault) as e:
        net(*jobs)
    return e.value.what


def test_predecessors_mean_success_unless_they_say_otherwise() -> None:
    found = net(
        "{name: a, host: h, command: x}",
        "{name: b, host: h, command: x, after: [a]}",
        "{name: c, host: h, command: x, after: [{job: a, end: abnormal}, {job: b, end: [unknown, not-run]}]}",
        "{name: d, host: h, command: x, after: [{job: c, end: any}]}",
    ).net()
    assert {str(name): job.start for name, job in found.units.items()} == {
        "a": AllOf(),
        "b": AllOf((EndIs(JobName("a"), SUCCESS),)),
        "c": AllOf(
            (
                EndIs(JobName("a"), frozenset({JobState.ABNORMAL})),
                EndIs(JobName("b"), frozenset({JobState.UNKNOWN, JobState.NOT_RUN})),
            )
        ),
        "d": AllOf((EndIs(JobName("c"), ENDS),)),
    }
    assert found.followers[JobName("a")] == (JobName("b"), JobName("c"))


def test_times_codes_and_variables_are_read() -> None:
    job = net(
        "{name: a, host: h, command: x, timeout: 1m30s, user: batch, env: {A: b c}, exit_codes: {normal: '0,3', warning: 4-9}}"
    ).net().units[JobName("a")]  # fmt: skip
    assert isinstance(job.work, Command)
    assert (job.work.timeout_s, job.work.user, dict(job.work.env)) == (90.0, "batch", {"A": "b c"})
    assert [c for c in range(256) if c in job.normal] == [0, 3]
    assert [c for c in range(256) if c in job.warning] == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        (["{name: a, host: h, command: x}", "{name: a, host: h, command: x}"], "two jobs are named `a`"),
        (
            ["{name: load, host: h, command: x}", "{name: b, host: h, command: x, after: [laod]}"],
            "did you mean `load`?",
        ),
        (["{name: a, host: h, command: x, after: [a]}"], "in a circle: a -> a"),
        (
            [
                "{name: z, host: h, command: x, after: [b]}",
                "{name: a, host: h, command: x, after: [b]}",
                "{name: b, host: h, command: x, after: [c]}",
                "{name: c, host: h, command: x, after: [a]}",
            ],
            "in a circle: b -> c -> a -> b",
        ),
        (["{name: a, host: h}"], "job `a`: write one of `command`, `script`"),
        (["{name: a, host: h, comand: x}"], "did you mean `command`?"),
        (["{name: a, host: h, command: x, timeout: 5}"], "`5` is not a duration"),
        (["{name: a, host: h, command: x, exit_codes: {warning: 9-1}}"], "is not a range"),
        (["{name: a, host: h, command: x, exit_codes: {warning: 256}}"], "between 0 and 255"),
        (["{name: a, host: h, command: x, env: {1A: x}}"], "jobs[0].env"),
        (["{name: a, host: h, command: x, user: 'a b'}"], "jobs[0].user"),
        (["{name: a, host: h, command: x, after: [{job: a, end: failed}]}"], "'abnormal'"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(jobs: list[str], said: str) -> None:
    text = complaint(*jobs)
    assert said in text
    assert "<text>:" in text


def test_definition_dumps_to_what_reads_back_the_same() -> None:
    found = net(
        "{name: a, host: h, command: x, timeout: 90s}", "{name: b, host: h, command: x, after: [{job: a, end: any}]}"
    )
    spec = found.model_dump(mode="json")
    assert JobNet.model_validate(spec) == found
    assert read_net(spec) == found.net()


def test_shape_of_another_version_is_corrupt_not_a_crash() -> None:
    with pytest.raises(Corrupt):
        read_net({"name": "n", "jobs": [{"name": "a", "shape": "of 2031"}]})


@pytest.mark.parametrize(
    ("field", "said"),
    [("cron: '0 1 * *'", "has 4 fields"), ("cron: '99 1 * * *'", "Bad minute"), ("cron: '0 1 * * *'\ntimezone: Mars/X", "not a time zone")],
)  # fmt: skip
def test_bad_schedule_is_refused_with_its_place(field: str, said: str) -> None:
    with pytest.raises(OperatorFault, match=said) as e:
        parse(f"kind: Schedule\nname: s\njob_net: n\n{field}\n")
    assert "<text>:" in e.value.what


def test_schedule_names_its_net_and_zone() -> None:
    [found] = parse("kind: Schedule\nname: s\njob_net: n\ncron: '0  1 * * *'\ntimezone: Asia/Tokyo\n")
    assert isinstance(found.object, Schedule)
    assert found.object.cron == "0 1 * * *"
    assert found.object.zone().key == "Asia/Tokyo"
    assert [r.name for r in found.object.references()] == ["n"]


@settings(max_examples=200, deadline=None)
@given(edges=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
def test_circle_is_found_exactly_where_there_is_one(edges: list[tuple[int, int]]) -> None:
    waits = {str(n): [str(b) for a, b in edges if a == n] for n in range(8)}
    circle = find_circle(waits)
    left = {n: set(w) for n, w in waits.items()}
    while free := [n for n, w in left.items() if not w]:
        left = {n: w - set(free) for n, w in left.items() if n not in free}
    assert bool(circle) == bool(left)
    if circle:
        assert circle[0] == circle[-1]
        assert all(b in waits[a] for a, b in itertools.pairwise(circle))
        assert len(set(circle)) == len(circle) - 1


def test_chain_of_ten_thousand_jobs_is_no_circle_and_no_recursion() -> None:
    assert find_circle({str(n): [str(n + 1)] if n < 9999 else [] for n in range(10_000)}) == []


@pytest.mark.parametrize(
    ("job", "why"),
    [
        ("transfer: {from: {host: h1, path: /a/../b}, to: {host: h2, path: /c}}", "holds `..`"),
        ("transfer: {from: {host: h1, path: /a}, to: {host: h2, path: /c, mode: '4755'}}", "pattern"),
        ("transfer: {from: {host: h1, path: /a}, to: {host: h2, path: /c}}, exit_codes: {normal: 0}", "exit_codes"),
        ("check: {monitor: m, host: h1}, timeout: 1m", "timeout"),
    ],
)
def test_senseless_transfers_and_checks_are_refused_with_a_reason(job: str, why: str) -> None:
    assert why in complaint(f"{{name: a, {job}}}")


def test_transfer_and_check_are_what_they_say_and_written_back_as_people_write_them() -> None:
    found = net(
        "{name: t, transfer: {from: {host: a, path: /x, user: u}, to: {host: b, path: /y, mode: '640'}}, timeout: 1h}",
        "{name: c, check: {monitor: m, host: a}}",
    )
    assert [unit.work for unit in found.net().units.values()] == [
        Transfer(Place("a", "/x", "u"), Place("b", "/y"), 0o640, 3600.0),
        CheckOnce("m", "a"),
    ]
    assert found.model_dump(mode="json")["jobs"][0]["transfer"]["from"]["user"] == "u"
    assert read_net(found.model_dump(mode="json")) == found.net()
