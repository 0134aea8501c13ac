"""`futago drill`: makes a failure happen on purpose, watches, and explains what happened and what was lost.

Lives here: the drills, the grounds on which they are held (a member of a real pair, or a lab), and their course. Must
not live here: the client that writes meanwhile (drill_writer.py), the reckoning (drill_story.py). The idea: a fire
drill. People who have seen it once with their own eyes know what the real thing will look like, and whether the doors
open.

On a real pair only what harms nobody can be drilled: programs are killed, no machine loses its power.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol

import typer

from futago.cli import drill_story as stories
from futago.cli.controller_line import AsJson, ask_status, operate
from futago.runtime.faults import OperatorFault, Refused, Unknown, WorldFault

EVERY_S = 0.1
STEADY_WRITES = 10
STEADY_S_MAX = 30.0
SETTLE_S = 6.0  # had anything been switched, it would have begun by now
LOOK_S = 0.25
RECOVER_AFTER_S = 8.0
END_S_MAX = 300.0
READ_BACK_S_MAX = 60.0
Status = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Drill:
    """One failure.

    Args:
        place: the role of the member where it is injected: primary, standby, or any.
        text: what is done; expect: what should happen, for people.
        switches: does the service move to the other member? None: it may.
    """

    name: str
    place: str
    text: str
    expect: str
    switches: bool | None


DRILLS = {
    d.name: d
    for d in (
        Drill(
            "controller-kill", "any", "the controller of this member is killed",
            "it is back within a tenth of a second and takes up what runs; nobody notices", switches=False,
        ),
        Drill(
            "manager-kill", "primary", "the manager of the primary is killed",
            "the service is handed over or the manager is back at once; nothing is lost", switches=None,
        ),
        Drill(
            "database-kill", "primary", "the database of the primary is killed",
            "the standby takes over in about a second, and the old primary comes back as standby", switches=True,
        ),
        Drill(
            "standby-database-kill", "standby", "the database of the standby is killed",
            "writes pause for two seconds at most, then the primary goes on alone until the standby is back",
            switches=False,
        ),
        Drill(
            "switchover", "any", "the service is handed over as planned",
            "writes pause for about half a second", switches=True,
        ),
    )
}  # fmt: skip
_UNITS = {
    "controller-kill": "futago-controller.service",
    "manager-kill": "futago-manager.service",
    "database-kill": "futago-postgres.service",
    "standby-database-kill": "futago-postgres.service",
}


class Ground(Protocol):
    """Where a drill is held."""

    def drill(self, name: str) -> Drill:
        """Return the drill of that name. Raises OperatorFault if it cannot be held here."""

    def status(self) -> Status | None:
        """Return the pair's status; None if nobody can say."""

    def writer(self) -> tuple[list[str], dict[str, Any]]:
        """Return the command of the writer, and what it is told besides the run."""

    def inject(self, drill: Drill) -> None:
        """Make the failure happen. Raises FutagoFault."""

    def heal(self) -> None:
        """Repair what a person would have to repair; nothing where nothing is broken for good."""

    def recover(self) -> None:
        """Run `futago recover`."""

    def notes(self, since: datetime) -> list[dict[str, Any]]:
        """Return what the controllers noted since then."""


