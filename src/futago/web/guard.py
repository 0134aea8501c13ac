"""What holds for every request and answer: how long a body may be, and the headers that browsers obey.

A plain ASGI layer around the application: it looks at bytes and headers only and knows no route's meaning.
"""

from __future__ import annotations

from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from futago.web.model import ErrorBody

BODY_BYTES_MAX = 128 * 1024
# Definitions and MIB files are bounded again where they are read.
BODY_BYTES_MAX_AT = {"/api/v1/apply": 5 * 1024 * 1024, "/api/v1/mibs": 5 * 1024 * 1024}

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """Wraps the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = BODY_BYTES_MAX_AT.get(scope["path"], BODY_BYTES_MAX)
        dressed = _dressed(scope, send)
        told = Headers(scope=scope).get("content-length", "0")
        if not told.isdigit() or int(told) > limit:
            await _refuse(dressed, limit)
            return
        await self._app(scope, _counted(receive, limit), dressed)


def _counted(receive: Receive, limit: int) -> Receive:
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_long(limit))
        return message

    return counted


def _dressed(scope: Scope, send: Send) -> Send:
    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            is_static = scope["path"].startswith("/static/") and message["status"] == HTTPStatus.OK
            headers.setdefault("Cache-Control", "public, max-age=86400" if is_static else "no-store")
        await send(message)

    return dressed


async def _refuse(send: Send, limit: int) -> None:
    body = ErrorBody(error=_too_long(limit), hint="Send less at a time.", code="request.too-long")
    await send(
        {
            "type": "http.response.start",
            "status": int(HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
            "headers": [(b"content-type", b"application/json"), (b"connection", b"close")],
        }
    )
    await send({"type": "http.response.body", "body": body.model_dump_json(exclude_none=True).encode()})


def _too_long(limit: int) -> str:
    return f"The body is longer than {limit // 1024} KiB."
