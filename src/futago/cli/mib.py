"""`futago mib`: load MIB files, so that traps are shown with names; list, show and remove what is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from futago.cli.remote import AsJson, Ca, Remote, Servers, TokenFile, way
from futago.cli.tables import instant, table
from futago.intake.mib_compile import DEADLINE_S
from futago.runtime.faults import OperatorFault
from futago.web.mib_model import MibFile, MibFiles, Mibs, MibShown

mib_app = typer.Typer(no_args_is_help=True, help="Load MIB files, so that traps are shown with names.")

ANSWER_S = DEADLINE_S + 60
Name = Annotated[str, typer.Argument(help="Name of a module, as in `IF-MIB`.")]


@mib_app.command()
def load(
    files: Annotated[list[Path], typer.Argument(help="MIB files, or folders of them.")],
    *,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Load the modules in MIB files: all of them, or none.

    Modules that they import must be among them, or loaded before; the basic ones (SNMPv2-SMI, SNMPv2-TC, SNMPv2-CONF,
    SNMPv2-MIB, SNMP-FRAMEWORK-MIB, INET-ADDRESS-MIB, HCNUM-TC, and those of SNMPv1) are there. A module that was loaded
    before is replaced. It takes effect within seconds, without a restart; messages that had their effect stay as they are.
    """
    body = MibFiles(files=[one for file in files for one in _read(file)])
    remote = Remote(way(servers, token_file, ca))
    found = remote.post("/mibs", Mibs, body, is_keyed=True, answer_s=ANSWER_S)  # the second time changes nothing
    _print(found, as_json=as_json)


@mib_app.command("list")
def list_mibs(servers: Servers = None, token_file: TokenFile = None, ca: Ca = None, as_json: AsJson = False) -> None:
    """List the loaded modules."""
    _print(Remote(way(servers, token_file, ca)).get("/mibs", Mibs), as_json=as_json)


@mib_app.command()
def show(
    name: Name, *, servers: Servers = None, token_file: TokenFile = None, ca: Ca = None, as_json: AsJson = False
) -> None:
    """Show what a loaded module names: notifications with their objects, and objects with their values."""
    found = Remote(way(servers, token_file, ca)).get(f"/mibs/{name}", MibShown)
    if as_json:
        print(found.model_dump_json())
        return
    rows = [
        [
            node.oid,
            node.name,
            "notification" if node.is_notification else "object",
            " ".join(node.objects)
            or ", ".join(f"{word}({number})" for number, word in node.values.items())
            or node.hint,
        ]
        for node in found.nodes
    ]
    table(["oid", "name", "kind", "objects, values or hint"], rows)


@mib_app.command()
def remove(
    name: Name, *, servers: Servers = None, token_file: TokenFile = None, ca: Ca = None, as_json: AsJson = False
) -> None:
    """Remove a loaded module that no other imports."""
    remote = Remote(way(servers, token_file, ca))
    _print(remote.post(f"/mibs/{name}/remove", Mibs), as_json=as_json)


def _read(path: Path) -> list[MibFile]:
    if path.is_dir():
        inside = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
        if not inside:
            raise OperatorFault(f"{path} holds no file.", hint="Name another folder.", code="mib.file")
        return [part for one in inside for part in _read(one)]
    try:
        data = path.read_bytes()
    except OSError as e:
        raise OperatorFault(f"{path} cannot be read: {e}.", hint="Nothing was loaded.", code="mib.file") from e
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # old files; only comments and descriptions hold such characters
    return [MibFile(name=str(path), text=text.replace("\0", ""))]


def _print(found: Mibs, *, as_json: bool) -> None:
    if as_json:
        print(found.model_dump_json())
        return
    rows = [[m.mib_name, m.names, m.notifications, instant(m.loaded_utc), m.loaded_by, m.file_name] for m in found.mibs]
    table(["module", "names", "notifications", "loaded", "by", "file"], rows)
