"""A pair without a floating IP, and the same pair after it was given two: IPv4 and IPv6."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator

import pytest

from futago.lab.inside import LabHost
from futago.lab.lab import PROGRAM, Lab
from futago.lab.pair import form_pair, wait_protected
from futago.lab.progress import say
from futago.lab.topology import FLOATING_IP

SETTINGS = "/etc/futago/futago.toml"
V4 = FLOATING_IP.partition("/")[0]
V6 = "fd00:91:1::100"
NOTICED_S_MAX = 1.0


@pytest.fixture(scope="module")
def nomads() -> Iterator[Lab]:
    made = Lab(f"n{os.getpid()}")
    try:
        made.up(owner_pid=os.getpid(), say=say)
        form_pair(made, floating_ip="", is_agents_first=True, say=say)
        yield made
    finally:
        made.down(say=say, keep_logs=True)


def until(condition: Callable[[], object], *, what: str, limit_s: float = 30) -> float:
    """Wait; return how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit_s, what
        time.sleep(0.02)
    return time.monotonic() - began


def post(member: LabHost, text: str) -> None:
    member.run([PROGRAM, "event", "post", text], deadline_s=30)


def texts(member: LabHost) -> set[str]:
    done = member.run([PROGRAM, "event", "list", "--source", "api", "--json"], deadline_s=30)
    rows = json.loads(done.stdout)
    return {str(e["message"]) for e in (rows["events"] if isinstance(rows, dict) else rows)}


def test_pair_without_a_floating_ip_serves_whoever_knows_both_members(nomads: Lab) -> None:
    first, second = nomads.members
    assert nomads.resolve("primary") == first.name
    for host in nomads.managed:
        until(lambda host=host: "members.json" in host.run(["ls", "/var/lib/futago-agent"]).stdout, what=host.name)  # type: ignore[misc]
        assert json.loads(host.read("/var/lib/futago-agent/members.json")) == [second.address]
    post(first, "by the primary")
    post(second, "by the standby")  # it is refused there, and asks the other member
    first.run([PROGRAM, "switchover"], deadline_s=60)
    wait_protected(nomads)
    post(first, "by the former primary")
    nomads.fault("power-cut", second.name)
    until(lambda: (nomads.pair_status() or {}).get("primary") == first.name, what="the other takes over", limit_s=30)
    until(lambda: first.run([PROGRAM, "event", "list"], check=False).returncode == 0, what="it serves")
    assert texts(first) >= {"by the primary", "by the standby", "by the former primary"}
    nomads.heal("power-cut", second.name)
    first.run([PROGRAM, "recover"], deadline_s=180)
    wait_protected(nomads, deadline_s=180)


def has(member: LabHost, address: str) -> bool:
    return f" {address}/" in member.run(["ip", "-o", "addr", "show", "dev", "eth0"]).stdout


def test_addresses_are_added_by_hand_put_back_and_handed_over(nomads: Lab) -> None:
    client = nomads.host("c1")
    for number, host in enumerate((*nomads.members, client), start=1):
        host.run(["ip", "addr", "add", f"fd00:91:1::{number}/64", "dev", "eth0", "nodad"])
    for member in nomads.members:
        text = member.read(SETTINGS).replace('floating_ip = ""', f'floating_ip = "{FLOATING_IP}"')
        member.write(SETTINGS, text.replace("floating_more = []", f'floating_more = ["{V6}/64"]'), mode=0o644)
    primary = nomads.host(nomads.resolve("primary"))
    (standby,) = [m for m in nomads.members if m.name != primary.name]
    for member in (standby, primary):
        member.run(["systemctl", "restart", "futago-controller"], deadline_s=60)
    until(lambda: has(primary, V4) and has(primary, V6), what="both addresses are there")
    wait_protected(nomads)
    for command in (["ping", "-c", "1", "-W", "2", V4], ["ping", "-6", "-c", "1", "-W", "2", V6]):
        client.run(command)

    # F08: somebody deletes one
    for address, prefix in ((V4, 32), (V6, 128)):
        primary.run(["ip", "addr", "del", f"{address}/{prefix}", "dev", "eth0"])
        took_s = until(lambda address=address: has(primary, address), what=f"{address} is put back")  # type: ignore[misc]
        say(f"{address}: back after {took_s:.2f} s")
        assert took_s < NOTICED_S_MAX

    # something insists: the other member serves better
    script = f"while sleep 0.05; do ip addr del {V4}/32 dev eth0 2>/dev/null; done"
    thief = primary.start(["timeout", "20", "sh", "-c", script])
    took_s = until(lambda: has(standby, V4) and has(standby, V6), what="handed over", limit_s=20)
    say(f"handed over after {took_s:.2f} s")
    said = primary.run([PROGRAM, "status", "--json"], check=False).stdout
    assert "times in a row" in said, said
    client.run(["ping", "-c", "1", "-W", "2", V4])
    thief.wait(30)
