"""Triggers: what they are, the secrets of those that wait for requests, and the requests themselves.

A hook's secret opens nothing but its own trigger, so it may be given to a program elsewhere that is trusted with
nothing else. A trigger takes its secret itself or signatures made with it, never both: a signed one's secret does not
travel, and who has learnt what we keep of the secret of the other kind cannot sign with it.
"""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Request, Response

from futago.access import store as rows
from futago.access.model import AccessRole, AccountName, Principal, Via
from futago.access.tokens import draw_secret, hash_secret
from futago.jobs.deliveries import Copied, Delivery
from futago.jobs.file_triggers import read_states
from futago.jobs.hook_signature import (
    GITHUB_EVENT,
    GITHUB_HEADER,
    HEADER,
    WINDOW_S,
    Signature,
    github_key,
    is_githubs,
    is_ping,
    read_github,
    read_signature,
)
from futago.jobs.sessions import Opened
from futago.jobs.trigger_definitions import OnRequest
from futago.jobs.trigger_definitions import Trigger as Definition
from futago.jobs.triggers import put_secret, read_trigger, read_triggers, start_by_request
from futago.runtime.clock import now_utc
from futago.runtime.unreadable import UNREADABLE
from futago.store.commit import Connection
from futago.web.allow import SCHEMES, Definer, Reader
from futago.web.faults import HttpFault, bad_request, conflict, not_found, not_logged_in
from futago.web.identity import address_of
from futago.web.job_model import Started, Trigger, Triggers, TriggerSecret
from futago.web.owners import hidden_nets
from futago.web.rooms import InRooms

open_router = APIRouter(tags=["jobs"])
router = APIRouter(tags=["jobs"], dependencies=SCHEMES)

KEY_CHARS_MAX = 200
NameInPath = Annotated[str, Path(max_length=63)]


@router.get("/triggers")
async def triggers(rooms: InRooms, who: Reader) -> Triggers:
    """Return the triggers of the nets that the reader has a part in."""

    async def work(
        conn: Connection,
    ) -> tuple[list[tuple[Definition, datetime | None]], dict[str, tuple[datetime | None, str]]]:
        hidden = await hidden_nets(conn, who)
        return [pair for pair in await read_triggers(conn) if pair[0].job_net not in hidden], await read_states(conn)

    found, watched = await rooms.serving.require().store.read(work, name="web.triggers")
    return Triggers(
        triggers=[
            Trigger(
                trigger_name=trigger.name,
                job_net=trigger.job_net,
                enabled=trigger.enabled,
                waits_for="event" if trigger.event else "file" if trigger.file else "webhook",
                secret_since_utc=since,
                watched_since_utc=watched.get(trigger.name, (None, ""))[0],
                fault=watched.get(trigger.name, (None, ""))[1],
                spec=trigger.model_dump(mode="json", exclude_defaults=True),
            )
            for trigger, since in found
        ]
    )


@router.post("/triggers/{name}/secret")
async def new_secret(name: NameInPath, rooms: InRooms, who: Definer) -> TriggerSecret:
    """Draw a new secret for a trigger that waits for requests; the one before is worth nothing from now on. It is shown
    this once.
    """
    secret = draw_secret()

    async def work(conn: Connection) -> OnRequest:
        found = await read_trigger(conn, name)
        if found is None or found[0].webhook is None:
            raise not_found(f"There is no trigger `{name}` that waits for requests.")
        await put_secret(conn, name, hash_secret(secret))
        await rows.record(conn, who, rows.Deed("trigger.secret", name))
        return found[0].webhook

    webhook = await rooms.serving.require().store.commit(work, name="web.trigger_secret")
    shown = github_key(hash_secret(secret)) if webhook.signed == "github" else secret
    return TriggerSecret(trigger_name=name, path=f"/api/v1/hooks/{name}", secret=shown)


