"""Write rest.md and faults.md beside this file, from the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from futago.web.app import make_app
from futago.web.rooms import Rooms

HERE = Path(__file__).parent
SOURCE = HERE.parent.parent / "src/futago"


def rest() -> str:
    """Return the routes as a table. The description needs no running system, so no rooms."""
    paths = make_app(cast(Rooms, None)).openapi()["paths"]
    rows = [
        f"| {method.upper()} | `{path}` | {route['description'].splitlines()[0]} |"
        for path, methods in sorted(paths.items())
        for method, route in methods.items()
    ]
    return "\n".join(["# REST", "", "| | Route | What it does |", "|---|---|---|", *rows, ""])


def _codes(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        words = {k.arg: k.value for k in call.keywords}
        code = words.get("code")
        if isinstance(code, ast.Constant) and isinstance(code.value, str) and "." in code.value:
            hint = words.get("hint")
            yield code.value, hint.value if isinstance(hint, ast.Constant) and isinstance(hint.value, str) else ""


def faults() -> str:
    """Return the codes with the first plain hint that goes with each."""
    found: dict[str, tuple[str, str]] = {}
    for file in sorted(SOURCE.rglob("*.py")):
        room = file.relative_to(SOURCE).with_suffix("").as_posix()
        for code, hint in _codes(ast.parse(file.read_text(encoding="utf-8"))):
            known = found.get(code, (room, ""))
            found[code] = (known[0], known[1] or hint)
    rows = [
        f"| `{code}` | {room} | {hint.replace('|', chr(92) + '|')} |" for code, (room, hint) in sorted(found.items())
    ]
    return "\n".join(["# Faults", "", "| Code | From | What to do |", "|---|---|---|", *rows, ""])


if __name__ == "__main__":
    (HERE / "rest.md").write_text(rest(), encoding="utf-8")
    (HERE / "faults.md").write_text(faults(), encoding="utf-8")
