"""Switches under a flood of messages: `python tests/bench/intake_switch.py`, one JSON object a figure.

A sender outside the pair gives every message to both members, 10,000 a second, by UDP; every `--match-every`-th is to become
an event. Meanwhile the service is switched: power cuts of the primary and of the standby, planned switchovers, PostgreSQL killed,
the whole machine hung, and the manager, the controller and the receiver of the primary killed. Afterwards the events are held
against what the sender counted:

    intake.switch.lost    sent, and no event
    intake.switch.twice   more than one event

Before each switch the pair must be whole again: paired, nothing missing but perhaps the word that the journals are
complete, and each receiver's journal, as far as it was synced when that was asked first, on the other member's disk. That word
itself asks for what was synced 0.4 s ago, which a disk whose syncs take longer never has under a flood.

A round that does not come to its end in time ends the switching; what was sent is still held against the events, and the
figures say how many switches there were and what went wrong. Exit code 1 then, and if either figure is not 0.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "lab"))
sys.path.insert(0, str(Path(__file__).parent))

from api import Api
from failover import lift_limit
from intake_receive import say as figure
from jobs_switch import KINDS, kill
from senders import MEMBERS, end

from futago.lab.lab import PROGRAM, Lab
from futago.lab.pair import apply, explain, form_pair, wait_protected
from futago.lab.progress import say
from futago.runtime.faults import FutagoFault, OperatorFault, Unknown
from futago.setup import paths

HERE = Path(__file__).resolve().parent
ASKED_MAX = 10
MEMBERS_NAMED = ("m1", "m2")
WHOLE_S = 240.0  # until the pair is whole again after a switch
EVENTS_S = 300.0  # until all that was sent is an event
ONLY_WORD = "The journals of messages are not complete on both members yet."
SENDER = "/opt/lab/flood.py"


def standby_cut(lab: Lab) -> int:
    """Cut the standby's power. Nobody fenced it, so nobody powers it on unasked."""
    at = int(lab.fault("power-cut", "standby")["at"])
    time.sleep(3)
    done = lab.host(lab.resolve("primary")).run([PROGRAM, "recover"], check=False, deadline_s=WHOLE_S)
    if done.returncode:  # whether it came back is found out before the next switch
        say(f"  recover: {done.stderr.strip()[-300:]}")
    return at


KINDS_HERE = {**KINDS, "receiver-kill": kill("receiver"), "standby-cut": standby_cut}
MONITOR = r"""
kind: Monitor
name: flood
check: syslog
scope: "*"
patterns: [{match: 'matching SEQ=(?P<seq>\d+)', priority: info, message: "{seq}"}]
"""
# Runs on the sending host: the bench's own messages, to both members. What it counts is what it handed to both sockets.
FLOOD = """
import signal, socket, sys, time
import intake_senders
targets, rate, every = sys.argv[1].split(","), int(sys.argv[2]), int(sys.argv[3])
made = intake_senders.Messages(match_every=every)
sends = [intake_senders.udp((target, 514)) for target in targets]
is_over = False
def over(*_):
    global is_over
    is_over = True
signal.signal(signal.SIGTERM, over)
began, sent = time.monotonic(), 0
while not is_over:
    due = int((time.monotonic() - began) * rate) - sent
    if due < intake_senders.BATCH:
        time.sleep(0.001)
        continue
    batch = made.take(intake_senders.BATCH)
    for send in sends:
        try:
            send(batch)
        except OSError:  # that member's port is closed just now: the other has it
            pass
    sent += len(batch)
print(sent, time.monotonic() - began, flush=True)
"""


def flood(lab: Lab, rate: int, every: int) -> subprocess.Popen[bytes]:
    """Begin to send."""
    host = lab.host("dev1")
    host.write("/opt/lab/intake_senders.py", (HERE / "intake_senders.py").read_text(encoding="utf-8"))
    host.write(SENDER, FLOOD)
    return host.start(["python3", SENDER, ",".join(MEMBERS), str(rate), str(every)], stdout=subprocess.PIPE)


@dataclass(frozen=True)
class Receivers:
    """What both receivers say: by member, the incarnation of its journal, what is synced there, what of it the other has."""

    said: dict[str, tuple[str, int, int]]

    def has_reached(self, before: Receivers) -> bool:
        """Return whether what was synced `before` is on the other's disk; a receiver that began anew since then has said
        nothing yet.
        """
        return set(self.said) == set(MEMBERS_NAMED) and all(
            name in before.said and incarnation == before.said[name][0] and peer_has >= before.said[name][1]
            for name, (incarnation, _, peer_has) in self.said.items()
        )

    def __str__(self) -> str:
        return ", ".join(f"{name}: {synced} synced, {has} at the other" for name, (_, synced, has) in self.said.items())


def receiver_status(lab: Lab, name: str) -> dict[str, Any] | None:
    """Return what a member's receiver says of itself; None if it does not."""
    status = lab.host(name).status()
    if status["power"] != "on" or status["frozen"]:
        return None
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(10)
        try:
            line.connect(f"/proc/{status['init_pid']}/root{paths.RECEIVER_SOCKET}")
            line.sendall(b'{"op":"status"}\n')
            said = json.loads(line.makefile("rb").readline())
        except (OSError, ValueError):
            return None
    return said if isinstance(said, dict) else None


def receivers(lab: Lab) -> Receivers:
    found = {name: receiver_status(lab, name) for name in MEMBERS_NAMED}
    return Receivers(
        {
            name: (said["incarnation"], said["own"]["synced"], said["sync"]["peer_has"])
            for name, said in found.items()
            if said is not None
        }
    )


