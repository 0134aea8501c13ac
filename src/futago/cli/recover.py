"""`futago recover`: one command on either member, whatever happened. It shows the plan, then the progress, then the proof.

Lives here: how the plan looks on a terminal, and what an interruption means. Must not live here: the plan itself and
everything that is done (cluster/plan.py, recovery.py, recover.py): the controllers do it, and go on when this ends.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from futago.cli.controller_line import AsJson, ask, operate
from futago.runtime.faults import OperatorFault

PLAN_S_MAX = 90.0
_MARKS = {"ok": "[green]ok  [/green]", "warn": "[yellow]warn[/yellow]", "bad": "[red]BAD [/red]"}


def recover(
    as_json: AsJson = False,
    plan_only: Annotated[
        bool, typer.Option("--plan", "--dry-run", help="Show what would be done, and do nothing.")
    ] = False,
    deadline: Annotated[
        int, typer.Option(min=1, help="Stop watching after so many seconds; the recovery itself goes on.")
    ] = 86_400,
    patience: Annotated[
        int,
        typer.Option(
            min=1,
            max=86_400,
            help="Give the recovery up when the other member has been silent for so many seconds. One that is under way "
            "keeps the patience that it began with.",
        ),
    ] = 300,
) -> None:
    """Bring the pair back to two members, whatever happened.

    Run it on either member, without arguments. It finds out what is wrong, shows a plan (which member comes back, by
    which way, what is copied or deleted, how long it takes) and what it checked beforehand: room on both data volumes,
    the members' clocks and versions, their networks, the power devices, the third vote. Then the member that is away
    is brought back by the mildest way that works: follow the log, rewind, base backup, or a copy onto an empty disk,
    while the other one goes on serving. It ends when both members hold every write again, proved by a mark that the
    primary wrote and the standby replayed, and says by which way.

    Ctrl-C ends only the watching: the controllers go on, and the same command shows it again, on either member.

    Exit codes: 0 the pair is paired (with --plan: it would begin, or nothing is needed) · 1 no controller answers ·
    2 refused: somebody has to repair something first, and it says what · 3 it is not known how it ended · 130
    interrupted.
    """
    plan = ask({"op": "recover", "plan": True}, deadline_s=PLAN_S_MAX)["plan"]
    if plan_only:
        print(json.dumps(plan, ensure_ascii=False)) if as_json else show_plan(plan)
        raise typer.Exit(2 if plan["refusal"] else 0)
    if not as_json:
        show_plan(plan)
    request = {"op": "recover", "patience_s": patience}
    try:
        done = operate(request, deadline_s=deadline, as_json=as_json)
    except KeyboardInterrupt:
        words = (
            "The recovery goes on in the controllers. `futago recover` shows it again, `futago status` how far it is."
        )
        print(f"\nfutago: {words}", file=sys.stderr)
        raise typer.Exit(130) from None
    except OperatorFault as fault:
        if plan["refusal"] and not fault.hint:
            fault.hint = str(plan["repair"])
        raise
    if not as_json:
        print(done["text"])


def show_plan(plan: dict[str, Any]) -> None:
    """Draw a plan on one screen."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    console.print("[bold]What is wrong[/bold]" if plan["is_needed"] else "[bold]Nothing has to be recovered[/bold]")
    for sentence in plan["wrong"]:
        console.print(f"  {escape(sentence)}")
    if plan["steps"]:
        console.print("[bold]What will be done[/bold]")
    for number, step in enumerate(plan["steps"], start=1):
        deletes = "  [yellow]replaces data[/yellow]" if step["is_destructive"] else ""
        console.print(f"  {number}. {escape(step['text'])}{_costs(step)}{deletes}")
    if plan["checks"]:
        console.print("[bold]What was checked[/bold]")
    for check in plan["checks"]:
        repair = f"  -> {escape(check['repair'])}" if check["repair"] else ""
        console.print(
            f"  {_MARKS[check['grade']]} {check['name']} ({check['member']}): {escape(check['text'])}{repair}"
        )
    if plan["refusal"]:
        console.print(f"[red]It cannot begin:[/red] {escape(plan['refusal'])}.")
    if plan["repair"]:
        console.print(f"  [bold]-> {escape(plan['repair'])}[/bold]")


def _costs(step: dict[str, Any]) -> str:
    if not step["bytes_max"]:
        return f" · about {step['seconds']:.0f} s" if step["seconds"] else ""
    size, seconds = step["bytes_max"] / (1 << 20), step["seconds"]
    size_text = f"{size / 1024:.1f} GiB" if size >= 10_240 else f"{size:.0f} MiB"
    time_text = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return f" · up to {size_text}, about {time_text}"