class MemberGround:
    """This member of a real pair."""

    def drill(self, name: str) -> Drill:
        if name not in DRILLS:
            raise OperatorFault(
                f"There is no drill `{name}`.", hint=f"There are: {', '.join(DRILLS)}.", code="drill.name"
            )
        found, status = DRILLS[name], ask_status()
        me = status["members"][0]
        if found.place not in ("any", me["role"]):
            other = next(m["name"] for m in status["members"] if m["name"] != me["name"])
            raise OperatorFault(
                f"`{name}` is held on the {found.place}, and {me['name']} is the {me['role']}.",
                hint=f"Run it on {other}.",
                code="drill.place",
            )
        return found

    def status(self) -> Status | None:
        try:
            return ask_status()
        except WorldFault:
            return None

    def writer(self) -> tuple[list[str], dict[str, Any]]:
        return [sys.executable, "-m", "futago.cli.drill_writer"], {}

    def inject(self, drill: Drill) -> None:
        if drill.name == "switchover":
            threading.Thread(target=_quietly, args=({"op": "switchover"},), daemon=True).start()
            return
        command = ["systemctl", "kill", "--signal=KILL", _UNITS[drill.name]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        if done.returncode:
            raise Refused(f"{' '.join(command)}: {done.stderr.strip()}")

    def heal(self) -> None:
        pass

    def recover(self) -> None:
        _quietly({"op": "recover"})

    def notes(self, since: datetime) -> list[dict[str, Any]]:
        return read_notes(
            since,
            run=lambda command: subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout,
        )


def read_notes(since: datetime, *, run: Callable[[list[str]], str]) -> list[dict[str, Any]]:
    """Return the JSON lines of a member's controller since an instant."""
    command = ["journalctl", "-u", "futago-controller.service", "-o", "cat", "--no-pager", "--since"]
    out = run([*command, f"@{since.timestamp() - 1:.3f}"])
    found = []
    for line in out.splitlines():
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def _quietly(request: dict[str, Any]) -> None:
    try:
        operate(request, deadline_s=END_S_MAX, as_json=False)
    except (OperatorFault, WorldFault) as e:
        print(f"futago: {e}", file=sys.stderr)


# --- the writer -------------------------------------------------------------------------------------------------------


class Writer:
    """The client that writes during the drill, and what it said."""

    def __init__(self, ground: Ground, run: str) -> None:
        command, orders = ground.writer()
        self.account = stories.Account()
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"run": run, "every_s": EVERY_S, **orders}) + "\n")
        self._process.stdin.flush()
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.account.take(json.loads(line))

    def wait_steady(self) -> None:
        """Return when it writes without trouble. Raises Refused if it does not."""
        end = time.monotonic() + STEADY_S_MAX
        while len(self.account.acknowledged) < STEADY_WRITES:
            if time.monotonic() > end or self._process.poll() is not None:
                self.close()
                why = self.account.fault or "no write was acknowledged"
                raise Refused(f"events cannot be written, so nothing was injected: {why}")
            time.sleep(0.05)

    def finish(self) -> None:
        """Let it read everything back. Raises Unknown if it does not end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(READ_BACK_S_MAX)
        except subprocess.TimeoutExpired as e:
            raise Unknown("the events could not be read back in time") from e
        finally:
            self.close()
        self._reader.join(5)
        if self.account.found is None:
            raise Unknown(f"the events could not be read back: {self.account.fault or 'the writer ended early'}")

    def close(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(5)


# --- the course -------------------------------------------------------------------------------------------------------


def drill(
    name: Annotated[str, typer.Argument(help="Which failure; --list shows all.")] = "",
    list_all: Annotated[bool, typer.Option("--list", help="Show the drills that can be held here.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    lab: Annotated[
        str, typer.Option(help="Hold it in the lab of this name, from outside: every failure F01 to F27.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Make a failure happen on purpose, watch what the pair does, and learn that nothing was lost.

    It begins only when the pair is protected, and asks before it does. Meanwhile it writes numbered events through the
    API, ten a second, like any client. Afterwards it tells what happened, step by step, with times and the rules that
    decided; how long writes paused; and it reads the events back: each one that was acknowledged must be there, once.
    The events stay in the list as `futago drill ...`.

    Exit codes: 0 passed: nothing lost, nothing twice, the pair is protected again, the service moved only if it should ·
    1 not passed · 2 refused, with what to do first · 3 it is not known how it ended.
    """
    ground: Ground = MemberGround()
    if lab:
        from futago.cli.drill_lab import LabGround

        ground = LabGround(lab)
    if list_all or not name:
        _list(lab=bool(lab), as_json=as_json)
        return
    chosen = ground.drill(name)
    before = _require_protected(ground)
    if not yes:
        _confirm(chosen, before)
    result = _hold(ground, chosen, before)
    print(json.dumps(result, ensure_ascii=False)) if as_json else _tell(result)
    if not result["passed"]:
        raise typer.Exit(1)


def _list(*, lab: bool, as_json: bool) -> None:
    if lab:
        from futago.cli.drill_lab import lab_drills

        rows = lab_drills()
    else:
        rows = list(DRILLS.values())
    if as_json:
        print(json.dumps([{"name": d.name, "place": d.place, "text": d.text, "expect": d.expect} for d in rows]))
        return
    from futago.cli.tables import table

    table(
        ["drill", "held on", "what is done", "what should happen"], [[d.name, d.place, d.text, d.expect] for d in rows]
    )


def _require_protected(ground: Ground) -> Status:
    status = ground.status()
    if status is None or not status.get("protected"):
        said = "" if status is None else f" {status['reason']} {' '.join(status['not_protected'])}"
        raise OperatorFault(
            f"A drill is held only while the pair is protected.{said}",
            hint="Bring it back first: futago recover, futago status.",
            code="drill.unprotected",
        )
    return status


