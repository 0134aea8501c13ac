"""`futago schedule`: which schedules there are, and what they will start."""

from __future__ import annotations

from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from futago.cli.remote import AsJson, Ca, Remote, Servers, TokenFile, way
from futago.cli.tables import instant, table
from futago.web.job_model import PlannedStart, Schedules, Upcoming

schedule_app = typer.Typer(no_args_is_help=True, help="Show schedules and the starts that they will make.")


@schedule_app.command("list")
def list_schedules(
    servers: Servers = None, token_file: TokenFile = None, ca: Ca = None, as_json: AsJson = False
) -> None:
    """List the schedules, each with its next start in local time."""
    found = Remote(way(servers, token_file, ca)).get("/schedules", Schedules)
    if as_json:
        print(found.model_dump_json())
        return
    rows = [
        [s.schedule_name, s.job_net, "yes" if s.enabled else "no", s.timezone, instant(s.next_utc)]
        for s in found.schedules
    ]
    table(["schedule", "job net", "enabled", "time zone", "next start"], rows)
    for complaint in found.unreadable:
        print(f"unreadable: {complaint}")


@schedule_app.command("upcoming")
def show_upcoming(
    *,
    days: Annotated[int, typer.Option(min=1, max=400, help="How far ahead.")] = 7,
    limit: Annotated[int, typer.Option(min=1, max=5000, help="How many starts at most.")] = 500,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """List the starts of the next days, as they will be made if nothing is changed meanwhile.

    Times are those of each schedule's own time zone; the business date is the date whose work it is.
    """
    found = Remote(way(servers, token_file, ca)).get("/schedules/upcoming", Upcoming, {"days": days, "limit": limit})
    if as_json:
        print(found.model_dump_json())
        return
    rows = [[_local(s), s.business_date, s.schedule_name, s.job_net] for s in found.starts]
    table(["start", "business date", "schedule", "job net"], rows)
    if not found.is_complete:
        print(f"... and more; these are the first {limit} (--limit)")


def _local(start: PlannedStart) -> str:
    return start.at_utc.astimezone(ZoneInfo(start.timezone)).strftime("%Y-%m-%d %H:%M:%S %Z")
