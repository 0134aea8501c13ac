"""A run of a job net as a tree on the terminal: at once, or redrawn while it goes on.

Which lines are drawn where there is not room for all is decided here, purely: what runs and what failed comes first, and a
count stands for the rest.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.tree import Tree

from futago.runtime.clock import now_utc
from futago.web.job_model import JobRun, SessionDetail

LOOK_S = 0.5
OPEN_STATES = {"starting", "running"}
_SIGNS = {
    "normal": ("✓", "green"),
    "warning": ("!", "yellow"),
    "abnormal": ("✗", "red"),
    "unknown": ("?", "red"),
    "running": ("▶", "cyan"),
    "ordered": ("▷", "cyan"),
    "skipped": ("↷", "dim"),
    "not-run": ("–", "dim"),
    "waiting": ("·", "dim"),
}
_URGENT = {"abnormal": 0, "unknown": 0, "running": 1, "ordered": 1, "warning": 2, "waiting": 3, "normal": 4}
_LAST = 5


@dataclass(slots=True)
class Branch:
    """A net with its jobs, and the nets in it."""

    name: str
    run: JobRun | None = None  # of the net itself, where it has one
    jobs: list[JobRun] = field(default_factory=list)
    branches: dict[str, Branch] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)


def grow(found: SessionDetail, *, lines_max: int) -> Branch:
    """Return the tree of a run with at most `lines_max` jobs: the newest attempt of each, by the nets in their names
    (`net/job`); jobs that have no room are counted where they belong.
    """
    newest: dict[str, JobRun] = {}
    for job in found.jobs:
        if job.job_name not in newest or newest[job.job_name].attempt < job.attempt:
            newest[job.job_name] = job
    nets = {part for name in newest for part in _nets_of(name)}
    by_weight = sorted(
        (j for j in newest.values() if j.job_name not in nets), key=lambda j: _URGENT.get(j.state, _LAST)
    )
    drawn = {j.job_name for j in by_weight[: max(1, lines_max)]}
    root = Branch(found.net_name)
    for job in newest.values():
        at = root
        parts = job.job_name.split("/")
        for part in parts if job.job_name in nets else parts[:-1]:
            at = at.branches.setdefault(part, Branch(part))
        if job.job_name in nets:
            at.run = job
        elif job.job_name in drawn:
            at.jobs.append(job)
        else:
            at.left_out[job.state] += 1
    return root


def _nets_of(name: str) -> list[str]:
    """Return the paths of the nets that a job is in: of `a/b/c`, `a` and `a/b`."""
    parts = name.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def draw(found: SessionDetail, *, lines_max: int, now: datetime) -> Tree:
    """Return what rich prints."""
    root = grow(found, lines_max=lines_max)
    counts = " ".join(f"{n} {state}" for state, n in sorted(found.job_states.items()))
    begun = found.started_utc or found.created_utc
    took_s = ((found.ended_utc or now) - begun).total_seconds()
    tree = Tree(f"run {found.session_id} of [bold]{escape(root.name)}[/]: {found.state}, {took_s:.0f} s ({counts})")
    _hang(tree, root, now)
    return tree


def _hang(tree: Tree, branch: Branch, now: datetime) -> None:
    for job in branch.jobs:
        tree.add(_line(job, now))
    for name, inner in branch.branches.items():
        _hang(tree.add(_line(inner.run, now) if inner.run else f"[bold]{escape(name)}[/]"), inner, now)
    if branch.left_out:
        tree.add(f"[dim]and {', '.join(f'{n} {state}' for state, n in sorted(branch.left_out.items()))}[/]")


def _line(job: JobRun, now: datetime) -> str:
    sign, style = _SIGNS.get(job.state, ("·", "dim"))
    words = [
        f"[{style}]{sign} {escape(job.job_name.rsplit('/', 1)[-1])}[/]",
        *([f"[dim]{escape(job.host_name)}[/]"] if job.host_name else []),
    ]
    if job.started_utc is not None:
        words.append(f"{((job.ended_utc or now) - job.started_utc).total_seconds():.1f} s")
    if job.exit_code:
        words.append(f"exit {job.exit_code}")
    words += ["held"] * job.is_held + ["stopping"] * (job.is_stopping and job.ended_utc is None)
    words += [f"attempt {job.attempt}"] * (job.attempt > 1)
    if job.detail:
        words.append(f"[dim]{escape(job.detail[:80])}[/]")
    return "  ".join(words)


def show_once(found: SessionDetail) -> None:
    """Print the whole tree."""
    Console(highlight=False).print(draw(found, lines_max=len(found.jobs), now=now_utc()))


def follow(look: Callable[[], SessionDetail]) -> SessionDetail:
    """Draw a run again and again until it has ended; return it then. Where the output is no terminal, a line is printed
    whenever the state of a job changes.
    """
    console = Console(highlight=False)
    return _live(look, console) if console.is_terminal else _lines(look)


def _live(look: Callable[[], SessionDetail], console: Console) -> SessionDetail:
    found = look()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while found.state in OPEN_STATES:
            live.update(draw(found, lines_max=console.height - 4, now=now_utc()), refresh=True)
            time.sleep(LOOK_S)
            found = look()
    console.print(draw(found, lines_max=len(found.jobs), now=now_utc()))
    return found


def _lines(look: Callable[[], SessionDetail]) -> SessionDetail:
    told: dict[str, str] = {}
    while True:
        found = look()
        for job in found.jobs:
            if told.get(job.run_id, "waiting") != job.state:
                code = "" if job.exit_code is None else f" exit {job.exit_code}"
                print(f"{job.job_name} {job.state}{code} {job.host_name}", flush=True)
            told[job.run_id] = job.state
        if found.state not in OPEN_STATES:
            return found
        time.sleep(LOOK_S)
