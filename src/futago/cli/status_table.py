"""The status of the pair as tables on a terminal: what `futago status` draws.

Lives here: layout and colours. Must not live here: words and judgement, which are the controller's.
"""

from __future__ import annotations

from typing import Any

_COLOUR = {"paired": "green", "solo": "yellow", "blocked": "red", "no-peer": "yellow"}


def draw(s: dict[str, Any], *, clear: bool) -> None:
    """Draw a status. `clear`: on an empty screen."""
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


def _device(fence: dict[str, Any]) -> str:
    """Return what a row of the power devices is about; a member may have several, and a watchdog of its own."""
    level = fence.get("level", 1)
    if level == 0:
        return f"watchdog of {fence['member']}"
    return f"fence of {fence['member']} ({fence['driver']}{f', level {level}' if level > 1 else ''})"


def _surroundings(s: dict[str, Any]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table("what", "state", "", show_header=False)
    for link in s["links"]:
        table.add_row(f"link {link['name']}", _ok(link["up"], "up", "DOWN"), _heard(link.get("last_heard_ms")))
    for fence in s["fences"]:
        age = fence.get("tested_ago_s")
        tested = "never tested" if age is None else f"tested {age:.0f} s ago"
        table.add_row(
            _device(fence),
            _ok(fence["ok"], fence["state"], "FAILS"),
            fence.get("error") or tested,
        )
    vote = s["third_vote"]
    table.add_row(
        f"third vote ({vote['kind']})",
        _ok(vote["ok"], "ok", "NONE" if vote["kind"] == "none" else "FAILS"),
        _jurors(vote),
    )
    journals = s["journals"]
    troubles = "; ".join(journals.get("troubles", []))
    table.add_row("journals", _ok(journals["complete"], "complete", "incomplete"), escape(troubles))
    recovery = s.get("recovery") or {}
    if recovery.get("running") or (recovery.get("error") and s["state"] != "paired"):
        name = f"recovery of {recovery.get('member') or '-'}"
        table.add_row(name, recovery.get("rung") or "", recovery.get("error") or _progress(recovery))
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


def _progress(recovery: dict[str, Any]) -> str:
    percent = recovery.get("percent")
    return ("" if percent is None else f"{percent} %  ") + str(recovery.get("progress") or "")
