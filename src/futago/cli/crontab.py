"""`futago job import-crontab`: a crontab file as YAML that `futago apply` takes, and what cron does otherwise."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml

from futago.inventory.definitions import parse
from futago.jobs import crontab
from futago.runtime.faults import OperatorFault

_LOCALTIME = Path("/etc/localtime")
EXIT_LOST = 1


def import_crontab(
    file: Annotated[Path, typer.Argument(help="The crontab file, as `crontab -l` prints it; - for standard input.")],
    *,
    host: Annotated[str, typer.Option(help="The host on which the jobs shall run.")],
    system: Annotated[
        bool, typer.Option("--system", help="The sixth field is a user: /etc/crontab, /etc/cron.d.")
    ] = False,
    user: Annotated[str, typer.Option(help="As whom the jobs shall run; whose crontab it is.")] = "",
    timezone: Annotated[str, typer.Option(help="In which its times are meant. Default: that of this machine.")] = "",
    prefix: Annotated[str, typer.Option(help="Begins the names of all objects.")] = "cron",
) -> None:
    """Print a crontab file as job nets and schedules in YAML, a net and a schedule for each line.

    Remarks, with their lines, go to standard error: what cannot be expressed, and what cron does otherwise. Exit code 1 if
    a line is not in the result.
    """
    origin = crontab.Origin(host, timezone or local_zone(), user, system, prefix)
    found = crontab.read(_read(file), origin)
    text = as_text(found, str(file))
    parse(text, file=str(file))  # what cannot be applied is not printed
    print(text, end="")
    for remark in sorted(found.remarks, key=lambda r: r.line):
        sys.stderr.write(f"{file}:{remark.line}: {'LEFT OUT: ' * remark.is_lost}{remark.text}\n")
    sys.stderr.write(f"{len(found.entries)} job nets; load them with `futago apply -f FILE`, then empty the crontab\n")
    if any(r.is_lost for r in found.remarks):
        raise typer.Exit(EXIT_LOST)


def as_text(found: crontab.Imported, name: str) -> str:
    """Return the YAML: each line of the file as a comment above what it became."""
    texts = [
        f"# {name}:{e.line}: {e.source}\n" + "---\n".join(_document(part) for part in (e.net, e.schedule))
        for e in found.entries
    ]
    return "---\n".join(texts)


def _document(fields: dict[str, object]) -> str:
    return str(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000))


def local_zone() -> str:
    """Return the name of this machine's time zone; UTC if it has none with a name."""
    zone = os.environ.get("TZ", "").removeprefix(":")
    if zone:
        return zone
    try:
        target = os.path.realpath(_LOCALTIME)
    except OSError:
        return "UTC"
    _, _, name = target.partition("/zoneinfo/")
    return name or "UTC"


def _read(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise OperatorFault(
            f"{file} cannot be read: {e}.", hint="Name a crontab file in UTF-8.", code="crontab.file"
        ) from e
