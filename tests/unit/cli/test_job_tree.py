"""The tree of a run on a terminal: what is drawn where there is no room for all; bars; lines where it is no terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from futago.cli import job_tree
from futago.cli.job_views import bar
from futago.web.job_history_model import Bar, Gantt
from futago.web.job_model import JobRun, SessionDetail

BEGIN = datetime(2026, 3, 1, 1, tzinfo=UTC)


def job(name: str, state: str, *, attempt: int = 1, seconds: float = 5.0, detail: str | None = None) -> JobRun:
    begun = state not in ("waiting", "not-run")
    return JobRun(
        run_id=f"{name}-{attempt}", job_name=name, host_name="h1", state=state, attempt=attempt,
        exit_code=3 if state == "abnormal" else None, started_utc=BEGIN if begun else None,
        ended_utc=BEGIN + timedelta(seconds=seconds) if begun and state != "running" else None,
        detail=detail, is_held=False, is_stopping=False, output=None,
    )  # fmt: skip


def run(*jobs: JobRun, state: str = "running") -> SessionDetail:
    return SessionDetail(
        session_id=7, net_name="night", state=state, trigger="test", created_utc=BEGIN, started_utc=BEGIN,
        ended_utc=None if state == "running" else BEGIN + timedelta(seconds=60), job_states={}, jobs=list(jobs),
    )  # fmt: skip


def drawn(found: SessionDetail, *, lines_max: int = 100) -> str:
    console = Console(width=120, force_terminal=False)
    with console.capture() as kept:
        console.print(job_tree.draw(found, lines_max=lines_max, now=BEGIN + timedelta(seconds=30)))
    return kept.get()


def test_jobs_hang_below_the_nets_in_their_names() -> None:
    text = drawn(run(job("a", "normal"), job("load/b", "running"), job("load/deep/c", "abnormal", detail="[x] no")))
    assert [line.strip("├└│─ ") for line in text.splitlines()] == [
        "run 7 of night: running, 30 s ()",
        "✓ a  h1  5.0 s",
        "load",
        "▶ b  h1  30.0 s",
        "deep",
        "✗ c  h1  5.0 s  exit 3  [x] no",
    ]


def test_net_that_has_a_run_of_its_own_shows_its_state_above_its_jobs() -> None:
    text = drawn(run(job("load", "running"), job("load/b", "normal"), job("load/c", "waiting")), lines_max=1)
    assert [line.strip("├└│─ ") for line in text.splitlines()][1:] == [
        "▶ load  h1  30.0 s",
        "· c  h1",
        "and 1 normal",
    ]


def test_newest_attempt_alone_is_drawn() -> None:
    text = drawn(run(job("a", "abnormal"), job("a", "running", attempt=2)))
    assert "✗" not in text
    assert "attempt 2" in text


def test_what_runs_and_what_failed_is_drawn_first_and_the_rest_counted() -> None:
    many = [job(f"n{i}", "normal") for i in range(50)] + [job(f"w{i}", "waiting") for i in range(9)]
    text = drawn(run(*many, job("bad", "abnormal"), job("now", "running")), lines_max=3)
    assert "✗ bad" in text
    assert "▶ now" in text
    assert "and 50 normal, 8 waiting" in text
    assert len(text.splitlines()) == 1 + 3 + 1


def test_where_it_is_no_terminal_each_change_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(job_tree, "LOOK_S", 0)
    looks = iter(
        [
            run(job("a", "running"), job("b", "waiting")),
            run(job("a", "running"), job("b", "waiting")),
            run(job("a", "abnormal"), job("b", "not-run"), state="abnormal"),
        ]
    )
    assert job_tree.follow(lambda: next(looks)).state == "abnormal"
    assert capsys.readouterr().out.splitlines() == ["a running h1", "a abnormal exit 3 h1", "b not-run h1"]


def test_bars_lie_within_the_time_of_the_whole() -> None:
    def one(start: float, end: float | None) -> Bar:
        return Bar(
            job_name="j", host_name="h", state="x", attempt=1, ordered_utc=None, after=[], is_critical=False,
            started_utc=BEGIN + timedelta(seconds=start),
            ended_utc=None if end is None else BEGIN + timedelta(seconds=end),
        )  # fmt: skip

    bars = [one(0, 10), one(10, 20), one(15, None)]
    chart = Gantt(
        session_id=1, net_name="n", state="running", started_utc=None, ended_utc=None, critical_path=[], bars=bars
    )
    shown = [bar(chart, b.started_utc, b.ended_utc, columns=21) for b in bars]
    assert shown == ["█" * 11, " " * 10 + "█" * 11, " " * 15 + "█" * 6]
    assert bar(chart, None, None) == ""
