"""Who stands behind a request: a bearer token or a session cookie, looked up in the database, briefly remembered.

Only the primary serves, so only it ends sessions, and it forgets them here at the same instant; a memory of a few
seconds therefore costs no safety against our own changes. A cookie alone never changes anything: besides
SameSite=Strict, a changing request must carry the header that only our own page can know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from http import HTTPStatus

from fastapi import Request
from starlette.responses import Response

from futago.access import store as rows
from futago.access.limits import FailureLimit
from futago.access.model import Account, Permission, Principal, Via
from futago.access.passwords import NOBODY, verify_password
from futago.access.tokens import csrf_token, draw_secret, hash_secret, is_csrf_token
from futago.runtime.clock import S, now_at, now_utc
from futago.runtime.log import Log
from futago.store.commit import Connection, Store
from futago.web.faults import HttpFault, forbidden, not_logged_in
from futago.web.serving import Serving

COOKIE = "__Host-futago"  # the prefix makes browsers insist on Secure, our own host and path /
CSRF_HEADER = "x-csrf-token"
REMEMBERED_NS = 5 * S
REMEMBERED_MAX = 1000
HASHING_AT_ONCE = 2  # each takes 64 MiB and a core
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Opened:
    """A new login session: `secret` goes into the cookie and nowhere else."""

    principal: Principal
    secret: str

    @property
    def csrf(self) -> str:
        return csrf_token(self.secret)


class Identity:
    """Looks principals up, logs people in and out."""

    def __init__(self, serving: Serving, *, log: Log) -> None:
        self._serving = serving
        self._log = log
        self._known: dict[bytes, tuple[Principal, int]] = {}
        self._asked: dict[bytes, asyncio.Future[Principal | None]] = {}
        self._failures = FailureLimit()
        self._hashing = asyncio.Semaphore(HASHING_AT_ONCE)

    async def require(self, request: Request, permission: Permission) -> Principal:
        """Return who asks, if they may.

        Raises:
            NotServing: this member does not serve.
            HttpFault: 401 nobody; 403 somebody who may not, or a changing request by cookie without its token.
        """
        principal = await self.find(request)
        if principal is None:
            raise not_logged_in()
        if principal.via is Via.SESSION and request.method not in SAFE_METHODS:
            self._check_csrf(request)
        if not principal.may(permission):
            raise forbidden(
                f"{principal.account} is a {principal.role.value}, who may not do this.",
                hint="Ask an administrator for another role.",
            )
        return principal

    async def find(self, request: Request) -> Principal | None:
        """Return who asks; None for nobody."""
        store = self._serving.require().store
        kind, _, word = request.headers.get("authorization", "").partition(" ")
        secret = word.strip() if kind.lower() == "bearer" else request.cookies.get(COOKIE, "")
        if not secret:
            return None
        via = Via.TOKEN if kind.lower() == "bearer" else Via.SESSION
        principal = await self._look_up(store, hash_secret(via.value + secret), hash_secret(secret), via)
        return replace(principal, address=address_of(request)) if principal else None

    async def _look_up(self, store: Store, key: bytes, secret_hash: bytes, via: Via) -> Principal | None:
        known = self._known.get(key)
        if known is not None and known[1] > now_at():
            return known[0]

        async def work(conn: Connection) -> Principal | None:
            find = rows.principal_of_token if via is Via.TOKEN else rows.principal_of_session
            return await find(conn, secret_hash, now_utc())

        principal = await self._once(key, lambda: store.read(work, name="web.principal", deadline_s=5))
        self._known.pop(key, None)
        if principal is not None:
            while len(self._known) >= REMEMBERED_MAX:
                del self._known[next(iter(self._known))]
            self._known[key] = (principal, now_at() + REMEMBERED_NS)
        return principal

    async def _once(self, key: bytes, read: Callable[[], Awaitable[Principal | None]]) -> Principal | None:
        """Read for all who ask for the same at the same time, as the clients of a switch do."""
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = asyncio.ensure_future(read())
            asked.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(asked)

    def _answered(self, key: bytes, done: asyncio.Future[Principal | None]) -> None:
        del self._asked[key]
        if not done.cancelled():
            done.exception()  # whoever asked may have gone

    def forget(self) -> None:
        """Look everybody up again: accounts have changed."""
        self._known.clear()

    @staticmethod
    def _check_csrf(request: Request) -> None:
        if not is_csrf_token(request.cookies.get(COOKIE, ""), request.headers.get(CSRF_HEADER, "")):
            raise forbidden(
                "The request does not carry this session's CSRF token.",
                hint="Reload the page; a program sends the login's csrf_token in the header X-CSRF-Token.",
                code="access.csrf",
            )

    async def log_in(self, request: Request, account_name: str, password: str) -> Opened:
        """Return a new session for the right password.

        Raises:
            HttpFault: 401 wrong account or password, 429 too many failures from this address.
        """
        store = self._serving.require().store
        address = address_of(request) or ""
        self._check_origin(request)
        self._check_limit(address)

        async def look_up(conn: Connection) -> Account | None:
            return await rows.account(conn, account_name)

        account = await store.read(look_up, name="web.account", deadline_s=5)
        async with self._hashing:
            is_right = await asyncio.to_thread(verify_password, account.password_hash if account else NOBODY, password)
        if account is None or not is_right or not account.is_enabled:
            self._failures.failed(address, now_at())
            self._log.warning("web.login_failed", account=account_name[:63], address=address)
            raise HttpFault(
                HTTPStatus.UNAUTHORIZED, "This account and password do not belong together.", code="access.password"
            )
        self._failures.succeeded(address)
        return await self._open_session(store, account, address or None)

    def _check_limit(self, address: str) -> None:
        wait_s = -(-self._failures.wait_ns(address, now_at()) // S)
        if wait_s:
            raise HttpFault(
                HTTPStatus.TOO_MANY_REQUESTS,
                "Too many failed logins from this address.",
                hint=f"Try again in {wait_s} s.",
                code="access.too-many",
                headers={"Retry-After": str(wait_s)},
            )

    @staticmethod
    def _check_origin(request: Request) -> None:
        if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            raise forbidden("A login must come from our own page.", code="access.csrf")

    @staticmethod
    async def _open_session(store: Store, account: Account, address: str | None) -> Opened:
        secret = draw_secret()
        principal = Principal(account.name, account.role, Via.LOGIN, address)

        async def work(conn: Connection) -> None:
            await rows.add_session(
                conn,
                secret_hash=hash_secret(secret),
                account_name=account.name,
                address=address,
                now_utc=now_utc(),
            )
            await rows.record(conn, principal, rows.Deed("login"))

        await store.commit(work, name="web.login")
        return Opened(principal, secret)

    async def log_out(self, request: Request) -> None:
        """End the session of the cookie, if there is one."""
        store = self._serving.require().store
        secret = request.cookies.get(COOKIE, "")
        if not secret:
            return
        self._check_csrf(request)

        async def work(conn: Connection) -> None:
            await rows.end_session(conn, hash_secret(secret))

        await store.commit(work, name="web.logout")
        self._known.pop(hash_secret(Via.SESSION.value + secret), None)


def address_of(request: Request) -> str | None:
    """Return the address of whoever connected; None where there is none (a local socket)."""
    if request.client is None:
        return None
    host = request.client.host
    return host.removeprefix("::ffff:") if "." in host else host  # IPv4 by a socket that takes both


def set_cookie(response: Response, opened: Opened) -> None:
    """Put the session's cookie into an answer."""
    response.set_cookie(
        COOKIE,
        opened.secret,
        max_age=int(rows.SESSION_LIFE.total_seconds()),
        path="/",
        secure=True,
        httponly=True,
        samesite="strict",
    )


def clear_cookie(response: Response) -> None:
    """Take the session's cookie back."""
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