def _confirm(chosen: Drill, status: Status) -> None:
    print(f"{chosen.name}: {chosen.text}. Expected: {chosen.expect}.", file=sys.stderr)
    print(f"The pair `{status['pair']}` is protected; {status['primary']} serves.", file=sys.stderr)
    if not sys.stdin.isatty():
        raise OperatorFault("A drill must be confirmed.", hint="Add --yes.", code="drill.confirm")
    print("Hold it now? Type yes: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise OperatorFault("Nothing was injected.", hint="", code="drill.confirm")


def _hold(ground: Ground, chosen: Drill, before: Status) -> dict[str, Any]:
    run = secrets.token_hex(4)
    writer = Writer(ground, run)
    try:
        writer.wait_steady()
        _say(f"injecting: {chosen.text}")
        injected_utc, injected_at = datetime.now(UTC), time.monotonic()
        ground.inject(chosen)
        after = _watch(ground, writer, injected_at)
        ended_at = time.monotonic()
        writer.finish()
    finally:
        writer.close()
    told = stories.story(ground.notes(injected_utc), injected_utc=injected_utc)
    reckoning = stories.reckon(writer.account, injected_at=injected_at, ended_at=ended_at)
    found = _result(chosen, before, after, reckoning)
    return found | {"run": run, "switch": _switch(writer.account, before), "story": [_row(t) for t in told]}


def _watch(ground: Ground, writer: Writer, injected_at: float) -> Status | None:
    """Wait until the pair is protected again; heal and recover as a person would."""
    seen, is_healed, is_recovering, status = "", False, False, None
    while time.monotonic() - injected_at < END_S_MAX:
        passed = time.monotonic() - injected_at
        status = ground.status()
        line = "nobody can say" if status is None else f"{status['state']}: {status['reason']}"
        if line != seen:
            seen = line
            _say(f"{passed:6.1f} s  {line}")
        is_writing = max(writer.account.acknowledged.values()) > time.monotonic() - 1
        if passed > SETTLE_S and not is_healed and (is_writing or passed > 5 * SETTLE_S):
            is_healed = True
            ground.heal()
        if status is not None and status["protected"] and passed > SETTLE_S and is_healed and is_writing:
            return status
        needs_recovery = status is not None and status["state"] != "paired" and passed > SETTLE_S + RECOVER_AFTER_S
        if needs_recovery and not is_recovering:
            is_recovering = True
            _say(f"{passed:6.1f} s  futago recover")
            threading.Thread(target=ground.recover, daemon=True).start()
        time.sleep(LOOK_S)
    return status


def _switch(account: stories.Account, before: Status) -> list[dict[str, Any]]:
    steps = stories.switch_steps(account.pair, epoch_before=int(before["epoch"]))
    return [{"name": name, "ms": ms, "text": text} for name, ms, text in steps]


def _row(told: stories.Told) -> dict[str, Any]:
    return {"at_s": told.at_s, "member": told.member, "text": told.text}


def _result(chosen: Drill, before: Status, after: Status | None, reckoning: stories.Reckoning) -> dict[str, Any]:
    is_protected = after is not None and bool(after["protected"])
    has_moved = after is not None and after["primary"] != before["primary"]
    problems = [
        (bool(reckoning.lost), f"{len(reckoning.lost)} acknowledged events are lost"),
        (bool(reckoning.twice), f"{len(reckoning.twice)} events are there twice"),
        (not is_protected, "the pair is not protected again"),
        (chosen.switches is False and has_moved, "the service moved, and should not have"),
        (chosen.switches is True and not has_moved, "the service did not move, and should have"),
    ]
    found = [text for is_so, text in problems if is_so]
    return {
        "drill": chosen.name,
        "what": chosen.text,
        "passed": not found,
        "problems": found,
        "written": reckoning.written,
        "lost": len(reckoning.lost),
        "twice": len(reckoning.twice),
        "refused": len(reckoning.refused),
        "pause_s": reckoning.pause_s,
        "pause_at_s": reckoning.pause_at_s,
        "primary_before": before["primary"],
        "primary_after": None if after is None else after["primary"],
    }


def _tell(result: dict[str, Any]) -> None:
    print(f"\nWhat happened ({result['what']}):")
    for step in result["story"]:
        print(f"  {step['at_s']:7.2f} s  {step['member']}: {step['text']}")
    if result["switch"]:
        print(f"The switch, as {result['primary_after']} measured it (from the last sign of life, or the request):")
        for step in result["switch"]:
            print(f"  {step['ms']:7.0f} ms  {step['text']}")
    moved = result["primary_before"] != result["primary_after"]
    who = (
        f"{result['primary_before']} -> {result['primary_after']}" if moved else f"{result['primary_after']}, as before"
    )
    print(f"Who serves: {who}.")
    print(f"Writes paused for {result['pause_s']:.2f} s at most; a client that repeats its request noticed no more.")
    print(
        f"What was lost: {result['lost']} of {result['written']} acknowledged events. Written twice: {result['twice']}."
    )
    print("PASSED." if result["passed"] else f"NOT PASSED: {'; '.join(result['problems'])}.")


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
