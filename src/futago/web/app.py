"""The web program: `futago run web`, on both members, always.

It builds the application, listens on 443 with the member's own certificate, and runs beside it the loops that follow
the role, look at the pair, carry out operations and beat. It serves while this member is primary with an open gate and
refuses at once otherwise; nothing in it decides anything about the pair.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI
from starlette.staticfiles import StaticFiles

from futago import __version__
from futago.runtime import service
from futago.runtime.faults import OperatorFault
from futago.runtime.log import Log
from futago.runtime.role import RoleWatch
from futago.setup import paths
from futago.setup.settings import Settings, load
from futago.store.commit import Store
from futago.web import housekeeping, refusals
from futago.web.api import (
    accounts,
    definitions,
    events,
    hosts,
    job_history,
    job_operations,
    jobs,
    messages,
    mibs,
    monitoring,
    orders,
    pair,
    people,
    schedules,
    traps,
    triggers,
)
from futago.web.controller_link import ControllerLink
from futago.web.guard import Guard
from futago.web.identity import Identity
from futago.web.live import Live
from futago.web.model import DefinitionFiles, ErrorBody
from futago.web.operations import Operations
from futago.web.pages import language, login, messages_page, overview, pair_orders, run_page, start_page
from futago.web.pulse import Pulse
from futago.web.render import STATIC
from futago.web.rooms import Rooms
from futago.web.serving import OpenStore, Serving

KEEP_ALIVE_S = 30
SHUTDOWN_S = 1  # streams do not end by themselves
CONNECTIONS_MAX = 1000


def make_rooms(
    *, settings: Settings, watch: RoleWatch, controller: ControllerLink, open_store: OpenStore, log: Log
) -> Rooms:
    """Return everything that the routes share."""
    serving = Serving(settings=settings, watch=watch, open_store=open_store, log=log)
    operations = Operations(serving=serving, controller=controller, log=log)
    pulse = Pulse(serving=serving, controller=controller, log=log)
    operations.publish = pulse.publish_operation
    identity = Identity(serving, log=log)
    live = Live(settings=settings, serving=serving, log=log)
    return Rooms(settings, serving, controller, identity, operations, pulse, live, log)


def make_app(rooms: Rooms) -> FastAPI:
    """Return the application: the API with its description, the pages, the static files."""
    app = FastAPI(
        title="Futago",
        version=__version__,
        description="Operations manager on two machines. A member that does not serve answers 503 and names the one "
        "that does. Errors have one shape, ErrorBody.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.rooms = rooms
    every: dict[int | str, dict[str, Any]] = {code: {"model": ErrorBody} for code in (401, 403, 413, 422, 503)}
    api = APIRouter(prefix="/api/v1", responses=every)
    for room in (people, pair, triggers):
        api.include_router(room.open_router)
    told = (hosts, events, messages, monitoring)
    work = (jobs, job_history, job_operations, schedules, triggers)
    for room in (people, accounts, pair, orders, *told, *work, definitions, mibs, traps):
        api.include_router(room.router)
    app.include_router(api)
    for page in (login, pair_orders, overview, run_page, start_page, messages_page, language):
        app.include_router(page.router, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    refusals.install(app)
    _describe(app)
    app.add_middleware(Guard)
    return app


def _describe(app: FastAPI) -> None:
    """Add to the description the one body that a route reads by itself."""
    plain = app.openapi

    def described() -> dict[str, object]:
        schema = plain()
        models = DefinitionFiles.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = schema["components"]["schemas"]
        schemas.update(models.pop("$defs", {}))
        schemas["DefinitionFiles"] = models
        return schema

    app.openapi = described  # type: ignore[method-assign]


@dataclass(frozen=True, slots=True)
class Tls:
    """The certificate and key that browsers see: the member's own."""

    cert: Path = paths.OWN_CERT
    key: Path = paths.OWN_KEY


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the frame of the program has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        OperatorFault: the port is taken or may not be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=1024, dualstack_ipv6=both)
    except OSError as e:
        raise OperatorFault(
            f"Port {port} cannot be listened on: {e.strerror}.",
            hint="End the program that has it (ss -ltnp), or give this one CAP_NET_BIND_SERVICE.",
            code="web.port",
        ) from e


async def serve(
    rooms: Rooms, *, watch: RoleWatch, listening: socket.socket, tls: Tls | None, stop: asyncio.Event
) -> None:
    """Run the program until `stop` is set."""
    config = uvicorn.Config(
        make_app(rooms),
        lifespan="off",
        ws="none",
        http="h11",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
        limit_concurrency=CONNECTIONS_MAX,
        ssl_certfile=tls.cert if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )
    server = _Server(config)
    loops = (
        watch.run(),
        rooms.serving.run(),
        rooms.pulse.run(),
        rooms.live.run(),
        rooms.operations.run(),
        rooms.controller.beat(),
        housekeeping.run(rooms.serving, log=rooms.log),
    )
    async with asyncio.TaskGroup() as group:
        beside = [group.create_task(loop) for loop in loops]
        answering = group.create_task(server.serve(sockets=[listening]))
        rooms.log.event("web.started", address=listening.getsockname()[0], port=listening.getsockname()[1])
        service.notify_ready()
        await stop.wait()
        server.should_exit = True
        await answering
        for task in beside:
            task.cancel()
    await rooms.serving.close()


async def _main(stop: asyncio.Event) -> int:
    settings = load()
    log = Log(program="web", member=settings.me)
    watch = RoleWatch(log=log)

    async def open_store() -> Store:
        return await Store.open(application_name="futago-web", log=log)

    rooms = make_rooms(
        settings=settings, watch=watch, controller=ControllerLink(log=log), open_store=open_store, log=log
    )
    is_6 = any(":" in a for a in (settings.own.service, *settings.pair.addresses))
    everywhere = "::" if is_6 else "0.0.0.0"  # noqa: S104  the floating IP comes and goes
    await serve(rooms, watch=watch, listening=listen(everywhere, paths.PORT_WEB), tls=Tls(), stop=stop)
    return 0


def main() -> int:
    """Run the web program; return its exit code."""
    return service.run(_main)
