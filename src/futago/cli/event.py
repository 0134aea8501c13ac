"""`futago event`: list, follow, count and post events."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from futago.cli.remote import AsJson, Ca, Remote, Servers, TokenFile, way
from futago.cli.tables import instant, table
from futago.runtime.faults import WorldFault
from futago.web.model import Event, EventCount, Events, NewEvent, PostedEvent, Priority, Source

event_app = typer.Typer(no_args_is_help=True, help="Show and post events.")

LOOK_S = 1.0
OVERLAP = 1000  # an id is drawn before its commit: look this far back for one that was late
PAGE = 10_000

SourceOption = Annotated[Source | None, typer.Option(help="Only events of this source.")]
MonitorOption = Annotated[str | None, typer.Option(help="Only events of this monitor.")]
HostOption = Annotated[str | None, typer.Option(help="Only events of this host.")]
PriorityOption = Annotated[Priority | None, typer.Option(help="Only events of this priority.")]
Params = dict[str, str | int | None]


@event_app.command("list")
def list_events(
    *,
    source: SourceOption = None,
    monitor: MonitorOption = None,
    host: HostOption = None,
    priority: PriorityOption = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE)] = 50,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """List the latest events, the newest last."""
    params = {**_params(source, monitor, host, priority), "order": "desc", "limit": limit}
    found = Remote(way(servers, token_file, ca)).get("/events", Events, params)
    if as_json:
        print(found.model_dump_json())
        return
    rows = [[e.event_id, *_cells(e)] for e in reversed(found.events)]
    table(["id", "time", "priority", "source", "host", "monitor", "message"], rows)


@event_app.command()
def tail(
    *,
    source: SourceOption = None,
    monitor: MonitorOption = None,
    host: HostOption = None,
    priority: PriorityOption = None,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Follow events until Ctrl-C, through a switch too."""
    remote = Remote(way(servers, token_file, ca))
    for event in follow(remote, _params(source, monitor, host, priority)):
        print(event.model_dump_json() if as_json else "  ".join(_cells(event)), flush=True)


def follow(remote: Remote, params: Params) -> Iterator[Event]:
    """Yield each event that is committed from now on, once."""
    last = remote.get("/events/count", EventCount, params).last_event_id or 0
    seen: set[int] = set(_ids(remote, params, max(0, last - OVERLAP)))
    while True:
        time.sleep(LOOK_S)
        try:
            for event in _after(remote, params, max(0, last - OVERLAP)):
                if event.event_id not in seen:
                    seen.add(event.event_id)
                    yield event
                last = max(last, event.event_id)
        except WorldFault as fault:
            print(f"futago: {fault}; looking again", file=sys.stderr)
        seen = {i for i in seen if i > last - OVERLAP}


def _ids(remote: Remote, params: Params, after: int) -> list[int]:
    return [event.event_id for event in _after(remote, params, after)]


def _after(remote: Remote, params: Params, after: int) -> Iterator[Event]:
    following: int | None = after
    while following is not None:
        page = remote.get("/events", Events, {**params, "after": following, "limit": PAGE})
        yield from page.events
        following = page.next


@event_app.command()
def count(
    *,
    source: SourceOption = None,
    monitor: MonitorOption = None,
    host: HostOption = None,
    priority: PriorityOption = None,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Count events."""
    found = Remote(way(servers, token_file, ca)).get(
        "/events/count", EventCount, _params(source, monitor, host, priority)
    )
    print(found.model_dump_json() if as_json else found.count)


@event_app.command()
def post(
    message: Annotated[str, typer.Argument(help="What happened.")],
    *,
    priority: Annotated[Priority, typer.Option(help="How much it matters.")] = Priority.INFO,
    host: Annotated[str | None, typer.Option(help="Where it happened.")] = None,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Post an event. When this returns, it is committed, once."""
    new = NewEvent(message=message, priority=priority, host=host)
    posted = Remote(way(servers, token_file, ca)).post("/events", PostedEvent, new, is_keyed=True)
    print(posted.model_dump_json() if as_json else f"event {posted.event_id}")


def _params(source: Source | None, monitor: str | None, host: str | None, priority: Priority | None) -> Params:
    return {"source": source, "monitor": monitor, "host": host, "priority": priority}


def _cells(e: Event) -> list[str]:
    return [
        instant(e.occurred_utc),
        e.priority.value,
        e.source.value,
        e.host_name or "-",
        e.monitor_name or "-",
        e.message,
    ]
