"""`futago apply -f FILE...`: load definitions, all or nothing."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from futago.cli.remote import AsJson, Ca, Remote, Servers, TokenFile, way
from futago.runtime.faults import OperatorFault
from futago.web.model import Applied, DefinitionFile, DefinitionFiles, RulesAtWork

APPLY_S = 75.0  # the server gives itself 60
LOOK_S = 0.25
AT_WORK_S_MAX = 600  # ten thousand patterns take half a minute to compile, on a busy machine more
_MESSAGE_KINDS = {"Monitor", "Host", "Scope"}  # what messages are held against
SUFFIXES = {".yaml", ".yml"}


def apply(
    *,
    files: Annotated[
        list[Path], typer.Option("--file", "-f", help="A YAML file, a folder of them, or - (may be repeated).")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and show what would change; change nothing.")
    ] = False,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait",
            help="Return when messages are held against what was applied: until then, a second or, of thousands of"
            " patterns, half a minute, they still meet what was before.",
        ),
    ] = False,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Load definitions from YAML files: all of them, or none. The same files again change nothing."""
    body = DefinitionFiles(files=[part for file in files for part in read_files(file)])
    remote = Remote(way(servers, token_file, ca))
    path = "/apply?dry_run=true" if dry_run else "/apply"
    applied = remote.post(path, Applied, body, is_keyed=True, answer_s=APPLY_S)  # the second time changes nothing
    print(applied.model_dump_json() if as_json else "\n".join(_lines(applied)), flush=True)
    if wait and not dry_run:
        _wait_until_at_work(remote)
        if not as_json:
            print("at work: messages are held against these definitions")
    elif not (dry_run or as_json) and any(
        c.change != "unchanged" and c.kind in _MESSAGE_KINDS for c in applied.changes
    ):
        print("messages are held against them within seconds; --wait waits for that")


def _wait_until_at_work(remote: Remote) -> None:
    until = time.monotonic() + AT_WORK_S_MAX
    while not (found := remote.get("/rules", RulesAtWork)).at_work:
        if time.monotonic() > until:
            raise OperatorFault(
                f"The definitions are applied, but messages are not held against them after {AT_WORK_S_MAX} s.",
                hint="Look at `journalctl -u futago-manager` of the primary for intake.rules.",
                code="apply.not-at-work",
            )
        time.sleep(LOOK_S)
    if found.fault:
        raise OperatorFault(
            f"The definitions are applied, but some patterns are not at work: {found.fault}",
            hint="Correct the monitor and apply again.",
            code="apply.not-at-work",
        )


def read_files(path: Path) -> list[DefinitionFile]:
    """Return the files that a person named: one, those of a folder, or standard input (`-`)."""
    if str(path) == "-":
        return [DefinitionFile(name="<stdin>", text=sys.stdin.read())]
    if path.is_dir():
        inside = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
        if not inside:
            raise OperatorFault(f"{path} holds no .yaml file.", hint="Name another folder.", code="apply.file")
        return [part for p in inside for part in read_files(p)]
    try:
        return [DefinitionFile(name=str(path), text=path.read_text(encoding="utf-8"))]
    except (OSError, UnicodeDecodeError) as e:
        raise OperatorFault(
            f"{path} cannot be read: {e}.",
            hint="Name a text file in UTF-8. Nothing has been changed.",
            code="apply.file",
        ) from e


def _lines(applied: Applied) -> list[str]:
    moved = [f"{c.change:9} {c.kind} {c.name}" for c in applied.changes if c.change != "unchanged"]
    rest = len(applied.changes) - len(moved)
    end = f"{len(moved)} changed, {rest} as before" + (
        " (dry run: nothing has been changed)" if applied.dry_run else ""
    )
    return [*moved, end]
