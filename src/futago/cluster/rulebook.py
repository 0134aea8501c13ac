"""The rule table as text, for people: docs/internals/cluster.md carries it, and a test keeps the two the same."""

from __future__ import annotations

from collections.abc import Iterator

from futago.cluster.rules import SECTIONS, Row


def markdown() -> str:
    """Return the whole table as Markdown, one section after the other, rows in the order in which they are tried."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    number = 0
    for section in SECTIONS:
        yield f"### {section.name[0].upper()}{section.name[1:]}"
        yield ""
        yield "| No. | Rule | Why | State | Waits for | Command |"
        yield "|---|---|---|---|---|---|"
        for row in section.rows:
            number += 1
            yield f"| {number} | `{row.id}` | {_why(row)} | {row.state.value} | {row.waits_for} | {_command(row)} |"
        yield ""


def _why(row: Row) -> str:
    return row.why.format(me="A", peer="B", epoch="e")


def _command(row: Row) -> str:
    return f"`{row.command}`" if row.command else ""


if __name__ == "__main__":
    print(markdown(), end="")  # noqa: T201  run by hand to write the docs