def wait_whole(lab: Lab, *, deadline_s: float = WHOLE_S) -> None:
    """Wait until a switch may follow: see the head of this file. Raises Unknown: not in time."""
    end = time.monotonic() + deadline_s
    before: Receivers | None = None
    while True:
        status = lab.pair_status()
        is_paired = status is not None and status["state"] == "paired"
        if status is not None and status["protected"]:
            return
        if status is not None and is_paired and set(status["not_protected"]) <= {ONLY_WORD}:
            now = receivers(lab)
            if before is not None and now.has_reached(before):
                return
            if before is None or {n: s[0] for n, s in before.said.items()} != {n: s[0] for n, s in now.said.items()}:
                before = now
        if time.monotonic() > end:
            raise Unknown(f"the pair is not whole after {deadline_s:.0f} s: {explain(status)}; {receivers(lab)}")
        time.sleep(0.25)


def switch(lab: Lab, kind: str) -> None:
    """Make one switch happen. On a machine without a core to spare it may take a while to hear who is primary."""
    end = time.monotonic() + WHOLE_S
    for _ in range(ASKED_MAX):
        try:
            KINDS_HERE[kind](lab)
            return
        except OperatorFault as e:  # it was not even begun
            if time.monotonic() > end:
                break
            say(f"  {kind}: {e}; again")
            time.sleep(2)
            wait_whole(lab, deadline_s=end - time.monotonic())
    raise Unknown(f"{kind} could not be begun")


@dataclass
class Switched:
    """How many switches were made, and what ended them before all were."""

    count: int = 0
    fault: str = ""
    took_s: float = 0.0


def switch_all(lab: Lab, count: int, kinds: list[str]) -> Switched:
    """Switch `count` times; what goes wrong with the pair ends it."""
    made, began = Switched(), time.monotonic()
    try:
        for i in range(count):
            kind = kinds[i % len(kinds)]
            wait_whole(lab)
            time.sleep(1)
            switch(lab, kind)
            made.count += 1
            say(f"  switch {i + 1}/{count}: {kind} ({time.monotonic() - began:.1f} s)")
            time.sleep(3)
        wait_whole(lab)
        say(f"  whole ({time.monotonic() - began:.1f} s)")
    except (FutagoFault, OSError) as e:
        made.fault = f"{type(e).__name__}: {e}"
        say(f"  switching ends: {made.fault}")
    made.took_s = time.monotonic() - began
    return made


def measured(lab: Lab, api: Api, *, rate: int, every: int, switches: int, kinds: list[str]) -> bool:
    """Switch under load; say the figures and return whether they are as they must be."""
    apply(lab, MONITOR)
    until = time.monotonic() + WHOLE_S
    while not api.ask("/rules")["at_work"]:
        if time.monotonic() > until:
            raise Unknown("the rules are not at work in time")
        time.sleep(0.2)
    sender = flood(lab, rate, every)
    made = switch_all(lab, switches, kinds)
    end(sender)
    assert sender.stdout is not None
    sent, took = sender.stdout.read().decode("ascii").split()
    wanted = set(range(0, int(sent), every))
    say(f"  {sent} sent; waiting for {len(wanted)} events")
    found = api.wait_for_events(monitor="flood", count=len(wanted), deadline_s=EVENTS_S)
    say(f"  {found} events")
    time.sleep(5)  # a second copy would come now
    seen = Counter(int(event["message"]) for event in api.event_messages(monitor="flood"))
    lost, twice = wanted - seen.keys(), [n for n, count in seen.items() if count > 1]
    common = {
        "switches": made.count,
        "wanted_switches": switches,
        "fault": made.fault or None,
        "switching_s": round(made.took_s, 1),
        "kinds": kinds,
        "sent": int(sent),
        "per_s": round(int(sent) / float(took)),
        "match_every": every,
    }
    figure("intake.switch.lost", len(lost), **common, checked=len(wanted), examples=sorted(lost)[:5])
    figure("intake.switch.twice", len(twice), **common, checked=len(wanted), examples=sorted(twice)[:5])
    if lost or twice or made.fault:
        tell_what_is_known(lab, api, lost, every=every, per_s=int(sent) / float(took))
    return not lost and not twice and not made.fault


def tell_what_is_known(lab: Lab, api: Api, lost: set[int], *, every: int, per_s: float) -> None:
    """Say which stretches are missing and when they were sent, and what the receivers counted and told of themselves."""
    stretches: list[list[int]] = []
    for n in sorted(lost):
        if stretches and n == stretches[-1][1] + every:
            stretches[-1][1] = n
        else:
            stretches.append([n, n])
    for first, last in stretches[:20]:
        say(f"  lost: {first} to {last}, sent {first / per_s:.2f} to {last / per_s:.2f} s after the beginning")
    for message in (event["message"] for event in api.event_messages(monitor="receiver")):
        say(f"  receiver: {message}")
    for name in MEMBERS_NAMED:
        say(f"  {name}: {json.dumps(receiver_status(lab, name))}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--switches", type=int, default=30)
    parser.add_argument("--match-every", type=int, default=20)
    parser.add_argument("--kinds", default=",".join(KINDS_HERE))
    args = parser.parse_args()
    lab, is_good = Lab(f"i{os.getpid()}"), False
    try:
        lab.up(owner_pid=os.getpid(), say=say)
        form_pair(lab, say=say)
        wait_protected(lab, deadline_s=240)
        lift_limit(lab)
        kinds = args.kinds.split(",")
        is_good = measured(lab, Api(lab), rate=args.rate, every=args.match_every, switches=args.switches, kinds=kinds)
    finally:
        lab.down(say=say, keep_logs=not is_good)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
