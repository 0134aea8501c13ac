"""`futago export` and `futago diff`: the definitions that the pair has, as YAML, and how they differ from files."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from futago.cli.apply import read_files
from futago.cli.remote import AsJson, Ca, Remote, Servers, TokenFile, way
from futago.inventory.definitions import Definition, complaint, parse
from futago.inventory.model import Kind
from futago.inventory.text import as_yaml
from futago.runtime.faults import OperatorFault
from futago.web.model import Exported

_STYLES = {"+": "green", "-": "red", "@": "cyan"}

Kinds = Annotated[list[Kind] | None, typer.Option("--kind", help="Only objects of this kind (may be repeated).")]


def export(
    names: Annotated[list[str] | None, typer.Argument(help="Only objects of these names; none: all.")] = None,
    *,
    kinds: Kinds = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead.")] = None,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Print the definitions that the pair has as YAML that `futago apply` takes again."""
    found = _exported(Remote(way(servers, token_file, ca)), kinds or [], names or [])
    if names and not found.objects:
        raise OperatorFault(
            f"The pair has no object named {', '.join(names)}.", hint="`futago export` shows all.", code="export.none"
        )
    text = found.model_dump_json() + "\n" if as_json else _text(found)
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as e:
        raise OperatorFault(f"{output} cannot be written: {e}.", hint="Name another file.", code="export.file") from e


def diff(
    *,
    files: Annotated[
        list[Path], typer.Option("--file", "-f", help="A YAML file, a folder of them, or - (may be repeated).")
    ],
    extra: Annotated[
        bool, typer.Option("--extra", help="Show also what the pair has and the files do not name.")
    ] = False,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Show what `futago apply` of these files would change, line by line. Exit code 0: nothing, 1: something.

    Both sides are written in the same form, so comments, the order of fields and values equal to the defaults are no
    difference. References between objects are not checked: `futago apply --dry-run` does that.
    """
    wanted = {(str(d.kind), d.name): as_yaml([(d.kind, d.object)]) for d in _parsed(files)}
    kinds = [] if extra else sorted({Kind(kind) for kind, _ in wanted})
    there = {(o.kind, o.name): o.text for o in _exported(Remote(way(servers, token_file, ca)), kinds, []).objects}
    changes: list[tuple[str, str, str, list[str]]] = []
    for key in sorted(wanted.keys() | (there.keys() if extra else set())):
        before, after = there.get(key, ""), wanted.get(key, "")
        if before != after:
            change = "created" if not before else "not in the files" if not after else "changed"
            changes.append((change, *key, _lines(key, before, after)))
    _tell(changes, as_json=as_json)
    raise typer.Exit(1 if changes else 0)


def _exported(remote: Remote, kinds: list[Kind], names: list[str]) -> Exported:
    words = {"kinds": ",".join(kinds) or None, "names": ",".join(names) or None}
    return remote.get("/definitions", Exported, dict(words))


def _text(found: Exported) -> str:
    return "---\n".join(o.text for o in found.objects)


def _parsed(files: list[Path]) -> list[Definition]:
    found: list[Definition] = []
    complaints: list[str] = []
    for part in (part for file in files for part in read_files(file)):
        try:
            found += parse(part.text, file=part.name)
        except OperatorFault as fault:
            complaints += fault.what.splitlines()
    if complaints:
        raise complaint(complaints)
    return found


def _lines(key: tuple[str, str], before: str, after: str) -> list[str]:
    name = f"{key[0]} {key[1]}"
    return list(
        difflib.unified_diff(before.splitlines(), after.splitlines(), f"pair: {name}", f"files: {name}", lineterm="")
    )


def _tell(changes: list[tuple[str, str, str, list[str]]], *, as_json: bool) -> None:
    if as_json:
        rows = [{"change": c, "kind": kind, "name": name, "diff": "\n".join(diff)} for c, kind, name, diff in changes]
        print(json.dumps({"changes": rows}, ensure_ascii=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    for _, _, _, lines in changes:
        for line in lines:
            console.print(Text(line, style=_STYLES.get(line[:1], "")))
    if not changes:
        console.print("no difference")
