"""The walk through every failure pattern: one JSON object a fault on standard output, progress on standard error.

    python tests/bench/faults.py [--only F04,F05-out] [--into FILE] [--markdown FILE] [--from FILE] [--recovery manual|auto]
                                 [--profile default|fast]

One pair, formed once; for each fault a load (tests/lab/shift.py), the fault, its repair, and where the pair does not come
back by itself `futago recover`; then the reckoning: what the senders and the client know against what the product says.
Each row has its time. If it takes longer, breaks off, or leaves the pair beyond repair, that is told in the row, and the
walk goes on with a new pair.

With `--into FILE` each row is appended to that file as soon as it is known, and rows that stand there already, good and
of this very version, are not done again: a walk that was interrupted goes on where it was.

The table of the rows goes to build/faults.md, or where `--markdown` says.

Ends with 1 if any row lost anything, did anything twice, did not resume or did not come back. `--from FILE` writes the
table from lines of earlier runs instead of running.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "lab"))

from shift import World
from walk import SCENES, Row, Scene, Step

from futago import __version__
from futago.lab.lab import Lab
from futago.lab.pair import form_pair, wait_protected
from futago.lab.progress import say
from futago.lab.topology import standard
from futago.runtime.faults import FutagoFault

Line = dict[str, Any]
ROW_S_MAX = 600.0  # three attempts of `futago recover` with their limits, and a load that drains, have room in it
AGAIN_S = 30.0


class OutOfTime(Exception):
    """A row has taken longer than it may. Not a FutagoFault: nothing on the way may take it for the product's answer."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """End what is inside by OutOfTime after `seconds`, and again every half minute for as long as it cleans up.

    For the main thread only.
    """

    def end(*_: object) -> None:
        raise OutOfTime(f"not done within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def wanted(only: str) -> list[Scene]:
    """Return the scenes that `--only` names, in its order: F05 is every form of F05, F05-out that one."""
    if not only:
        return list(SCENES)
    names = only.split(",")
    unknown = [n for n in names if not any(n in (s.name, s.fault) for s in SCENES)]
    if unknown:
        sys.exit(f"faults.py: there is no {', '.join(unknown)}; there are {', '.join(s.name for s in SCENES)}")
    return list(dict.fromkeys(s for n in names for s in SCENES if n in (s.name, s.fault)))


def version() -> str:
    """Return what is measured: the version and the state of the sources."""
    here = Path(__file__).parent
    commit = _git(here, "rev-parse", "--short=10", "HEAD")
    changed = "+changes" if _git(here, "status", "--porcelain", "--untracked-files=no", "--", "../../src") else ""
    return f"{__version__} ({commit}{changed})" if commit else __version__


def _git(here: Path, *words: str) -> str:
    try:
        return subprocess.run(["git", "-C", here, *words], capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def machine() -> str:
    """Return on what it is measured."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{len(models)} x {models[0] if models else 'unknown'}, {gib:.0f} GiB, Linux {os.uname().release.partition('-')[0]}"


