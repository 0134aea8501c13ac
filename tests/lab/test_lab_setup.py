"""Setting a pair up on real machines: refusals before any change, interruptions at any instant, repeats that change
nothing, a machine that comes back with empty disks. In a lab of its own, because it is a story that starts with
nothing.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import PurePath

import pytest

from futago.lab.lab import PROGRAM, Lab, LabHost
from futago.lab.pair import wait_for_pair
from futago.lab.progress import say
from futago.lab.topology import BMC_USER, FLOATING_IP, Network, bmc_address, standard
from futago.setup import paths

DATABASE = ("-h", str(paths.PG_SOCKET_DIR), "-p", str(paths.PORT_POSTGRES), "-U", "postgres", "-d", "futago")
PLACES = (
    "/etc/futago",
    "/etc/systemd/system",
    "/etc/tmpfiles.d",
    "/etc/sysctl.d",
    "/var/lib/futago/cluster",
    "/etc/passwd",
)
# In the order in which they appear. One may be there already when the command was killed for the one before it.
WRITTEN_BY_INIT = (
    "/etc/futago/futago.toml",
    "/etc/futago/pki/own.crt",
    "/var/lib/futago/pg/data.unfinished",
    "/var/lib/futago/cluster/view.slots",
    "/run/futago/controller.sock",
)
WRITTEN_BY_JOIN = (
    "/etc/futago/futago.toml",
    "/etc/systemd/system/futago-controller.service",
    "/run/futago/controller.sock",
)
# What the programs write as they run, beside what set-up writes.
CHANGING = r"view\.slots|admission\.json|\.lock|.*\.record|vote\.memory\.json|last_switch\.json|volume\.json"


@pytest.fixture(scope="module")
def bare() -> Iterator[Lab]:
    """Two members and three hosts, booted, with nothing of the product set up."""
    made = Lab(f"s{os.getpid()}")
    try:
        made.up(nodes=standard(hosts=3, device=False, client=False), owner_pid=os.getpid(), say=say)
        for member in made.members:
            member.write("/root/fence", made.places.bmc_password(member.name).read_text(encoding="ascii"), mode=0o600)
            member.write("/root/wrong", "wrong\n", mode=0o600)
            member.write("/root/admin", "long-enough-1\n", mode=0o600)
        yield made
    finally:
        made.down(say=say, keep_logs=True)


def place(host: LabHost, /, **changes: str) -> list[str]:
    options = {
        "member": host.name,
        "service": host.address,
        "heartbeat": host.node.address(Network.HEARTBEAT),
        "interface": "eth0",
        "fence": f"ipmi://{BMC_USER}@{bmc_address(host.name)}",
        "fence-password-file": "/root/fence",
        **{key.replace("_", "-"): value for key, value in changes.items()},
    }
    return [word for key, value in options.items() for word in (f"--{key}", value)]


def init(host: LabHost, /, **changes: str) -> list[str]:
    fixed = {"pair": "lab", "floating_ip": FLOATING_IP, "admin_password_file": "/root/admin"}
    return [PROGRAM, "init", "--yes", "--json", *place(host, **{**fixed, **changes})]


def join(host: LabHost, /, token: str, **changes: str) -> list[str]:
    return [PROGRAM, "join", "--token", token, "--wait", "120", "--json", *place(host, **changes)]


def refused(host: LabHost, args: list[str]) -> str:
    """Run a command that must refuse; return what it said."""
    before = fingerprint(host)
    done = host.run(args, check=False, deadline_s=120)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert fingerprint(host) == before
    return done.stderr


def fingerprint(host: LabHost) -> dict[str, str]:
    """Return a checksum, owner and mode of every file that set-up writes, and the main processes of its units."""
    script = f"find {' '.join(PLACES)} -type f -printf '%p %u:%g %m ' -exec sha256sum '{{}}' ';' 2>/dev/null | sort"
    files = {line.split()[0]: line for line in host.run(["sh", "-c", script]).stdout.splitlines()}
    units = host.run(["systemctl", "show", "-p", "Id", "-p", "MainPID", "futago-*"], check=False).stdout
    kept = {path: line for path, line in files.items() if not re.fullmatch(CHANGING, PurePath(path).name)}
    return {**kept, "units": units}


def changes(before: tuple[dict[str, str], ...], after: tuple[dict[str, str], ...]) -> list[tuple[object, object]]:
    """Return what was and what is, of everything that is not as it was."""
    pairs = [(old.get(k), new.get(k)) for old, new in zip(before, after, strict=True) for k in {**old, **new}]
    return [pair for pair in pairs if pair[0] != pair[1]]


def token_of(member: LabHost, kind: str) -> str:
    printed: dict[str, str] = json.loads(member.run([PROGRAM, "token", kind, "--json"]).stdout)
    return printed[f"{kind}_token"]


def test_a_first_member_is_refused_for_what_its_machine_is_not(bare: Lab) -> None:
    first, second = bare.members
    cases: list[tuple[dict[str, str], list[str]]] = [
        (
            {"service": second.address, "fence": "ipmi://nobody@10.91.3.101"},
            [
                f"{second.address} is not an address of this machine",
                "It has: 10.91.1.11 (eth0)",
                "it has no user nobody",
            ],
        ),
        (
            {"interface": "eth1", "floating_ip": f"{second.address}/24", "fence_password_file": "/root/wrong"},
            ["--interface eth1 does not carry 10.91.1.11; eth0 does", "it refuses the password of admin"],
        ),
        ({"floating_ip": f"{second.address}/24"}, ["in use by another machine"]),
        (
            {"floating_ip": "10.91.1.100/16", "fence": "ipmi://admin@10.91.3.250"},
            ["is not in the service network 10.91.1.0/24", "it does not answer"],
        ),
    ]
    for changes, expected in cases:
        said = refused(first, init(first, **changes))
        for text in [*expected, "othing has been changed"]:
            assert text in said


def test_ports_and_files_of_others_stop_a_first_member(bare: Lab) -> None:
    first, _ = bare.members
    first.run(["systemd-run", "--unit=squatter", "python3", "-m", "http.server", "5432"])
    first.run(["sh", "-c", "until ss -ltn | grep -q :5432; do sleep 0.05; done"], deadline_s=20)
    first.write("/var/lib/futago/journal/own/theirs", "x")
    try:
        said = refused(first, init(first))
    finally:
        first.run(["systemctl", "stop", "squatter"])
        first.run(["rm", "-rf", "/var/lib/futago/journal"])
    assert "TCP 5432 (PostgreSQL): in use" in said
    assert "/var/lib/futago/journal/own" in said


def test_an_init_that_is_killed_at_any_instant_is_completed_by_the_same_line(bare: Lab) -> None:
    first, _ = bare.members
    ended = [kill_when_there(first, path, init(first)) for path in WRITTEN_BY_INIT]
    assert ended.count("killed") >= 3, ended
    printed = json.loads(first.run(init(first), deadline_s=180).stdout)
    assert printed["join"].startswith("futago join --token futago1-")
    assert leftovers(first) == []


def kill_when_there(host: LabHost, path: str, args: list[str]) -> str:
    """Run a command and kill it, with all it started, as soon as a file exists; say what came of that."""
    script = f"""
        test ! -e {path} || exit 3
        setsid {shlex.join(args)} >/dev/null 2>&1 & leader=$!
        while kill -0 $leader 2>/dev/null; do
            test ! -e {path} || {{ pkill -KILL -s $leader; wait $leader; exit 9; }}
        done
        exit 0
    """
    code = host.run(["sh", "-c", script], check=False, deadline_s=180).returncode
    return {9: "killed", 3: "was there", 0: "ended"}[code]


def leftovers(host: LabHost) -> list[str]:
    script = "find /etc/futago /var/lib/futago -name '.*.new*' -o -name data.unfinished"
    return host.run(["sh", "-c", script]).stdout.split()


def test_init_repeated_changes_nothing_and_other_values_are_refused(bare: Lab) -> None:
    first, _ = bare.members
    before = fingerprint(first)
    first.run(init(first), deadline_s=120)
    assert fingerprint(first) == before
    said = refused(first, init(first, floating_ip="10.91.1.101/24", profile="fast"))
    assert "floating_ip is 10.91.1.100/24, not 10.91.1.101/24" in said
    assert "profile is default, not fast" in said


def test_a_second_member_is_refused_for_what_is_wrong_with_it(bare: Lab) -> None:
    first, second = bare.members
    token = token_of(first, "join")
    theirs = f"ipmi://{BMC_USER}@{bmc_address(first.name)}"
    said = refused(second, join(second, token, member=first.name, fence=theirs, heartbeat="10.91.2.77"))
    for text in ("is the name of the first member", "which is the device of m1", "is not an address of this machine"):
        assert text in said
    said = refused(second, join(second, token_of(first, "enroll")))
    assert "allows to enroll, not to join" in said
    said = refused(first, join(first, token, member=second.name))
    assert "This machine is m1 of pair lab already" in said


def test_a_second_member_that_does_not_reach_the_first_on_both_networks_is_refused(bare: Lab) -> None:
    first, second = bare.members
    token = token_of(first, "join")
    second.run(["ip", "link", "set", "eth1", "down"])
    try:
        said = refused(second, join(second, token))
    finally:
        second.run(["ip", "link", "set", "eth1", "up"])
    assert "cannot be reached on all of its networks: 10.91.2.11 port 7711" in said


def test_a_join_that_is_killed_at_any_instant_is_completed_by_the_same_line(bare: Lab) -> None:
    first, second = bare.members
    line = join(second, token_of(first, "join"))
    ended = [kill_when_there(second, path, line) for path in WRITTEN_BY_JOIN]
    assert ended.count("killed") >= 2, ended
    done = json.loads(second.run(line, deadline_s=180).stdout)
    assert done["state"] == "paired"
    assert leftovers(second) == []
    ours, theirs = (m.read("/etc/futago/futago.toml").partition("\n") for m in (first, second))
    assert (ours[0], theirs[0]) == ('me = "m1"', 'me = "m2"')
    assert ours[2] == theirs[2]


def test_join_repeated_changes_nothing_on_either_member(bare: Lab) -> None:
    first, second = bare.members
    before = fingerprint(first), fingerprint(second)
    second.run(join(second, token_of(first, "join")), deadline_s=120)
    assert changes(before, (fingerprint(first), fingerprint(second))) == []


def test_secrets_are_readable_by_those_who_need_them_only(bare: Lab) -> None:
    for member in bare.members:
        listed = member.run(["sh", "-c", "stat -c '%n %U:%G %a' /etc/futago/pki/* /etc/futago/secrets/*"]).stdout
        modes = {PurePath(n).name: (o, m) for n, o, m in (line.split() for line in listed.splitlines())}
        for name in ("ca.key", "token.key", "admin.token", "fence-m1.password", "fence-m2.password"):
            assert modes[name] == ("root:root", "600"), name
        for name in ("own.key", "heartbeat.key"):
            assert modes[name] == ("root:futago", "640"), name


def test_a_host_enrolls_repeatedly_and_only_with_a_good_token(bare: Lab) -> None:
    first, _ = bare.members
    host = bare.managed[0]
    good = token_of(first, "enroll")
    head, _, seal = good.partition(".")
    for token, expected in (
        (f"{head}.{seal[::-1][1:]}A", "token."),
        (token_of(first, "join"), "allows to join, not to enroll"),
        ("futago1-x", "not a complete token"),
    ):
        assert expected in refused(host, [PROGRAM, "agent", "enroll", "--token", token])
    for _ in range(2):
        done = json.loads(host.run([PROGRAM, "agent", "enroll", "--token", good, "--json"], deadline_s=120).stdout)
        assert done["name"] == host.name
    assert "is the agent `host1` already" in refused(host, [PROGRAM, "agent", "enroll", "--token", good, "--name", "x"])


def test_a_jury_is_seated_by_name_and_only_of_agents_that_can_vote(bare: Lab) -> None:
    first, second = bare.members
    names = [h.name for h in bare.managed]
    assert "The pair knows no agent `host2`" in refused(first, [PROGRAM, "jury", "set", *names])
    token = token_of(second, "enroll")  # either member may print it
    for host in bare.managed:
        host.run([PROGRAM, "agent", "enroll", "--token", token, "--json"], deadline_s=120)
    silent = bare.managed[2]
    wait_for_agents(first, names)
    silent.run(["systemctl", "stop", "futago-agent"])
    assert f"{silent.name} (10.91.1.23)" in refused(first, [PROGRAM, "jury", "set", *names])
    silent.run(["systemctl", "start", "futago-agent"])
    for member in (first, second):  # either may seat it, and again
        assert "The jury is seated" in member.run([PROGRAM, "jury", "set", *names], deadline_s=60).stdout
    wait_for_pair(bare, key="protected", value=True, deadline_s=60)


def wait_for_agents(member: LabHost, names: list[str]) -> None:
    """Wait until each of them has come once and stands in the pair's records."""
    ask = "SELECT host_name FROM host WHERE has_agent AND address IS NOT NULL"
    end = time.monotonic() + 15
    known: set[str] = set()
    while not known.issuperset(names):
        assert time.monotonic() < end, f"of {names} only {known} came"
        known = set(member.run(["psql", *DATABASE, "-Atc", ask]).stdout.split())
        time.sleep(0.1)


def test_a_member_with_empty_disks_takes_its_place_again_under_its_name(bare: Lab) -> None:
    first, second = bare.members
    second.run(["sh", "-c", WIPE], deadline_s=60)
    line = join(second, token_of(first, "join"))
    assert json.loads(second.run(line, deadline_s=180).stdout)["state"] == "paired"
    wait_for_pair(bare, key="protected", value=True, deadline_s=60)
    assert second.read("/etc/futago/pki/ca.crt") == first.read("/etc/futago/pki/ca.crt")


WIPE = """set -e
systemctl stop futago-guard futago-controller futago-receiver futago-manager futago-web
systemctl stop futago-postgres
systemctl disable -q futago-guard futago-controller futago-receiver
rm -rf /etc/futago /etc/systemd/system/futago-*.service /var/lib/futago/cluster /var/lib/futago/journal
rm -rf /var/lib/futago/pg/data* /run/futago
systemctl daemon-reload
"""
