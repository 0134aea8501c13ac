"""Faults as HTTP answers: which status each has, and the one shape of body that all share.

The table STATUS is the only place where a fault meets a status code. A fault of the world says whether the thing
certainly did not happen (503: do it again) or may have happened (504: ask again with the same key).
"""

from __future__ import annotations

from http import HTTPStatus

from futago.runtime.faults import FutagoFault, OperatorFault, Refused, Unknown
from futago.web.model import ErrorBody


class NotServing(Refused):
    """This member does not serve: it is not the primary, or its gate is closed."""

    def __init__(self, *, member: str, primary: str | None, primary_address: str | None) -> None:
        who = f"{primary} is the primary" if primary and primary != member else "the pair is between two primaries"
        super().__init__(f"{member} does not serve now: {who}.")
        self.primary = primary
        self.primary_address = primary_address


class ControllerSilent(Refused):
    """The controller of this member gives no answer."""


class HttpFault(OperatorFault):
    """A request that a person or program has to change, with its HTTP status."""

    def __init__(
        self, status: HTTPStatus, what: str, *, hint: str = "", code: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(what, hint=hint, code=code)
        self.status = status
        self.headers = headers or {}


def bad_request(what: str, *, hint: str = "", code: str = "request.invalid") -> HttpFault:
    """Return a fault with status 400."""
    return HttpFault(HTTPStatus.BAD_REQUEST, what, hint=hint, code=code)


def not_logged_in() -> HttpFault:
    """Return a fault with status 401."""
    return HttpFault(
        HTTPStatus.UNAUTHORIZED,
        "You are not logged in.",
        hint="Log in, or send an API token as `Authorization: Bearer ...`.",
        code="access.login",
        headers={"WWW-Authenticate": "Bearer"},
    )


def forbidden(what: str, *, hint: str = "", code: str = "access.forbidden") -> HttpFault:
    """Return a fault with status 403."""
    return HttpFault(HTTPStatus.FORBIDDEN, what, hint=hint, code=code)


def not_found(what: str) -> HttpFault:
    """Return a fault with status 404."""
    return HttpFault(HTTPStatus.NOT_FOUND, what, code="request.not-found")


def conflict(what: str, *, hint: str = "", code: str) -> HttpFault:
    """Return a fault with status 409."""
    return HttpFault(HTTPStatus.CONFLICT, what, hint=hint, code=code)


def status_of(fault: FutagoFault) -> HTTPStatus:
    """Return the HTTP status of a fault."""
    match fault:
        case HttpFault():
            return fault.status
        case OperatorFault():
            return HTTPStatus.UNPROCESSABLE_ENTITY
        case Unknown():
            return HTTPStatus.GATEWAY_TIMEOUT
        case Refused():
            return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.INTERNAL_SERVER_ERROR


def body_of(fault: FutagoFault) -> ErrorBody:
    """Return the body of a fault's answer. What the database said stays in the log."""
    match fault:
        case OperatorFault():
            return ErrorBody(error=fault.what, hint=fault.hint, code=fault.code)
        case NotServing():
            hint = (
                f"Ask {fault.primary}, or the floating address, if there is one."
                if fault.primary
                else "Try again in a second."
            )
            return ErrorBody(
                error=str(fault),
                hint=hint,
                code="pair.not-serving",
                primary=fault.primary,
                primary_address=fault.primary_address,
            )
        case ControllerSilent():
            return ErrorBody(
                error=str(fault),
                hint="Look at futago-controller.service on this member.",
                code="pair.controller-silent",
            )
        case Unknown():
            return ErrorBody(
                error="The outcome is unknown: it may have happened.",
                hint="Repeat the request with the same Idempotency-Key.",
                code="store.unknown",
            )
        case Refused():
            return ErrorBody(
                error="It did not happen: the database refused or could not be reached.",
                hint="Try again.",
                code="store.refused",
            )
    return ErrorBody(
        error="Something is wrong in Futago itself.", hint="The log of futago-web.service says more.", code="defect"
    )
