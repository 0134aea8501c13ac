"""One failure pattern after the other: what breaks, how it is repaired, and what is measured. The driver of `make faults`.

Every step starts from a protected pair and ends with one. Instants come from outside the product: the lab says when it
broke something, the client when its writes were acknowledged; only `detected_s` is read from the members' own logs, with
the stamps of the machine on which they appeared.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from senders import Write
from shift import Shift, World

from futago.lab.lab import PROGRAM, Lab
from futago.lab.pair import explain, wait_protected
from futago.lab.patterns import PATTERNS
from futago.lab.progress import say
from futago.runtime.clock import now_at
from futago.runtime.faults import FutagoFault

INTERRUPTION_S = 1.0  # a gap shorter than this is the unevenness of the load and of a busy machine
RESUME_S_MAX = 40.0
RECOVER_S_MAX = 150
ATTEMPTS_MAX = 3
TOLD_S_MAX = 20.0
STEADY = {"P7.serve", "B7.follow"}
POWER = ("power-cut", "shutdown", "reboot")  # `futago recover` presses the button itself


@dataclass(frozen=True, slots=True)
class Scene:
    """One row: a pattern, and what is particular about its repair.

    Args:
        name: of the pattern, or of a form of it that differs by its repair only, after a plus sign.
        text: what happens, for the table.
        hold_s: how long the broken state is watched before the repair.
        prepare: what must be so beforehand.
        order: for a power cut of both: who gets power again, in this order; "primary" and "standby" as they were.
    """

    name: str
    text: str
    hold_s: float = 4.0
    prepare: Callable[[Lab], None] | None = None
    order: tuple[str, ...] = ()

    @property
    def fault(self) -> str:
        return self.name[:3]

    @property
    def variant(self) -> str:
        return self.name[4:]


def set_clocks_apart(lab: Lab) -> None:
    """Let each member have a clock of its own: its programs must have been started with it, so each is rebooted once."""
    for _ in lab.members:
        ready = {f["target"] for f in lab.request(op="status")["faults"] if f["fault"] == "clock-shim"}
        standby = lab.resolve("standby")
        if standby not in ready:
            lab.fault("clock-shim", standby)
            lab.fault("power-reset", standby)
            recover(lab)
            ready.add(standby)
        if len(ready) < len(lab.members):
            lab.host(lab.resolve("primary")).run([PROGRAM, "switchover"], deadline_s=60)
            recover(lab)


SCENES: tuple[Scene, ...] = (
    Scene("F01", "primary: power off"),
    Scene("F02", "primary: orderly power-off"),
    Scene("F03", "primary: reboot"),
    Scene("F04", "primary: every process frozen"),
    Scene("F04-kernel", "primary: kernel hangs"),
    Scene("F04-unfenced", "primary frozen, its BMC dead; thawed later"),
    Scene("F04-kernel-unfenced", "primary's kernel hangs, its BMC dead; it runs on later"),
    Scene("F05", "primary: all networks cut"),
    Scene("F05-unfenced", "primary: all networks cut, its BMC dead"),
    Scene("F05-out", "primary: whatever it sends is lost"),
    Scene("F05-in", "primary: whatever is sent to it is lost"),
    Scene("F05-svc-out", "service network: primary to standby lost"),
    Scene("F05-svc-in", "service network: standby to primary lost"),
    Scene("F05-hb-out", "heartbeat network: primary to standby lost"),
    Scene("F05-hb-in", "heartbeat network: standby to primary lost"),
    Scene("F05-nic-out", "primary: what its service interface sends is lost"),
    Scene("F05-nic-in", "primary: what is sent to its service interface is lost"),
    Scene("F05-bmc-out", "primary: what it sends to the power devices is lost"),
    Scene("F05-bmc-in", "primary: what the power devices send to it is lost"),
    Scene("F06", "primary: service interface down"),
    Scene("F07", "primary: service interface loses everything, carrier up"),
    Scene("F07+long", "primary: the same, for longer than senders wait between two attempts", hold_s=15),
    Scene("F08", "primary: floating IP deleted"),
    Scene("F09", "primary: manager stopped (SIGSTOP)"),
    Scene("F09-web", "primary: web process stopped (SIGSTOP)"),
    Scene("F10", "primary: controller killed once"),
    Scene("F10-stop", "primary: controller stopped (SIGSTOP), later continued"),
    Scene("F10-again", "primary: controller killed again and again"),
    Scene("F11", "primary: controller killed, its restart prevented"),
    Scene("F12", "standby: power off"),
    Scene("F13", "standby: orderly power-off"),
    Scene("F14", "standby: reboot"),
    Scene("F15", "standby: every process frozen; thawed later"),
    Scene("F15-kernel", "standby: kernel hangs; it runs on later"),
    Scene("F16", "standby: all networks cut"),
    Scene("F16-out", "standby: whatever it sends is lost"),
    Scene("F16-in", "standby: whatever is sent to it is lost"),
    Scene("F17", "standby: service interface loses everything, carrier up"),
    Scene("F17+long", "standby: the same, for longer than senders wait between two attempts", hold_s=15),
    Scene("F18", "standby: controller killed once"),
    Scene("F18-stop", "standby: controller stopped (SIGSTOP), later continued"),
    Scene("F18-again", "standby: controller killed again and again"),
    Scene("F19", "PostgreSQL does not answer (SIGSTOP of all)"),
    Scene("F19-main", "PostgreSQL: the postmaster alone stopped (SIGSTOP)"),
    Scene("F19-checkpointer", "primary: checkpointer stopped (SIGSTOP), then the standby loses its power"),
    Scene("F19-killed", "PostgreSQL: every process killed"),
    Scene("F19-postmaster", "PostgreSQL: the postmaster alone killed"),
    Scene("F20", "primary: database's file system hangs"),
    Scene("F20-errors", "primary: database's file system gives errors"),
    Scene("F21", "primary: database's block device gives errors"),
    Scene("F21-hang", "primary: database's block device hangs"),
    Scene("F22", "replication link cut, both hosts alive"),
    Scene("F22-full", "standby: database's disk full"),
    Scene("F22-hang", "standby: database's file system hangs"),
    Scene("F23", "primary: database's disk full"),
    Scene("F23-root", "primary: root file system full", hold_s=12),
    Scene("F23-root-standby", "standby: root file system full", hold_s=12),
    Scene("F24", "primary's zone lost: host, networks, BMC"),
    Scene("F24-standby", "standby's zone lost: host, networks, BMC"),
    Scene("F25+primary-first", "both lose power; the primary returns first", order=("primary", "standby")),
    Scene("F25+standby-first", "both lose power; the standby returns first", order=("standby", "primary")),
    Scene("F25+together", "both lose power and return together", order=("primary,standby",)),
    Scene("F25+primary-only", "both lose power; the primary returns alone", order=("primary",)),
    Scene("F25+standby-only", "both lose power; the standby returns alone", order=("standby",)),
    Scene("F26", "primary's clock jumps 1 h ahead, later back", prepare=set_clocks_apart),
    Scene("F26-back", "primary's clock jumps 1 h back, later ahead", prepare=set_clocks_apart),
    Scene("F26-standby", "standby's clock jumps 1 h ahead, later back", prepare=set_clocks_apart),
    Scene("F26-standby-back", "standby's clock jumps 1 h back, later ahead", prepare=set_clocks_apart),
    Scene("F27", "primary: heartbeat network lost, service network alive"),
    Scene("F27-svc", "primary: service network lost, heartbeat network alive"),
    Scene("F27-standby-hb", "standby: heartbeat network lost, service network alive"),
)


@dataclass
class Row:
    """What one step showed; instants in seconds.

    Args:
        detected_s: from the fault to the first decision of a member that answers it; None if none was needed.
        resumed_s: from the fault (both off: from the return of power) to the end of the longest interruption of a client
            that writes through the floating IP; 0 if none was longer than a second.
        outage_s: the longest time without an acknowledgement around the fault.
        paired_s: from the repair to a protected pair; 0 if the pair stayed protected.
        repair_gap_s: the longest time without an acknowledgement during repair and recovery.
        resent: messages that their sender itself sent again, by the record of the wire.
        command: what an operator had to type.
    """

    fault: str
    variant: str
    text: str
    detected_s: float | None = None
    resumed_s: float | None = None
    outage_s: float | None = None
    paired_s: float | None = None
    repair_gap_s: float | None = None
    lost: int = 0
    twice: int = 0
    sent: int = 0
    resent: int = 0
    command: str = ""
    rungs: list[str] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)
    attempts: int = 0
    why: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.twice or self.why) and None not in (self.resumed_s, self.paired_s)

    def line(self) -> str:
        fields = {k: getattr(self, k) for k in self.__dataclass_fields__}
        return json.dumps({k: round(v, 2) if isinstance(v, float) else v for k, v in fields.items()})


def recover(lab: Lab) -> int:
    """Bring the pair back by the one command, on a member that is on, the serving one if any; return how often it ran."""
    for attempt in range(1, ATTEMPTS_MAX + 1):
        status = lab.pair_status() or {}
        on = status.get("primary") or next(m.name for m in lab.members if m.is_on())
        if not lab.host(on).is_on():
            on = next(m.name for m in lab.members if m.is_on())
        done = lab.host(on).run([PROGRAM, "recover", "--deadline", str(RECOVER_S_MAX)], check=False, deadline_s=200)
        say(f"    futago recover on {on}: {done.returncode} {(done.stderr + done.stdout).strip()[-600:]}")
        if done.returncode == 0:
            wait_protected(lab, deadline_s=30)
            return attempt
        time.sleep(5)
    raise AssertionError(f"`futago recover` failed {ATTEMPTS_MAX} times: {explain(lab.pair_status())}")


_STAMP = re.compile(r"^\[ *(\d+\.\d+)\] \S+\[\d+\]: (\{.*)$")


class Logs:
    """What the members' controllers and guards say from now on; read from their consoles, which outlive them."""

    def __init__(self, lab: Lab) -> None:
        self._files = {m.name: Path(lab.places.host(m.name)) / "console.log" for m in lab.members}
        self._from = {m: f.stat().st_size for m, f in self._files.items()}

    def lines(self) -> list[tuple[float, str, dict[str, Any]]]:
        """Return (seconds since the machine's boot, member, what was said), in order of time."""
        found = []
        for member, file in self._files.items():
            with file.open("rb") as f:
                f.seek(self._from[member])
                for line in f.read().decode(errors="replace").splitlines():
                    if (m := _STAMP.match(line)) is None:
                        continue
                    try:
                        said = json.loads(m[2])
                    except ValueError:
                        continue
                    if said.get("program") in ("controller", "guard"):
                        found.append((float(m[1]), member, said))
        return sorted(found, key=lambda x: x[0])

    def detected_s(self, at: int) -> float | None:
        """Return when the first answer to what happened at the instant `at` was decided."""
        for stamp, _, said in self.lines():
            after = stamp - at / 1e9
            if after < 0:
                continue
            if said["level"] != "info" or (said["event"] == "decision" and said["rule"] not in STEADY):
                return after
            if said["event"] in ("controller.ready", "address.held", "guard.killed"):
                return after
        return None

    def rules(self) -> list[str]:
        """Return the rules that decided, each once, in order."""
        told = [said["rule"] for _, _, said in self.lines() if said["event"] == "decision"]
        return list(dict.fromkeys(r for r in told if r not in STEADY))

    def rungs(self) -> list[str]:
        """Return the rungs of the ladder that were climbed."""
        told = [str(s["rung"]) for _, _, s in self.lines() if s["event"] == "recover.progress"]
        return list(dict.fromkeys(r for r in told if r not in ("done", "prepare", "")))


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without an acknowledgement."""

    began: int
    ended: int

    @property
    def seconds(self) -> float:
        return (self.ended - self.began) / 1e9


def longest_gap(writes: list[Write], begin: int, end: int) -> Gap:
    """Return the longest time without an acknowledgement that ends after `begin` and begins before `end`."""
    instants = sorted(w.acked_at for w in writes if w.status)
    gaps = [Gap(max(a, begin), b) for a, b in pairwise(instants) if b > begin and a < end]
    return max(gaps, key=lambda g: g.seconds, default=Gap(begin, begin))


class Step:
    """One scene on a protected pair.

    Args:
        world: the lab's configuration, mail server and records.
        scene: what happens.
    """

    def __init__(self, world: World, scene: Scene) -> None:
        self.world, self.lab, self.scene = world, world.lab, scene
        self.row = Row(scene.fault, scene.variant, scene.text)
        self.shift = Shift(world)
        self.roles: dict[str, str] = {}

    def run(self) -> Row:
        """Break, watch, repair, recover, reckon. What goes wrong stands in the row; only the lab's own faults raise."""
        wait_protected(self.lab, deadline_s=60)
        if self.scene.prepare is not None:
            self.scene.prepare(self.lab)
        status = wait_protected(self.lab, deadline_s=60)
        primary = str(status["primary"])
        self.roles = {"primary": primary, "standby": "m2" if primary == "m1" else "m1"}
        try:
            self.shift.start()
            self.shift.pull()
            time.sleep(1.5)
            (self._power_of_both if self.scene.order else self._one_fault)()
            self._reckon()
        except (FutagoFault, AssertionError) as e:
            self.row.why.append(f"{type(e).__name__}: {e}"[:1500])
        finally:
            self.shift.plug()
            self.shift.close()
        return self.row

    # ---- the usual form

    def _one_fault(self) -> None:
        logs = Logs(self.lab)
        steps = [
            (f, self.roles.get(t, t), [self.roles.get(w, w) for w in words])
            for f, t, words in PATTERNS[self.scene.name.split("+")[0]]
        ]
        answers = [self.lab.request(op="fault", fault=f, target=t, words=w) for f, t, w in steps]
        at = int(answers[-1]["at"])
        say(f"    {steps}: {[a['stages_ms'] for a in answers]}")
        self._watch(at)
        self.row.detected_s = logs.detected_s(at)
        repaired = now_at()
        for fault, target, _ in reversed(steps):
            if fault not in POWER:
                self.lab.heal(fault, target)
                time.sleep(3 if fault != "bmc-dead" and len(steps) > 1 else 0)  # it must do no harm meanwhile
        self._come_back_and_measure(logs, at, repaired)

    def _come_back_and_measure(self, logs: Logs, at: int, repaired: int) -> None:
        try:
            self._come_back(logs, repaired)
        finally:
            self.row.rules, self.row.rungs = logs.rules(), logs.rungs()
            self._measure(at, repaired)

    def _watch(self, at: int) -> None:
        """Watch until writes are acknowledged again, and for the scene's time at least."""
        hold = time.monotonic() + self.scene.hold_s
        limit = time.monotonic() + RESUME_S_MAX
        while True:
            time.sleep(0.5)
            acked = max((w.acked_at for w in self.shift.writer.writes() if w.status), default=0)
            is_served = (now_at() - acked) / 1e9 < 1.5
            if (is_served and time.monotonic() > hold) or time.monotonic() > limit:
                return

    def _come_back(self, logs: Logs, repaired: int) -> None:
        """Wait for a protected pair; if it does not come by itself, by the one command."""
        self.shift.plug()
        end = time.monotonic() + 2.0
        while not (is_protected := self._told().get("protected")) and time.monotonic() < end:
            time.sleep(0.2)
        if not is_protected:
            self.row.command = "futago recover"
            self.row.attempts = recover(self.lab)
        moved = any(rule.startswith(("T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "R")) for rule in logs.rules())
        self.row.paired_s = (now_at() - repaired) / 1e9 if self.row.command or moved else 0.0
        time.sleep(2)
        later = self._told()
        if not later.get("protected"):
            self.row.why.append(f"not protected two seconds later: {explain(later or None)}")

    def _told(self) -> dict[str, Any]:
        """Return the first answer of any member: on a busy machine both may be too slow to say anything."""
        end = time.monotonic() + TOLD_S_MAX
        while (status := self.lab.pair_status()) is None and time.monotonic() < end:
            time.sleep(0.2)
        return status or {}

    def _measure(self, at: int, repaired: int) -> None:
        writes = self.shift.writer.writes()
        gap = longest_gap(writes, at, repaired)
        self.row.outage_s = gap.seconds
        if not any(w.status and w.sent_at > at for w in writes):
            self.row.why.append("no write was acknowledged after the fault")
            return
        self.row.resumed_s = (gap.ended - at) / 1e9 if gap.seconds >= INTERRUPTION_S else 0.0
        self.row.repair_gap_s = longest_gap(writes, max(repaired, gap.ended), now_at()).seconds

    # ---- both lose power

    def _power_of_both(self) -> None:
        """Messages rest meanwhile: with nobody there to take them, UDP loses them before they reach any product."""
        self.shift.wait_for_mails(1, deadline_s=15)
        self.shift.plug()
        self.shift.wait_for_mails(2, deadline_s=15)
        self.shift.hush()
        time.sleep(1)
        logs = Logs(self.lab)
        self.lab.fault("power-cut", ",".join(self.roles.values()))
        time.sleep(2)
        at = 0
        for names in self.scene.order:
            targets = ",".join(self.roles[n] for n in names.split(","))
            answer = self.lab.fault("power-on", targets)
            at = at or int(answer["done_at"])
            if len(self.scene.order) > 1:
                time.sleep(6)  # long enough for the first to be up, and to have to decide alone
        self.shift.writer.wait_for_write_after(at, deadline_s=90)
        self.row.detected_s = None
        self._watch(at)
        self.shift.send()
        repaired = now_at()
        self._come_back_and_measure(logs, at, repaired)

    # ---- the end

    def _reckon(self) -> None:
        self.shift.wait_for_mails(2, deadline_s=20)
        tally = self.shift.reckon()
        self.row.sent, self.row.lost, self.row.twice = tally.sent, tally.lost, tally.twice
        self.row.resent = tally.resent
        self.row.why += tally.why
