"""`futago tail`: the messages that devices send, as they come, from the journals of this member."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer

from futago.intake.mib_names import MibNames
from futago.intake.model import Protocol
from futago.intake.watch import Shown, Watch, of_this_member
from futago.runtime.faults import OperatorFault, WorldFault
from futago.setup import paths, settings

LOOK_S = 0.2
# As a superuser: the gate does not close to it, and on a standby nothing else is let in.
_DATABASE = f"host={paths.PG_SOCKET_DIR} port={paths.PORT_POSTGRES} dbname=futago user=postgres"
_KINDS = {Protocol.SNMP_UDP: "snmptrap", Protocol.CUSTOM_TRAP: "customtrap"}


def tail(
    *,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="So many of the last messages first.")] = 10,
    follow: Annotated[bool, typer.Option(help="Go on until Ctrl-C.")] = True,
    source: Annotated[str | None, typer.Option(help="Only messages from this address.")] = None,
    match: Annotated[str | None, typer.Option(help="Only messages that match this regular expression.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show the messages that devices send, as they come, each once. Run it on a member, as root."""
    wanted = _pattern(match)
    try:
        for one in messages(
            of_this_member(settings.load(), _names()), lines, is_following=follow, source=source, wanted=wanted
        ):
            print(as_text(one) if not as_json else _as_json(one), flush=True)
    except PermissionError as e:
        raise OperatorFault(f"{e.filename} cannot be read.", hint="Use sudo.", code="tail.permission") from e


def messages(
    watch: Watch, lines: int, *, is_following: bool, source: str | None, wanted: re.Pattern[str] | None
) -> Iterator[Shown]:
    """Yield the last messages that are wanted, then each new one."""

    def polled() -> Iterator[Shown]:
        for one in watch.poll():
            if (source is None or one.source == source) and (wanted is None or wanted.search(one.text)):
                yield one

    yield from deque(polled(), maxlen=lines)
    while is_following:
        time.sleep(LOOK_S)
        yield from polled()


def as_text(one: Shown) -> str:
    """Return one line for people: time, address, kind, text."""
    text = one.text.replace("\n", "\\n").replace("\r", "\\r")
    return f"{_instant(one)}  {one.source}  {_KINDS.get(one.protocol, 'syslog')}  {text}"


def _as_json(one: Shown) -> str:
    shown = {"at": _instant(one), "source": one.source, "protocol": one.protocol.name.lower(), "member": one.member}
    return json.dumps({**shown, "text": one.text}, ensure_ascii=False)


def _instant(one: Shown) -> str:
    return datetime.fromtimestamp(one.at_ns / 1e9, UTC).astimezone().isoformat(timespec="milliseconds")


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text is not None else None
    except re.error as e:
        raise OperatorFault(
            f"`{text}` is not a regular expression: {e}.", hint="Correct --match.", code="tail.pattern"
        ) from e


def _names() -> MibNames:
    """Return the names of the loaded MIB modules; none where this machine's database does not run."""
    from futago.intake.mib_store import names_here

    try:
        return asyncio.run(names_here(_DATABASE))
    except WorldFault as e:
        print(f"futago: traps are shown in numbers, as the database is not to be read: {e}", file=sys.stderr)
        return MibNames()
