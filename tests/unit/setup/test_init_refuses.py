"""`futago init` and its sisters refuse wrong input before anything is changed: run as the command, on a machine of
its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from futago.cli.main import main
from futago.setup import paths

GOOD = {
    "--pair": "lab",
    "--member": "m1",
    "--service": "192.0.2.11",
    "--heartbeat": "198.51.100.11",
    "--interface": "lo",
    "--floating-ip": "192.0.2.100/24",
    "--fence": "ipmi://admin@192.0.2.201",
    "--fence-password-file": "fence",
    "--admin-password-file": "admin",
}


@dataclass(frozen=True)
class Done:
    """How a command line ended."""

    returncode: int
    stdout: str
    stderr: str


class Machine:
    """A machine to try commands on: its root, and a folder with password files beside it."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self._capsys = capsys
        (root / "fence").write_text("calvin\n")
        (root / "admin").write_text("long-enough-1\n")

    def futago(self, *args: str) -> Done:
        code = main(list(args))
        out, err = self._capsys.readouterr()
        return Done(code, out, err)

    def init(self, **changes: str | None) -> Done:
        files = {k: str(self.root / GOOD[k]) for k in ("--fence-password-file", "--admin-password-file")}
        options = {**GOOD, **files, **{f"--{k.replace('_', '-')}": v for k, v in changes.items()}}
        return self.futago("init", "--yes", *[w for k, v in options.items() if v is not None for w in (k, v)])

    def write_settings(self, *, floating_ip: str, heartbeat: str) -> None:
        paths.ETC.mkdir(parents=True)
        paths.SETTINGS.write_text(
            f'me = "m1"\n[pair]\nname = "lab"\nid = "x"\nfloating_ip = "{floating_ip}"\n'
            f'[[members]]\nname = "m1"\nservice = "192.0.2.11"\nheartbeat = "{heartbeat}"\ninterface = "lo"\n'
        )


@pytest.fixture
def machine(machine_root: Path, capsys: pytest.CaptureFixture[str]) -> Machine:
    return Machine(machine_root, capsys)


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mode, p.read_bytes() if p.is_file() else b"") for p in sorted(root.rglob("*"))}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"pair": "Lab!"}, ["--pair: `Lab!` cannot be a name"]),
        ({"member": "1m"}, ["--member: `1m` cannot be a name"]),
        ({"service": "10.0.0"}, ["--service: `10.0.0` is not an IP address"]),
        ({"heartbeat": "192.0.2.11"}, ["the same address", "setup.networks"]),
        ({"floating_ip": "192.0.2.100"}, ["no prefix length"]),
        ({"floating_ip": "192.0.2.0/24"}, ["not the address of a machine"]),
        ({"floating_ip": "192.0.2.11/24"}, ["address of this machine's own"]),
        ({"floating_ip": None, "profile": "slow"}, ["--profile: there is no `slow`"]),
        ({"profile": "slow"}, ["--profile: there is no `slow`", "default, fast, vm"]),
        ({"recovery": "never"}, ["--recovery: there is no `never`"]),
        ({"fence_after": "off"}, ["--fence-after: there is no `off`"]),
        ({"fence": "ipmy://admin@192.0.2.201"}, ["no fence driver `ipmy`"]),
        ({"fence": "ipmi://192.0.2.201"}, ["is not complete"]),
        ({"fence": "ipmi://admin:secret@192.0.2.201"}, ["can be read by everybody"]),
        ({"fence_password_file": None}, ["needs --fence-password-file"]),
        ({"fence_password_file": "nowhere"}, ["nowhere cannot be read"]),
        ({"admin_password_file": "nowhere"}, ["nowhere cannot be read"]),
        ({"pair": "X", "profile": "slow", "fence": "x"}, ["3 things", "--pair", "--profile", "no fence driver"]),
    ],
)
def test_wrong_words_are_refused_with_exit_code_2_and_nothing_is_changed(
    machine: Machine, changes: dict[str, str | None], expected: list[str]
) -> None:
    before = snapshot(machine.root)
    done = machine.init(**changes)
    assert done.returncode == 2, done.stderr
    for text in [*expected, "othing has been changed"]:
        assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert snapshot(machine.root) == before


@pytest.mark.parametrize(
    ("password", "expected"), [("short\n", "has 5 characters"), ("", "one line"), ("a\nb\n", "one line")]
)
def test_an_unusable_administrators_password_is_refused(machine: Machine, password: str, expected: str) -> None:
    (machine.root / "admin").write_text(password)
    done = machine.init()
    assert done.returncode == 2
    assert expected in done.stderr
    assert not password.strip() or "short" not in done.stderr


def test_addresses_of_other_machines_are_refused_and_nothing_is_changed(machine: Machine) -> None:
    before = snapshot(machine.root)
    done = machine.init(fence="none", fence_password_file=None)
    assert done.returncode == 2, done.stderr
    assert "192.0.2.11 is not an address of this machine" in done.stderr
    assert snapshot(machine.root) == before


def test_files_of_somebody_else_are_not_overwritten(machine: Machine) -> None:
    theirs = paths.CA_KEY
    theirs.parent.mkdir(parents=True)
    theirs.write_text("precious")
    done = machine.init(fence="none", fence_password_file=None)
    assert done.returncode == 2
    assert "not of this set-up" in done.stderr
    assert theirs.read_text() == "precious"


def test_join_and_enroll_refuse_what_is_no_token_before_they_ask_anybody(machine: Machine) -> None:
    place = ("--service", "192.0.2.12", "--heartbeat", "198.51.100.12", "--interface", "lo", "--fence", "none")
    before = snapshot(machine.root)
    for args in (
        ("join", "--token", "futago1-x", "--member", "m2", *place),
        ("agent", "enroll", "--token", "futago1-x"),
    ):
        done = machine.futago(*args)
        assert done.returncode == 2, done.stderr
        assert "not a complete token" in done.stderr
    assert snapshot(machine.root) == before


def test_a_machine_that_is_not_set_up_says_so(machine: Machine) -> None:
    for args in (("token", "join"), ("jury", "set", "h1", "h2", "h3")):
        done = machine.futago(*args)
        assert done.returncode == 2
        assert "is not set up" in done.stderr
        assert "settings.missing" in done.stderr


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["h1", "h2"], "3 or 5 jurors, not 2"),
        (["h1", "h2", "h2"], "Named twice: h2"),
        (["h1", "h2", "m1"], "m1 is a member"),
    ],
)
def test_an_impossible_jury_is_refused(machine: Machine, names: list[str], expected: str) -> None:
    machine.write_settings(floating_ip="192.0.2.100/24", heartbeat="198.51.100.11")
    done = machine.futago("jury", "set", *names)
    assert done.returncode == 2
    assert expected in done.stderr


def test_an_initialised_machine_refuses_other_values_and_names_each(machine: Machine) -> None:
    machine.write_settings(floating_ip="192.0.2.101/24", heartbeat="198.51.100.12")
    before = snapshot(machine.root)
    done = machine.init(fence="none", fence_password_file=None)
    assert done.returncode == 2
    assert "floating_ip is 192.0.2.101/24, not 192.0.2.100/24" in done.stderr
    assert "heartbeat is 198.51.100.12, not 198.51.100.11" in done.stderr
    assert snapshot(machine.root) == before


def test_help_and_version_need_no_machine(machine: Machine) -> None:
    assert "--floating-ip" in machine.futago("init", "--help").stdout
    version = machine.futago("--version")
    assert version.stdout.startswith("futago ")
