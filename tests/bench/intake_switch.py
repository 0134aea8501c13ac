"""Switches under a flood of messages: `python tests/bench/intake_switch.py`, one JSON object a figure.

A sender outside the pair gives every message to both members, 10,000 a second, by UDP; every `--match-every`-th is to become
an event. Meanwhile the service is switched: power cuts of the primary and of the standby, planned switchovers, PostgreSQL killed,
the whole machine hung, and the manager, the controller and the receiver of the primary killed. Afterwards the events are held
against what the sender counted:

    intake.switch.lost    sent, and no event
    intake.switch.twice   more than one event

Exit code 1 if either is not 0.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "lab"))
sys.path.insert(0, str(Path(__file__).parent))

from api import Api
from failover import lift_limit
from intake_receive import say as figure
from jobs_switch import KINDS, kill
from senders import MEMBERS, end

from futago.lab.lab import PROGRAM, Lab
from futago.lab.pair import apply, form_pair, wait_protected
from futago.lab.progress import say
from futago.runtime.faults import OperatorFault

HERE = Path(__file__).resolve().parent
ASKED_MAX = 10
SENDER = "/opt/lab/flood.py"


def standby_cut(lab: Lab) -> int:
    """Cut the standby's power. Nobody fenced it, so nobody powers it on unasked."""
    at = int(lab.fault("power-cut", "standby")["at"])
    time.sleep(3)
    lab.host(lab.resolve("primary")).run([PROGRAM, "recover"], deadline_s=240)
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


def switch(lab: Lab, kind: str) -> None:
    """Make one switch happen. On a machine without a core to spare it may take a while to hear who is primary."""
    for _ in range(ASKED_MAX):
        try:
            KINDS_HERE[kind](lab)
            return
        except OperatorFault as e:  # it was not even begun
            say(f"  {kind}: {e}; again")
            time.sleep(2)
            wait_protected(lab, deadline_s=240)
    raise AssertionError(f"{kind} could not be begun")


def switch_all(lab: Lab, count: int, kinds: list[str]) -> None:
    began = time.monotonic()
    for i in range(count):
        kind = kinds[i % len(kinds)]
        wait_protected(lab, deadline_s=240)
        time.sleep(1)
        switch(lab, kind)
        say(f"  switch {i + 1}/{count}: {kind} ({time.monotonic() - began:.1f} s)")
        time.sleep(3)
    wait_protected(lab, deadline_s=240)
    say(f"  protected ({time.monotonic() - began:.1f} s)")


def measured(lab: Lab, api: Api, *, rate: int, every: int, switches: int, kinds: list[str]) -> bool:
    """Switch under load; say the figures and return whether they are as they must be."""
    apply(lab, MONITOR)
    while not api.ask("/rules")["at_work"]:
        time.sleep(0.2)
    sender = flood(lab, rate, every)
    switch_all(lab, switches, kinds)
    end(sender)
    assert sender.stdout is not None
    sent, took = sender.stdout.read().split()
    expected = len(range(0, int(sent), every))
    api.wait_for_events(monitor="flood", count=expected, deadline_s=180)
    time.sleep(5)  # a second copy would come now
    seen = Counter(int(event["message"]) for event in api.event_messages(monitor="flood"))
    wanted = set(range(0, int(sent), every))
    lost, twice = wanted - seen.keys(), [n for n, count in seen.items() if count > 1]
    common = {
        "switches": switches,
        "kinds": kinds,
        "sent": int(sent),
        "per_s": round(int(sent) / float(took)),
        "match_every": every,
    }
    figure("intake.switch.lost", len(lost), **common, checked=len(wanted), examples=sorted(lost)[:5])
    figure("intake.switch.twice", len(twice), **common, checked=len(wanted), examples=sorted(twice)[:5])
    if lost or twice:
        tell_what_is_known(lab, api, lost, every=every, per_s=int(sent) / float(took))
    return not lost and not twice


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
    ask = "import json,socket; s=socket.socket(socket.AF_UNIX); s.connect('/run/futago/receiver.sock');"
    ask += """ s.sendall(b'{"op":"status"}\\n'); print(s.makefile().readline())"""
    for node in lab.members:
        say(f"  {node.name}: {node.run(['python3', '-c', ask]).stdout.strip()}")


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
