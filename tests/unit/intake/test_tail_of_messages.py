"""`futago tail`: both journals, each message once, as it comes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from journals import Journal, settings
from test_snmp_decoder import encoded

from futago.cli.tail import as_text, messages
from futago.intake.model import Protocol
from futago.intake.options import Snmp
from futago.intake.watch import Watch
from futago.setup import settings as settings_file


@pytest.fixture
def journals(tmp_path: Path) -> tuple[Journal, Journal]:
    return Journal(tmp_path / "own"), Journal(tmp_path / "peer")


def texts(watch: Watch) -> list[str]:
    return [one.text for one in watch.poll()]


def test_what_both_members_received_is_shown_once_and_what_follows_as_it_comes(
    tmp_path: Path, journals: tuple[Journal, Journal]
) -> None:
    one, two = journals
    for journal in journals:
        journal.mark()
    one.add(b"<13>both", b"<13>mine", b"<13>twice", b"<13>twice")
    two.add(b"<13>both", b"<13>yours", b"<13>twice", b"<13>twice")
    watch = Watch({"m1": tmp_path / "own", "m2": tmp_path / "peer"}, Snmp())
    assert sorted(texts(watch)) == ["both", "mine", "twice", "twice", "yours"]
    assert texts(watch) == []
    two.add(encoded([], trap_oid="1.3.6.1.6.3.1.1.5.4"), protocol=Protocol.SNMP_UDP)
    two.add("<13>1 - web1 a - - - 障害".encode("cp932"))
    one.add("<13>1 - web1 a - - - 障害".encode("cp932"))
    found = watch.poll()
    assert [f.text for f in found if f.protocol is Protocol.SYSLOG_UDP] == ["1 - web1 a - - - 障害"]
    assert len(found) == 2
    trap = next(f for f in found if f.protocol is Protocol.SNMP_UDP)
    assert trap.text == "trapOID=1.3.6.1.6.3.1.1.5.4"
    assert as_text(trap).endswith("  10.0.0.50  snmptrap  trapOID=1.3.6.1.6.3.1.1.5.4")
    watch.close()


def test_only_what_is_wanted_is_shown_and_only_the_last(tmp_path: Path, journals: tuple[Journal, Journal]) -> None:
    one, _ = journals
    one.add(*[b"<13>n=%d" % n for n in range(20)])
    one.add(b"<13>n=99", source="10.0.0.51")

    def shown(**wanted: object) -> list[str]:
        watch = Watch({"m1": tmp_path / "own"}, Snmp())
        options = {"source": None, "wanted": None, **wanted}
        return [one.text for one in messages(watch, 3, is_following=False, **options)]  # type: ignore[arg-type]

    assert shown() == ["n=18", "n=19", "n=99"]
    assert shown(source="10.0.0.50") == ["n=17", "n=18", "n=19"]
    assert shown(wanted=re.compile("n=1")) == ["n=17", "n=18", "n=19"]


def test_a_long_journal_is_begun_near_its_end(tmp_path: Path, journals: tuple[Journal, Journal]) -> None:
    one, _ = journals
    for start in range(0, 10_000, 1000):
        one.add(*[b"<13>n=%d %b" % (n, b"x" * 300) for n in range(start, start + 1000)])
    watch = Watch({"m1": tmp_path / "own"}, Snmp())
    found = watch.poll()
    assert len(found) < 5000
    assert found[-1].text.startswith("n=9999 ")


def test_the_command_shows_the_journal_of_a_member(tmp_path: Path) -> None:
    (tmp_path / "etc/futago").mkdir(parents=True)
    (tmp_path / "etc/futago/futago.toml").write_text(settings_file.dump(settings()))
    own = Journal(tmp_path / "var/lib/futago/journal/own")
    own.add(b"<13>hello\nworld", source="fd00::7")
    command = [sys.executable, "-m", "futago", "tail", "--no-follow"]
    env = {**os.environ, "FUTAGO_ROOT": str(tmp_path)}
    ended = subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=20)
    assert ended.stdout.endswith("  fd00::7  syslog  hello\\nworld\n")
    ended = subprocess.run([*command, "--match", "("], check=False, env=env, capture_output=True, text=True, timeout=20)
    assert ended.returncode == 2
    assert "not a regular expression" in ended.stderr
