"""Crontab files become nets and schedules that can be applied; what cannot is said with its line."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from futago.cli.crontab import as_text
from futago.inventory.definitions import parse
from futago.inventory.model import Kind
from futago.jobs.crontab import Imported, Origin, read
from futago.jobs.schedule_definitions import Schedule

CRONTAB = """\
# a comment
SHELL=/bin/bash
PATH=/opt/bin:/usr/bin
MAILTO="ops@lab.test"
CRON_TZ = Asia/Tokyo

*/5 * * * *   /opt/bin/poll --fast
30 1 1 * mon  cd /srv && ./night.sh >/dev/null 2>&1
@daily        backup
@reboot       /opt/bin/start
61 * * * *    /opt/bin/never
"""


def one(text: str, **origin: object) -> Imported:
    return read(text, Origin(host="h1", **origin))  # type: ignore[arg-type]


def test_each_line_is_a_net_and_a_schedule_that_can_be_applied() -> None:
    found = one(CRONTAB)
    definitions = parse("kind: Host\nname: h1\naddress: 10.0.0.1\n---\n" + as_text(found, "crontab"))
    assert [(d.kind, d.name) for d in definitions[1:]] == [
        (kind, f"cron-h1-{name}") for name in ("poll", "srv", "backup") for kind in (Kind.JOB_NET, Kind.SCHEDULE)
    ]
    schedule = definitions[2].object
    assert isinstance(schedule, Schedule)
    assert (schedule.cron, schedule.timezone) == ("*/5 * * * *", "Asia/Tokyo")
    first = next(schedule.timetable({}).after(datetime(2026, 3, 1, 0, 2, tzinfo=UTC)))
    assert first.at_utc == datetime(2026, 3, 1, 0, 5, tzinfo=UTC)
    job = found.entries[0].net["jobs"][0]
    assert job == {
        "name": "run", "host": "h1", "command": "/bin/bash -c '/opt/bin/poll --fast'",
        "env": {"PATH": "/opt/bin:/usr/bin"},
    }  # fmt: skip


def test_what_cron_does_otherwise_is_said_with_its_line() -> None:
    remarks = {r.line: (r.is_lost, r.text) for r in one(CRONTAB).remarks}
    assert set(remarks) == {4, 8, 10, 11}
    assert not remarks[4][0]
    assert "Notification" in remarks[4][1]
    assert not remarks[8][0]
    assert "/dev/null" in remarks[8][1]
    assert remarks[10][0]
    assert "@reboot" in remarks[10][1]
    assert remarks[11][0]


def test_variables_hold_for_the_lines_below_them() -> None:
    found = one("A=1\n0 0 * * * x\nA=2\nB='two words'\n0 1 * * * y\n")
    assert [e.net["jobs"][0]["env"] for e in found.entries] == [{"A": "1"}, {"A": "2", "B": "two words"}]


def test_system_crontab_names_the_user_of_each_line() -> None:
    found = one(
        "17 *\t* * *\troot    cd / && run-parts --report /etc/cron.hourly\n@daily\twww\tclean up\n", is_system=True
    )
    assert [(e.net["jobs"][0]["user"], e.net["jobs"][0]["command"]) for e in found.entries] == [
        ("root", "cd / && run-parts --report /etc/cron.hourly"),
        ("www", "clean up"),
    ]
    assert [e.schedule["cron"] for e in found.entries] == ["17 * * * *", "0 0 * * *"]


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("echo 50\\% done", "50% done\n"),
        ("cat%first line%second's line", "first line\nsecond's line\n"),
        ("cat; echo end%a\\%b", "a%b\nend\n"),
        ("exit 7%x", ""),
    ],
)
def test_percent_is_the_commands_input_as_in_cron(line: str, printed: str, tmp_path: Path) -> None:
    (entry,) = one(f"* * * * * {line}\n").entries
    command = entry.net["jobs"][0]["command"]
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.stdout, done.returncode) == (printed, 7 if "exit 7" in line else 0)


def test_names_are_different_and_fit() -> None:
    found = one("".join(f"{n} * * * * /usr/bin/{'x' * 80} {n}\n" for n in range(5)), prefix="p")
    names = [e.net["name"] for e in found.entries]
    assert len(set(names)) == 5
    parse("kind: Host\nname: h1\naddress: 10.0.0.1\n---\n" + as_text(found, "f"))


@pytest.mark.parametrize("line", ["* * * *", "* * * * *", "@never x", "0 0 31 2 ? x", "~ * * * * x", "@hourly"])
def test_line_that_is_none_is_left_out_and_said(line: str) -> None:
    found = one(f"{line}\n0 0 * * * good\n")
    assert [e.line for e in found.entries] == [2]
    assert [(r.line, r.is_lost) for r in found.remarks] == [(1, True)]
