"""Tables on a terminal, and the same columns without colour or frame when the output goes elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table

_STYLES = {
    "normal": "green",
    "ok": "green",
    "running": "cyan",
    "ordered": "cyan",
    "starting": "cyan",
    "warning": "yellow",
    "abnormal": "red",
    "critical": "red",
    "unknown": "red",
    "not-run": "dim",
    "waiting": "dim",
    "info": "dim",
}


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under heads."""
    console = Console(highlight=False, soft_wrap=True)
    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for head in heads:
        drawn.add_column(head, overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row))
    if not console.is_terminal:
        console.width = 400
    console.print(drawn)


def _cell(value: object) -> str:
    text = "" if value is None else str(value).replace("[", r"\[")
    style = _STYLES.get(text)
    return f"[{style}]{text}[/]" if style else text


def instant(when: datetime | None) -> str:
    """Return an instant in local time, to the second."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S") if when else ""


def took(begin: datetime | None, end: datetime | None) -> str:
    """Return the time between two instants; empty if either is missing."""
    return f"{(end - begin).total_seconds():.1f} s" if begin and end else ""
