"""Starting a job net on the page: a list of nets, a form with the net's parameters, and then the new run.

The form carries a key that was drawn when it was shown. Pressed twice, or again after no answer, it starts one run.
"""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from futago.jobs.parameters import VARIABLES_MAX, Parameter
from futago.runtime.faults import OperatorFault
from futago.store.commit import Connection
from futago.web import net_starts
from futago.web.allow import JobStarter
from futago.web.faults import HttpFault, bad_request, body_of, not_found
from futago.web.owners import check_net
from futago.web.pages.run_page import run_shown
from futago.web.render import render
from futago.web.rooms import InRooms, Rooms

router = APIRouter()

KEY_CHARS_MAX = 200
PREFIX = "p."  # of the fields that are parameters
NetInPath = Annotated[str, Path(max_length=63)]


@router.get("/parts/job-nets")
async def nets_part(
    request: Request, rooms: InRooms, who: JobStarter, *, text: Annotated[str, Query(max_length=63)] = ""
) -> Response:
    """The nets that somebody may start, those with a text in their name if one is given."""

    async def work(conn: Connection) -> list[net_starts.NetRow]:
        return await net_starts.nets(conn, who, text.strip())

    found = await rooms.serving.require().store.read(work, name="web.nets", deadline_s=5)
    shown = found[: net_starts.NETS_SHOWN]
    return render(request, "parts/nets.html", nets=shown, has_more=len(found) > len(shown), text=text)


@router.get("/parts/job-nets/{name}/start")
async def form_part(request: Request, rooms: InRooms, who: JobStarter, name: NetInPath) -> Response:
    """The form of a net, with its defaults and a new key."""

    async def work(conn: Connection) -> dict[str, Parameter] | None:
        await check_net(conn, who, name)
        return await net_starts.parameters_of(conn, name)

    try:
        parameters = await rooms.serving.require().store.read(work, name="web.net_form", deadline_s=5)
    except OperatorFault as fault:
        return _form(request, name, None, refused=fault)
    if parameters is None:
        raise not_found(f"There is no job net `{name}`.")
    return _form(request, name, net_starts.empty_form(parameters), key=str(uuid.uuid4()))


@router.post("/parts/job-nets/{name}/start")
async def start(request: Request, rooms: InRooms, who: JobStarter, name: NetInPath) -> Response:
    """Start a net and show its run; or show the form again, with what is wrong beside each field."""
    key, said = await _said(request)
    try:
        parameters = await _parameters(rooms, name)
        given = net_starts.given_of(parameters or {}, said)
        started = await net_starts.start(rooms, who, name, given, by="page", key=key)
    except HttpFault as fault:
        if fault.status is not HTTPStatus.FORBIDDEN:
            raise
        return _form(request, name, None, refused=fault)
    except OperatorFault as fault:
        parameters = await _parameters(rooms, name)
        if parameters is None:
            return _form(request, name, None, refused=fault)
        fields = net_starts.judged_form(parameters, net_starts.given_of(parameters, said))
        is_beside = fault.code == "jobs.parameter" and any(field.fault for field in fields)
        return _form(request, name, fields, key=key, refused=None if is_beside else fault)
    return await run_shown(request, rooms, who, started.session_id, is_repeated=started.repeated)


async def _said(request: Request) -> tuple[str, dict[str, str]]:
    """Return the form's key, and what stands in its fields.

    Raises:
        HttpFault: it is not a form of this page.
    """
    async with request.form(max_files=0, max_fields=VARIABLES_MAX + 10) as form:
        texts = {name: value for name, value in form.items() if isinstance(value, str)}
    key = texts.pop("key", "")
    if not 0 < len(key) <= KEY_CHARS_MAX or "\0" in key:
        raise bad_request("The form has no key.", hint="Open it again.")
    return key, {name.removeprefix(PREFIX): value for name, value in texts.items() if name.startswith(PREFIX)}


async def _parameters(rooms: Rooms, net: str) -> dict[str, Parameter] | None:
    async def work(conn: Connection) -> dict[str, Parameter] | None:
        return await net_starts.parameters_of(conn, net)

    return await rooms.serving.require().store.read(work, name="web.net_parameters", deadline_s=5)


def _form(
    request: Request,
    net: str,
    fields: list[net_starts.Field] | None,
    *,
    key: str = "",
    refused: OperatorFault | None = None,
) -> Response:
    """Show the form; no fields: only why there is none."""
    error = body_of(refused) if refused else None
    return render(request, "parts/net_start.html", net=net, fields=fields, key=key, refused=error)
