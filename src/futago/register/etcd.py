"""The cell in an etcd, version 3.4 or later, through its HTTP gateway: one key, compared by its revision.

Lives here: what is sent to an etcd and what its answers mean. A key's mod_revision is the mark: the cluster's revision
grows with every write and is never used twice. Reads are linearizable (the default), so they show every write that was
acknowledged before. Endpoints are members of one cluster; any of them will do, the one that answered last is asked first.

Source: etcd 3.4 documentation, "gRPC gateway"; etcdserver/etcdserverpb/rpc.proto (Range, Txn, Compare, Authenticate).
"""

from __future__ import annotations

import base64
import contextlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from futago.register.http import HttpPlace
from futago.runtime.clock import S, now_at
from futago.runtime.faults import Refused, Unknown
from futago.runtime.unreadable import UNREADABLE

ENDPOINT_S_MAX = 0.6  # so that within one read, or one put, a second endpoint can be asked
UNAUTHENTICATED = 16  # gRPC code: the token has expired or is wrong
TURNED_AWAY = frozenset({400, 401, 403, 404, 405, 412, 413, 429})  # not carried out; 408 and 5xx may have been
WARM_AGE = 2 * S  # an endpoint that was not asked for so long is asked, to know whether it answers
_JSON = {"Content-Type": "application/json"}


class _Pair(msgspec.Struct):
    value: str = ""
    mod_revision: str = "0"


class _Answer(msgspec.Struct):
    """What we read of the gateway's answers: of a range, of a transaction, of an authentication, of an error."""

    kvs: list[_Pair] = []
    succeeded: bool = False
    token: str = ""
    error: str = ""
    code: int = 0


@dataclass(slots=True)
class _Endpoint:
    place: HttpPlace
    ok_at: int | None = None
    error: str = "not asked yet"


class EtcdCell:
    """One key of an etcd.

    Args:
        endpoints: URLs of the cluster's members.
        key: of the register.
        context: for https; holds a client certificate where the cluster asks for one.
        user, password: where the cluster has authentication enabled.
    """

    def __init__(
        self, endpoints: Sequence[str], *, key: str, context: ssl.SSLContext | None, user: str = "", password: str = ""
    ) -> None:
        self._endpoints = [_Endpoint(HttpPlace(url, context=context)) for url in endpoints]
        self._key = _b64(key.encode())
        self._user, self._password = user, password
        self._token = ""

    async def get(self, *, deadline_s: float) -> tuple[str, bytes | None]:
        """Read the key from the first endpoint that answers. Raises Refused or Unknown."""
        fault: Refused | Unknown = Refused("there is no endpoint")
        end_at = now_at() + int(deadline_s * S)
        for endpoint in sorted(self._endpoints, key=lambda e: -(e.ok_at or 0)):
            left_s = (end_at - now_at()) / S
            if left_s <= 0:
                break
            try:
                answer = await self._ask(
                    endpoint, "/v3/kv/range", {"key": self._key}, deadline_s=min(left_s, ENDPOINT_S_MAX)
                )
            except (Refused, Unknown) as e:
                fault = e
                continue
            if not answer.kvs:
                return "", None
            return answer.kvs[0].mod_revision, base64.b64decode(answer.kvs[0].value)
        raise fault

    async def swap(self, mark: str, content: bytes, *, deadline_s: float) -> bool:
        """Store the content in one transaction if the revision is still `mark`. Raises Refused or Unknown."""
        request = {
            "compare": [{"key": self._key, "target": "MOD", "result": "EQUAL", "mod_revision": mark or "0"}],
            "success": [{"request_put": {"key": self._key, "value": _b64(content)}}],
        }
        endpoint = max(self._endpoints, key=lambda e: e.ok_at or 0)
        answer = await self._ask(endpoint, "/v3/kv/txn", request, deadline_s=min(deadline_s, ENDPOINT_S_MAX))
        return answer.succeeded

    def parts(self) -> list[tuple[str, int | None, str]]:
        """Return (address, when it last answered, what is wrong) of every endpoint."""
        return [(e.place.authority, e.ok_at, e.error) for e in self._endpoints]

    async def warm(self) -> None:
        """Ask every endpoint that was not asked lately."""
        for endpoint in self._endpoints:
            if endpoint.ok_at is None or now_at() - endpoint.ok_at > WARM_AGE:
                with contextlib.suppress(Refused, Unknown):
                    await self._ask(endpoint, "/v3/kv/range", {"key": self._key}, deadline_s=ENDPOINT_S_MAX)

    def close(self) -> None:
        """Drop the connections."""
        for endpoint in self._endpoints:
            endpoint.place.close()

    async def _ask(self, endpoint: _Endpoint, path: str, request: object, *, deadline_s: float) -> _Answer:
        end_at = now_at() + int(deadline_s * S)
        for _ in range(2):
            headers = dict(_JSON)
            if self._user:
                headers["Authorization"] = self._token or await self._log_in(endpoint, end_at)
            answer = await self._post(endpoint, path, request, headers, end_at)
            if not (self._user and answer.code == UNAUTHENTICATED):
                break
            self._token = ""  # it has expired: etcd forgets an idle one after five minutes
        if answer.error:
            endpoint.error = answer.error
            raise Refused(f"{endpoint.place.authority}: {answer.error}")
        endpoint.ok_at, endpoint.error = now_at(), ""
        return answer

    async def _log_in(self, endpoint: _Endpoint, end_at: int) -> str:
        request = {"name": self._user, "password": self._password}
        answer = await self._post(endpoint, "/v3/auth/authenticate", request, dict(_JSON), end_at)
        if not answer.token:
            endpoint.error = answer.error or "it gives no token"
            raise Refused(f"{endpoint.place.authority}: {endpoint.error}")
        self._token = answer.token
        return self._token

    async def _post(
        self, endpoint: _Endpoint, path: str, request: object, headers: dict[str, str], end_at: int
    ) -> _Answer:
        """Return the answer; one that says that the request was refused before anything was done has an `error`."""
        body = msgspec.json.encode(request)
        left_s = max(0.0, (end_at - now_at()) / S)
        try:
            found = await endpoint.place.ask("POST", path, headers=headers, body=body, deadline_s=left_s)
        except (Refused, Unknown) as e:
            endpoint.error = str(e)
            raise
        try:
            answer = msgspec.json.decode(found.body, type=_Answer, strict=False)
        except UNREADABLE:
            answer = _Answer(error=found.body[:120].decode("utf-8", "replace"))
        if found.status == 200 and not answer.error:
            return answer
        why = answer.error or f"HTTP {found.status}"
        if found.status in TURNED_AWAY:
            return _Answer(error=why, code=answer.code)
        endpoint.error = why
        raise Unknown(f"{endpoint.place.authority}: {why}")


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