@open_router.post(
    "/hooks/{name}",
    status_code=201,
    response_model=Started,
    responses={
        200: {"model": Started, "description": "The key was known: this is the run of then."},
        204: {"description": "GitHub's ping: nothing is started."},
        401: {"description": "No such trigger, or not its secret."},
        409: {"description": "A copy of a signed request under another delivery id: nothing is started."},
        504: {"description": "The outcome is unknown: repeat with the same key."},
    },
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}},
)
async def hook(name: NameInPath, request: Request, response: Response, rooms: InRooms) -> Started | Response:
    """Start the net of a trigger: with its secret, or signed with it, and JSON of which the trigger takes parameters.

    The secret is sent as `Authorization: Bearer SECRET`; where the trigger wants signatures, the request brings
    `Futago-Signature: t=TIME,v1=HMAC` instead, or `X-Hub-Signature-256: sha256=HMAC`, as GitHub does. The header
    `Idempotency-Key`, or the one that the trigger names, makes a repetition safe. A signed request without it has its
    signature as its key, so no copy of it starts anything.
    """
    store = rooms.serving.require().store
    offered = _offered(request)
    found = await store.read(lambda conn: read_trigger(conn, name), name="web.hook")
    content = await request.body()
    trigger, key, delivery = _admitted(offered, found, request, content)
    if len(key) > KEY_CHARS_MAX:
        raise bad_request(f"A key has {KEY_CHARS_MAX} characters at most.")
    body = await _body(content)
    if delivery is not None and is_ping(request.headers.get(GITHUB_EVENT, ""), body):
        return Response(status_code=204)
    hooked = Principal(AccountName(f"hook:{name}"), AccessRole.OPERATOR, Via.TOKEN, address_of(request))

    async def work(conn: Connection) -> Opened:
        opened = await start_by_request(conn, trigger, body, key, delivery)
        # A repetition writes, too: only what writes is answered after the standby has it, and with it the run of then.
        action = "job-net.run" if opened.is_new else "job-net.run.repeated"
        await rows.record(conn, hooked, rows.Deed(action, trigger.job_net, {"session_id": opened.session_id}))
        return opened

    try:
        opened = await store.commit(work, name="web.hook")
    except Copied as e:
        deed = rows.Deed("job-net.run.refused", trigger.job_net, {"copy_of": e.session_id})
        await store.commit(lambda conn: rows.record(conn, hooked, deed), name="web.refused")
        raise conflict(e.what, hint=e.hint, code="jobs.copied-request") from e
    response.status_code = 201 if opened.is_new else 200
    return Started(session_id=opened.session_id, repeated=not opened.is_new)


@dataclass(frozen=True, slots=True)
class Offered:
    """What a request brings to be let in: the hash of a secret, a signature of now, or one in GitHub's way, 32 bytes."""

    secret_hash: bytes | None = None
    signature: Signature | None = None
    github: bytes | None = None


def _offered(request: Request) -> Offered:
    """Return what a request brings; who brings nothing, or something old, costs the database nothing."""
    signed = request.headers.get(HEADER)
    if signed is not None:
        signature = read_signature(signed)
        if signature is None:
            raise bad_request(f"`{HEADER}` is written `t=SECONDS,v1=HEX`.", code="access.signature")
        if not signature.is_of_now(now_utc().timestamp()):
            raise HttpFault(
                HTTPStatus.UNAUTHORIZED,
                f"The request was signed more than {WINDOW_S} s before or after now.",
                hint="Sign it again; if it was signed just now, look at the clocks.",
                code="access.signature-time",
            )
        return Offered(signature=signature)
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    github = request.headers.get(GITHUB_HEADER)
    if kind.lower() == "bearer" and secret.strip():
        return Offered(secret_hash=hash_secret(secret.strip()), github=read_github(github or ""))
    if github is None:
        raise not_logged_in()
    mac = read_github(github)
    if mac is None:
        raise bad_request(f"`{GITHUB_HEADER}` is written `sha256=HEX`.", code="access.signature")
    return Offered(github=mac)


def _admitted(
    offered: Offered, found: tuple[Definition, bytes | None] | None, request: Request, content: bytes
) -> tuple[Definition, str, Delivery | None]:
    """Return the trigger and the request's key if this is its secret, or signed with it; and, of one that is signed in
    GitHub's way, what to remember it by. Whether there is such a trigger is told to nobody else.
    """
    known = found[1] if found is not None else None
    if found is None or found[0].webhook is None or known is None:
        raise not_logged_in()
    trigger, webhook = found[0], found[0].webhook
    key = request.headers.get(webhook.key, "")
    if webhook.signed == "github":
        if offered.github is None or not is_githubs(offered.github, bytes(known), content):
            raise not_logged_in()
        return trigger, key or f"signature:{offered.github.hex()}", Delivery(offered.github, key)
    if webhook.signed:
        path = f"/api/v1/hooks/{trigger.name}"
        signature = offered.signature
        if signature is None or not signature.is_genuine(bytes(known), path=path, key=key, body=content):
            raise not_logged_in()
        return trigger, key or f"signature:{signature.mac.hex()}", None
    if offered.secret_hash is None or not hmac.compare_digest(bytes(known), offered.secret_hash):
        raise not_logged_in()
    return trigger, key, None


async def _body(content: bytes) -> dict[str, Any]:
    if not content.strip():
        return {}
    try:
        body = await asyncio.to_thread(msgspec.json.decode, content)
    except UNREADABLE as e:
        raise bad_request(f"The body is not JSON: {e}.") from e
    if not isinstance(body, dict):
        raise bad_request("The body is JSON, but not an object.")
    return body
