"""`futago messages`: search what devices sent, as far as it is kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from futago.cli.remote import AsJson, Ca, Remote, Servers, TokenFile, way
from futago.cli.tables import instant, table
from futago.inventory.duration import parse_duration
from futago.runtime.clock import now_utc
from futago.runtime.faults import OperatorFault
from futago.web.message_model import KeptMessages, Message, Messages

messages_app = typer.Typer(no_args_is_help=True, help="Search the received messages that are kept.")

PAGE = 1000
_AGO = re.compile(r"[0-9smhd]+\Z")
When = Annotated[str | None, typer.Option(metavar="TIME", help="2026-11-22T18:00, or so long ago: 90m, 2h, 3d.")]
Params = dict[str, str | int | None]


@messages_app.command()
def search(
    *,
    words: Annotated[list[str] | None, typer.Argument(help="Parts that all occur in the text, in any case.")] = None,
    host: Annotated[str | None, typer.Option(help="Only messages of this host.")] = None,
    kind: Annotated[str | None, typer.Option(help="syslog or snmptrap.")] = None,
    severity: Annotated[
        int | None, typer.Option(min=0, max=7, help="Syslog: at least as grave (0 emergency to 7 debug).")
    ] = None,
    since: When = None,
    until: When = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000_000, help="So many of the newest.")] = 100,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Find kept messages and show them, the newest last; with --json one a line, the newest first."""
    quoted = " ".join(f'"{word}"' for part in words or [] for word in part.split('"') if word.strip())
    params: Params = {"text": quoted, "host": host, "kind": kind, "severity": severity}
    params |= {"since_utc": _instant(since, "--since"), "until_utc": _instant(until, "--until")}
    found = pages(Remote(way(servers, token_file, ca)), params, limit)
    if as_json:
        for one in found:
            print(one.model_dump_json(), flush=True)
        return
    for one in reversed(list(found)):
        text = one.text.replace("\n", "\\n").replace("\r", "\\r")
        print(f"{instant(one.received_utc)}  {one.host_name}  {one.kind}  {text}")


@messages_app.command()
def kept(*, servers: Servers = None, token_file: TokenFile = None, ca: Ca = None, as_json: AsJson = False) -> None:
    """Show how many messages are kept, from when on, and how much disk they take."""
    found = Remote(way(servers, token_file, ca)).get("/messages/kept", KeptMessages)
    if as_json:
        print(found.model_dump_json())
        return
    row = [found.rows, found.segments, found.not_indexed, f"{found.bytes / 1e6:.1f} MB"]
    times = [instant(at) if at is not None else "" for at in (found.from_utc, found.to_utc)]
    table(["messages", "segments", "not indexed", "disk", "from", "to"], [[*row, *times]])


def pages(remote: Remote, params: Params, limit: int) -> Iterator[Message]:
    """Yield what is found, the newest first, page after page."""
    before: int | None = None
    while limit > 0:
        page = remote.get("/messages", Messages, {**params, "before": before, "limit": min(limit, PAGE)})
        yield from page.messages
        limit -= len(page.messages)
        before = page.next
        if before is None:
            return


def _instant(text: str | None, option: str) -> str | None:
    """Return a time as the API takes it."""
    if text is None:
        return None
    try:
        at = _ago(text) if _AGO.match(text) and not text.isdigit() else datetime.fromisoformat(text)
    except ValueError as e:
        raise OperatorFault(
            f"{option} `{text}` is not a time.", hint="Write 2026-11-22T18:00, or 90m, 2h, 3d.", code="messages.time"
        ) from e
    return at.astimezone(UTC).isoformat()


def _ago(text: str) -> datetime:
    length: timedelta = parse_duration(text)
    return now_utc() - length