class Walk:
    """A lab with a pair, made anew whenever a fault has left it beyond repair."""

    def __init__(self, *, recovery: str, profile: str) -> None:
        self._recovery, self._profile = recovery, profile
        self._about = {"recovery": recovery, "version": version(), "machine": machine()}
        self.lab = Lab(f"f{os.getpid()}")
        self._world: World | None = None

    def world(self) -> World:
        if self._world is None:
            self.lab.up(nodes=standard(remote_volumes=True), owner_pid=os.getpid(), say=say)
            form_pair(self.lab, recovery=self._recovery, profile=self._profile, say=say)
            self._world = World(self.lab)
        return self._world

    def one(self, scene: Scene) -> Line:
        """Do one scene; return its row, also if it failed. After a failure of more than figures the pair is a new one."""
        began = time.monotonic()
        row, is_whole = self._row(scene)
        line: Line = {**json.loads(row.line()), "ok": row.is_good, "took_s": round(time.monotonic() - began, 1)}
        line |= {"utc": datetime.now(UTC).isoformat(timespec="seconds"), "profile": self._profile, **self._about}
        line["load"] = round(os.getloadavg()[0], 1)
        if is_whole:
            try:
                with limited(ROW_S_MAX):
                    self._heal()
            except (FutagoFault, OutOfTime) as e:
                say(f"  !! {scene.name}: the pair is beyond repair ({e})")
                line["ok"], is_whole = False, False
                line["why"].append("the pair did not come back")
        if not is_whole:
            say(f"  !! {scene.name}: a new pair is made for the next row")
            with suppress(FutagoFault):  # what is left of it is removed when the next one is made
                self.down()
        return line

    def _row(self, scene: Scene) -> tuple[Row, bool]:
        """Return a scene's row, and whether what it leaves is fit for the next one."""
        try:
            return self._step(scene), True
        except (FutagoFault, AssertionError, OSError) as e:  # the pair was not even whole before: begin again, once
            say(f"  !! {scene.name}: {e}; a new pair is made")
        except Exception as e:  # noqa: BLE001 - one row must not end the walk
            return self._broken_off(scene, e), False
        try:
            self.down()
            return self._step(scene), True
        except Exception as e:  # noqa: BLE001 - one row must not end the walk
            return self._broken_off(scene, e), False

    def _step(self, scene: Scene) -> Row:
        world = self.world()  # each of its steps has a limit of its own
        with limited(ROW_S_MAX):
            return Step(world, scene).run()

    def _broken_off(self, scene: Scene, error: Exception) -> Row:
        say("".join(traceback.format_exception(error))[-3000:])
        return Row(scene.fault, scene.variant, scene.text, why=[f"{type(error).__name__}: {error}"[:1500]])

    def _heal(self) -> None:
        apart = {"clock-shim"}
        for fault in self.lab.request(op="status")["faults"]:
            if fault["fault"] not in apart:
                self.lab.heal(fault["fault"], fault["target"])
        wait_protected(self.lab, deadline_s=5)

    def down(self) -> None:
        if self._world is not None:
            self._world.close()
        self._world = None
        self.lab.down(say=say, keep_logs=True)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def table(lines: list[Line]) -> str:
    """Return the rows as a Markdown table, in the order of the patterns."""
    order = {(s.fault, s.variant): i for i, s in enumerate(SCENES)}
    newest = {(line["fault"], line["variant"]): line for line in lines}
    rows = [
        "| | What happens | detected | waited | resumed | repair | paired | lost | twice | command |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for key in sorted(newest, key=lambda k: order.get(k, len(order))):
        line = newest[key]
        cells = [_cell(line[k]) for k in COLUMNS]
        command = f"`{line['command']}`" if line["command"] else "none"
        mark = "" if line["ok"] else " **(see below)**"
        rows.append(f"| {_name(line)} | {line['text']}{mark} | {' | '.join(cells)} | {command} |")
    bad = [line for line in newest.values() if not line["ok"]]
    if bad:
        rows += ["", "Not as it should be:", ""]
        rows += [f"- {_name(b)}: {'; '.join(b['why'])[:400]}" for b in bad]
    missing = [s.name for s in SCENES if (s.fault, s.variant) not in newest]
    if missing:
        rows += ["", f"Not run: {', '.join(missing)}."]
    rows += ["", *_about(list(newest.values()))]
    return "\n".join(rows) + "\n"


def _about(lines: list[Line]) -> list[str]:
    """Tell when, of which version and where the rows were measured; those that were measured otherwise by name."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        words = f'version {line["version"]}, profile `{line["profile"]}`, `recovery = "{line["recovery"]}"`, {line["machine"]}'
        groups.setdefault(words, []).append(line)
    told = []
    for words, some in sorted(groups.items(), key=lambda g: -len(g[1])):
        names = "all rows" if len(groups) == 1 else ", ".join(_name(x) for x in some) if told else "the other rows"
        began, ended = min(x["utc"] for x in some), max(x["utc"] for x in some)
        loads = [x["load"] for x in some if "load" in x]
        load = f", load average {min(loads):.0f} to {max(loads):.0f}" if loads else ""
        told.append(
            f"Measured {began[:16].replace('T', ' ')} to {ended[:16].replace('T', ' ')} UTC, {names}: {words}{load}."
        )
    resent = sum(x["resent"] for x in lines)
    if resent:
        told.append(
            f"Messages that rsyslogd itself sent again after a lost connection, by the record of the wire: {resent}."
        )
    return ["  \n".join(told)]


def _name(line: Line) -> str:
    return "-".join(k for k in (line["fault"], line["variant"]) if k)


TABLE = Path(__file__).parents[2] / "build/faults.md"
COLUMNS = ("detected_s", "outage_s", "resumed_s", "repair_gap_s", "paired_s", "lost", "twice")
BEGIN, END = "<!-- table: generated by tests/bench/faults.py -->", "<!-- end of table -->"


def write_table(file: Path, lines: list[Line]) -> None:
    """Put the table between the marks of a page, or into a file of its own."""
    text = file.read_text(encoding="utf-8") if file.exists() else f"{BEGIN}\n{END}\n"
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    file.write_text(f"{head}{BEGIN}\n{table(lines)}{END}{tail}", encoding="utf-8")


def recorded(file: Path | None) -> list[Line]:
    """Return the rows of a file; of one that is not there none. A last line that was cut off is none."""
    if file is None or not file.exists():
        return []
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


def still_to_do(scenes: list[Scene], done: list[Line], about: Line) -> list[Scene]:
    """Return the scenes without a good row that was measured as `about` says; of a form with several the last counts."""
    newest = {(d["fault"], d["variant"]): d for d in done if all(d.get(k) == v for k, v in about.items())}
    return [s for s in scenes if not newest.get((s.fault, s.variant), {"ok": False})["ok"]]


def walk(scenes: list[Scene], *, recovery: str, profile: str, into: Path | None = None) -> list[Line]:
    """Walk; print each row as soon as it is known, and append it to `into`."""
    lines = []
    walk = Walk(recovery=recovery, profile=profile)
    try:
        for number, scene in enumerate(scenes, start=1):
            say(f"[{number} of {len(scenes)}] {scene.name}: {scene.text}")
            line = walk.one(scene)
            lines.append(line)
            print(json.dumps(line), flush=True)
            if into is not None:
                with into.open("a", encoding="utf-8") as f:
                    f.write(json.dumps(line) + "\n")
            say(f"  {'ok' if line['ok'] else '!!'} {scene.name}: {json.dumps(line)}")
    finally:
        walk.down()
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="some of them, with commas; see SCENES in tests/lab/walk.py")
    parser.add_argument("--markdown", type=Path, default=TABLE, help="write the table there; build/faults.md")
    parser.add_argument("--from", type=Path, dest="recorded", help="lines of earlier runs, instead of a run")
    parser.add_argument("--into", type=Path, help="append each row there; skip those that are there, of this version")
    parser.add_argument("--recovery", default="manual", choices=("manual", "auto"))
    parser.add_argument("--profile", default="default")
    a = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("faults.py: told to stop"))  # the lab goes with us
    if a.recorded:
        lines = recorded(a.recorded)
    else:
        done = recorded(a.into)
        about = {"version": version(), "profile": a.profile, "recovery": a.recovery}
        scenes = still_to_do(wanted(a.only), done, about)
        say(f"{len(scenes)} rows to do")
        lines = [*done, *walk(scenes, recovery=a.recovery, profile=a.profile, into=a.into)]
    a.markdown.parent.mkdir(parents=True, exist_ok=True)
    write_table(a.markdown, lines)
    newest = {(line["fault"], line["variant"]): line for line in lines}
    return 0 if all(line["ok"] for line in newest.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
