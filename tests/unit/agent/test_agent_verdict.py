"""What became of a run: every situation, judged without a disk."""

from __future__ import annotations

from itertools import product

import pytest

from futago.agent.model import (
    EXIT_BLANK,
    REFUSED_MARK,
    Keeper,
    Mark,
    Observed,
    Verdict,
    judge,
    parse_exit,
    parse_mark,
    parse_stat,
)

STAT = b"4711 (sh (odd) x) S 1 4711 4711 0 -1 4194304 120 0 0 0 0 0 0 0 20 0 1 0 987654 2621440 230 1844\n"
SPACE = [
    Observed(is_same_boot=b, mark=m, is_alive=a, exit_code=c, has_verdict=v)
    for b, m, a, c, v in product((True, False), Mark, (True, False), (None, 0, 9), (True, False))
]


@pytest.mark.parametrize("seen", SPACE)
def test_run_is_started_only_where_it_certainly_has_not_started(seen: Observed) -> None:
    certain = seen.is_same_boot and seen.mark is Mark.ABSENT and seen.exit_code is None and not seen.has_verdict
    assert (judge(seen) is Verdict.START) == certain


@pytest.mark.parametrize("seen", SPACE)
def test_exit_code_on_disk_always_counts(seen: Observed) -> None:
    assert (judge(seen) is Verdict.ENDED) == (seen.exit_code is not None or seen.has_verdict)


@pytest.mark.parametrize("seen", [s for s in SPACE if s.exit_code is None and not s.has_verdict])
def test_run_of_an_earlier_boot_without_exit_code_is_unknown(seen: Observed) -> None:
    assert (judge(seen) is Verdict.REBOOTED) == (not seen.is_same_boot)


def test_every_verdict_is_reachable() -> None:
    assert {judge(s) for s in SPACE} == set(Verdict)


def test_stat_line_with_brackets_in_the_name_is_read() -> None:
    assert parse_stat(STAT) == (Keeper(pid=4711, start_ticks=987654), "S", 4711)
    assert parse_stat(b"4711 (sh) S") is None
    assert parse_stat(b"") is None


def test_mark_is_blank_until_its_line_is_complete() -> None:
    assert parse_mark(None) == (Mark.ABSENT, None)
    assert parse_mark(b"") == (Mark.BLANK, None)
    assert parse_mark(STAT[:-1]) == (Mark.BLANK, None)
    assert parse_mark(STAT) == (Mark.KEEPER, Keeper(4711, 987654))
    assert parse_mark(REFUSED_MARK) == (Mark.REFUSED, None)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, None),
        (EXIT_BLANK, None),
        (b"", None),
        (b"\0" * 16, None),
        (b"0", None),
        (b"13", None),
        (b"0 en", None),
        (b"0 end\n         \n", 0),
        (b"137 end\n       \n", 137),
    ],
)
def test_exit_code_counts_only_when_it_is_complete(content: bytes | None, code: int | None) -> None:
    assert parse_exit(content) == code
