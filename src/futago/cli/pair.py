"""The verbs of the pair: status, recover, switchover, explain. They ask the controller of this machine over its local socket.

No database is needed and nothing is decided here. `futago status --json` prints exactly what the controller says; the tables are drawn from the same
words. Exit codes of `status`: 0 the pair is protected, 1 it is not, 2 this machine is not set up or the request is wrong, 3 no controller answers.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from futago.runtime.faults import OperatorFault, Refused, Unknown
from futago.setup import paths

EXIT_UNPROTECTED, EXIT_NO_CONTROLLER = 1, 3
_STATUS_DEADLINE_S = 5.0
_LINE_BYTES_MAX = 4 << 20

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def status(
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Draw it again every second until Ctrl-C.")] = False,
) -> None:
    """Show the pair: who serves, what is not protected, and what resolves it."""
    while True:
        try:
            found = ask_status()
        except (Refused, Unknown) as e:
            print(
                json.dumps({"error": str(e)}) if as_json else f"futago: {e}", file=sys.stdout if as_json else sys.stderr
            )
            raise typer.Exit(EXIT_NO_CONTROLLER) from e
        if as_json:
            print(json.dumps(found, ensure_ascii=False))
        else:
            _draw(found, clear=watch)
        if not watch:
            raise typer.Exit(0 if found.get("protected") else EXIT_UNPROTECTED)
        time.sleep(1)


def recover(
    as_json: AsJson = False,
    deadline: Annotated[
        int, typer.Option(help="Give up waiting after so many seconds; the recovery itself goes on.")
    ] = 900,
) -> None:
    """Bring the pair back to two members, whatever happened. Runs on either member; safe to interrupt and to repeat."""
    _operate(
        "recover", deadline=deadline, as_json=as_json, done="The pair is back: both members hold every write again."
    )


def switchover(
    as_json: AsJson = False,
    deadline: Annotated[int, typer.Option(help="Give up waiting after so many seconds.")] = 60,
) -> None:
    """Hand the service over to the other member, as planned. Takes under a second; nothing is lost."""
    _operate("switchover", deadline=deadline, as_json=as_json, done="The other member serves now.")


def explain(
    rule: Annotated[str, typer.Argument(help="A rule's id, as `futago status` shows it; empty: the present one.")] = "",
) -> None:
    """Explain why the pair is in its present state, or what a rule means."""
    from futago.cluster.rules import SECTIONS

    if not rule:
        found = ask_status()
        print(f"{found['state']}: {found['reason']}  [{found['rule']}]")
        rule = str(found["rule"])
        if found.get("command"):
            print(f"What resolves it: {found['command']}")
    known = {row.id: row for section in SECTIONS for row in section.rows}
    if rule not in known:
        raise OperatorFault(
            f"There is no rule `{rule}`.", hint=f"Rules are: {', '.join(sorted(known))}.", code="cli.rule"
        )
    print(f"{rule}: {known[rule].why.format(me='this member', peer='the other member', epoch='the view')}")


def ask_status() -> dict[str, Any]:
    """Return the controller's status.

    Raises:
        OperatorFault: this machine is not a member. Refused: no controller runs. Unknown: it does not answer.
    """
    answer = next(_converse({"op": "status"}, deadline_s=_STATUS_DEADLINE_S), None)
    if answer is None or not answer.get("ok"):
        raise Unknown(f"the controller ended in the middle of an answer: {answer}")
    found: dict[str, Any] = answer["status"]
    return found


def _operate(op: str, *, deadline: int, as_json: bool, done: str) -> None:
    last: dict[str, Any] = {}
    for answer in _converse({"op": op}, deadline_s=deadline):
        last = answer
        if "progress" in answer and not answer.get("ok"):
            print(f"  {answer['progress']}", file=sys.stderr, flush=True)
        else:
            break
    if "ok" not in last:
        raise Unknown(f"the controller ended before `{op}` did; look at `futago status`, and repeat the command")
    if as_json:
        print(json.dumps(last, ensure_ascii=False))
    if not last["ok"]:
        raise OperatorFault(str(last.get("error", "refused")), hint=str(last.get("hint", "")), code=f"pair.{op}")
    if not as_json:
        print(last.get("text") or done)


def _converse(request: dict[str, Any], *, deadline_s: float) -> Iterator[dict[str, Any]]:
    if not paths.SETTINGS.exists():
        raise OperatorFault(
            f"{paths.SETTINGS} does not exist: this machine is not a member of a pair.",
            hint="Run this on a member.",
            code="settings.missing",
        )
    end = time.monotonic() + deadline_s
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(deadline_s)
        try:
            s.connect(str(paths.CONTROLLER_SOCKET))
        except (FileNotFoundError, ConnectionRefusedError) as e:
            raise Refused("no controller runs on this member; see `systemctl status futago-controller`") from e
        except PermissionError as e:
            raise OperatorFault(
                "Only root and the group futago may ask the controller.",
                hint="Run this as root.",
                code="cli.permission",
            ) from e
        s.sendall(json.dumps(request).encode() + b"\n")
        with s.makefile("rb") as f:
            while True:
                s.settimeout(max(0.05, end - time.monotonic()))
                try:
                    line = f.readline(_LINE_BYTES_MAX)
                except TimeoutError as e:
                    raise Unknown(
                        f"the controller has not finished within {deadline_s:.0f} s; it may still do so: see `futago status`"
                    ) from e
                if not line:
                    return
                yield json.loads(line)


# --- the table ------------------------------------------------------------------------------------------------------

_COLOUR = {"paired": "green", "solo": "yellow", "blocked": "red", "no-peer": "yellow"}


def _draw(s: dict[str, Any], *, clear: bool) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if clear:
        console.clear()
    colour = (
        "green" if s.get("protected") else _COLOUR.get(s["state"], "yellow") if s["state"] != "paired" else "yellow"
    )
    word = "protected" if s.get("protected") else "NOT PROTECTED"
    console.print(
        f"[bold]{s['pair']}[/bold]  [{colour}]{s['state']}, {word}[/{colour}]  primary {s['primary'] or '-'}  epoch {s['epoch']}"
    )
    console.print(f"{s['reason']}  [dim]{s['rule']}[/dim]")
    for line in s.get("not_protected", []):
        console.print(f"  [yellow]! {line}[/yellow]")
    if s.get("command"):
        console.print(f"  [bold]-> {s['command']}[/bold]")
    console.print(_members(s))
    console.print(_surroundings(s))
    if s.get("last_switch"):
        console.print(_switch(s["last_switch"]))


def _members(s: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table("member", "role", "database", "timeline", "flushed", "replay lag", "gate", "floating IP", "fit")
    for m in s["members"]:
        table.add_row(
            m["name"], m["role"] if m["reachable"] else f"{m['role']} (silent)", str(m["pg"]), str(m["timeline"]), str(m["flush_lsn"]),
            f"{m['replay_lag_bytes']} B", str(m["gate"]), "held" if m["address"] else "", "yes" if m["fit"] and m["able"] else "no",
        )  # fmt: skip
    return table


def _surroundings(s: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table("what", "state", "", show_header=False)
    for link in s["links"]:
        table.add_row(f"link {link['name']}", _ok(link["up"], "up", "DOWN"), _heard(link.get("last_heard_ms")))
    for fence in s["fences"]:
        age = fence.get("tested_ago_s")
        tested = "never tested" if age is None else f"tested {age:.0f} s ago"
        table.add_row(
            f"fence of {fence['member']} ({fence['driver']})",
            _ok(fence["ok"], fence["state"], "FAILS"),
            fence.get("error") or tested,
        )
    vote = s["third_vote"]
    table.add_row(
        f"third vote ({vote['kind']})",
        _ok(vote["ok"], "ok", "NONE" if vote["kind"] == "none" else "FAILS"),
        _jurors(vote),
    )
    table.add_row("journals", _ok(s["journals"]["complete"], "complete", "incomplete"), "")
    recovery = s.get("recovery") or {}
    if recovery.get("running") or recovery.get("error"):
        table.add_row("recovery", recovery.get("rung") or "", recovery.get("error") or recovery.get("progress") or "")
    return table


def _ok(ok: bool, good: str, bad: str) -> str:
    return f"[green]{good}[/green]" if ok else f"[yellow]{bad}[/yellow]"


def _heard(ms: float | None) -> str:
    return "never heard" if ms is None else f"heard {ms:.0f} ms ago"


def _jurors(vote: dict[str, Any]) -> str:
    words = [j["name"] if j["ok"] else f"{j['name']}: {j.get('error') or 'silent'}" for j in vote.get("jurors", [])]
    return ", ".join(words) + ("" if vote.get("knows_view", True) or not words else " (does not know the view yet)")


def _switch(last: dict[str, Any]) -> str:
    steps = " · ".join(f"{step['name']} {step['ms']:.0f} ms" for step in last.get("steps", []))
    return f"last switch: {last['kind']} {last.get('from') or '-'} → {last.get('to') or '-'} at {last['utc']} (epoch {last['epoch']}): {steps}"
