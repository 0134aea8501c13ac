"""The one place where what went wrong becomes an answer: JSON for programs, a plain page for people.

Every exception that leaves a route ends here. Faults carry their own sentence and hint; a defect says nothing of its
inside to the outside and everything to the log.
"""

from __future__ import annotations

import traceback
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from futago.runtime.faults import BrokenInvariant, FutagoFault, OperatorFault
from futago.web.faults import HttpFault, NotServing, body_of, status_of
from futago.web.model import ErrorBody
from futago.web.pulse import TooManyListeners
from futago.web.render import render
from futago.web.rooms import rooms_of


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(FutagoFault, _fault)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _defect)


async def _fault(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, FutagoFault)
    if isinstance(fault, TooManyListeners):
        fault = HttpFault(
            HTTPStatus.SERVICE_UNAVAILABLE, f"{fault}.", hint="Close some pages.", code="request.too-many-streams"
        )
    status = status_of(fault)
    if not isinstance(fault, OperatorFault | NotServing):
        cause = repr(fault.__cause__) if fault.__cause__ else ""
        rooms_of(request).log.warning("web.fault", path=request.url.path, fault=str(fault), cause=cause)
    headers = dict(fault.headers) if isinstance(fault, HttpFault) else {}
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1"
    return _answer(request, status, body_of(fault), headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    places = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()[:5]]
    body = ErrorBody(error="; ".join(places), hint="See /api/v1/openapi.json.", code="request.invalid")
    return _answer(request, HTTPStatus.UNPROCESSABLE_ENTITY, body)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    codes = {HTTPStatus.NOT_FOUND: "request.not-found", HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request.too-long"}
    body = ErrorBody(error=str(error.detail), code=codes.get(status, "request.invalid"))
    return _answer(request, status, body, dict(error.headers or {}))


async def _defect(request: Request, error: Exception) -> Response:
    rooms_of(request).log.error("web.defect", path=request.url.path, trace="".join(traceback.format_exception(error)))
    return _answer(request, HTTPStatus.INTERNAL_SERVER_ERROR, body_of(BrokenInvariant("")))


def _answer(request: Request, status: HTTPStatus, body: ErrorBody, headers: dict[str, str] | None = None) -> Response:
    answer = _api(status, body) if _is_for_programs(request) else _page(request, status, body)
    for name, value in (headers or {}).items():
        answer.headers[name] = value
    return answer


def _is_for_programs(request: Request) -> bool:
    return request.url.path.startswith("/api/")


def _api(status: HTTPStatus, body: ErrorBody) -> Response:
    content = body.model_dump_json(exclude_none=status is not HTTPStatus.SERVICE_UNAVAILABLE)
    return Response(content, status_code=status, media_type="application/json")


def _page(request: Request, status: HTTPStatus, body: ErrorBody) -> Response:
    is_part = request.headers.get("hx-request") == "true"
    if status is HTTPStatus.UNAUTHORIZED and is_part:
        return Response(status_code=status, headers={"HX-Redirect": "/login"})
    if status is HTTPStatus.UNAUTHORIZED:
        return RedirectResponse("/login", status_code=HTTPStatus.SEE_OTHER)
    if is_part:
        return Response(f"{body.error} {body.hint}", status_code=status, media_type="text/plain")
    if body.code == "pair.not-serving":
        return render(request, "waiting.html", status=status, health=rooms_of(request).serving.health())
    return render(request, "refusal.html", status=status, body=body)
