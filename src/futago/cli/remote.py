"""The command line's way to the API: find the member that serves, and stay with the request through a switch.

A request goes to each known address in turn until one serves, within a bounded time. What certainly did not happen
(no connection, 503) is tried again; what may have happened is tried again only if the request says that repeating it
is safe, because it carries a key or changes nothing the second time.
"""

from __future__ import annotations

import os
import ssl
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Annotated, TypeVar

import httpx
import typer
from pydantic import BaseModel, ValidationError

from futago.runtime.faults import OperatorFault, Refused, RemoteProtocolFault, Unknown
from futago.setup import paths
from futago.setup.settings import load
from futago.web.model import ErrorBody

PATIENCE_S = 15.0  # a switch takes 3 s
CONNECT_S = 1.5
ANSWER_S = 12.0  # a commit that waits for the standby is told as unknown after 10 s
PAUSE_S = 0.2

M = TypeVar("M", bound=BaseModel)

Servers = Annotated[
    list[str] | None,
    typer.Option(
        "--server", help="Address of a member (may be repeated). Default on a member: both, and the floating IP."
    ),
]
TokenFile = Annotated[Path | None, typer.Option("--token-file", help="File that holds an API token.")]
Ca = Annotated[Path | None, typer.Option("--ca", help="The pair's CA certificate (ca.crt of a member).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True, slots=True)
class Way:
    """How to reach the pair: addresses to try, the token, whose certificates to trust."""

    servers: tuple[str, ...]
    token: str
    ca: Path


def way(servers: Sequence[str] | None, token_file: Path | None, ca: Path | None) -> Way:
    """Return the way from options, environment and, on a member, its settings.

    Raises:
        OperatorFault: something is missing or cannot be read.
    """
    named = list(servers or []) or os.environ.get("FUTAGO_SERVER", "").split()
    token_path = token_file or Path(os.environ.get("FUTAGO_TOKEN_FILE", paths.ADMIN_TOKEN))
    ca_path = ca or Path(os.environ.get("FUTAGO_CA", paths.CA_CERT))
    if not named:
        if not paths.SETTINGS.exists():
            raise OperatorFault(
                "This machine is not a member of a pair.",
                hint="Name one with --server, and give --token-file and --ca.",
                code="cli.server",
            )
        settings = load()
        own, peer = settings.own.service, settings.peer
        named = [own, *([peer.service] if peer else []), *settings.pair.addresses]
    return Way(tuple(named), _read(token_path, "--token-file").strip(), _checked(ca_path))


def _read(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as e:
        raise OperatorFault(
            f"{path} cannot be read: {e}.", hint=f"Run this as root, or use {option}.", code="cli.file"
        ) from e


def _checked(path: Path) -> Path:
    _read(path, "--ca")
    return path


@dataclass(frozen=True, slots=True)
class _Call:
    """One request, wherever it goes. `is_repeatable`: the second time changes nothing."""

    method: str
    path: str
    params: Mapping[str, str | int] | None = None
    content: str = ""
    key: str = ""
    answer_s: float = ANSWER_S
    is_repeatable: bool = False


@dataclass(frozen=True, slots=True)
class _Miss:
    """A try that brought no answer. Unless `may_have_happened`, it certainly did not happen."""

    problem: str
    may_have_happened: bool = False
    primary_address: str = ""


class Remote:
    """Requests to the API of the pair."""

    def __init__(self, to: Way, *, patience_s: float = PATIENCE_S) -> None:
        try:
            trust = ssl.create_default_context(cafile=to.ca)
        except ssl.SSLError as e:
            raise OperatorFault(
                f"{to.ca} is not a certificate: {e}.", hint="Copy ca.crt of a member.", code="cli.ca"
            ) from e
        self._servers = to.servers
        self._patience_s = patience_s
        self._client = httpx.Client(
            verify=trust,
            headers={"Authorization": f"Bearer {to.token}"},
            trust_env=False,
        )

    def get(self, path: str, shape: type[M], params: dict[str, str | int | None] | None = None) -> M:
        """Return what GET answers.

        Raises:
            OperatorFault: the request is wrong, or we may not ask.
            Refused: nobody served it in time.
        """
        wanted = {name: value for name, value in (params or {}).items() if value is not None}
        return _shaped(self._ask(_Call("GET", path, params=wanted, is_repeatable=True)), shape)

    def post(
        self,
        path: str,
        shape: type[M],
        body: BaseModel | None = None,
        *,
        is_keyed: bool = False,
        answer_s: float = ANSWER_S,
    ) -> M:
        """Return what POST answers. `is_keyed`: send an Idempotency-Key, so that it may be repeated.

        Raises:
            OperatorFault: the request is wrong, or we may not do it.
            Refused: it certainly did not happen.
            Unknown: it may have happened.
        """
        call = _Call(
            "POST",
            path,
            content=body.model_dump_json(exclude_none=True) if body else "",
            key=str(uuid.uuid4()) if is_keyed else "",
            answer_s=answer_s,
            is_repeatable=is_keyed,
        )
        return _shaped(self._ask(call), shape)

    def _ask(self, call: _Call) -> bytes:
        give_up_at = time.monotonic() + self._patience_s
        known = cycle(self._servers)
        hinted, may_have_happened = "", False
        while True:
            server, hinted = hinted or next(known), ""
            outcome = self._try(call, server)
            if isinstance(outcome, bytes):
                return outcome
            may_have_happened = may_have_happened or outcome.may_have_happened
            if may_have_happened and not call.is_repeatable:
                raise Unknown(outcome.problem)
            if time.monotonic() > give_up_at:
                within = f"within {self._patience_s:g} s: {outcome.problem}"
                if may_have_happened and call.method != "GET":
                    raise Unknown(f"no member told the outcome {within}")
                raise Refused(f"no member serves {within}")
            hinted = "" if outcome.primary_address == server else outcome.primary_address
            time.sleep(PAUSE_S)

    def _try(self, call: _Call, server: str) -> bytes | _Miss:
        """Return the answer of one server, or why there is none and what that means.

        Raises:
            OperatorFault: a person has to change something; trying again is useless.
        """
        try:
            answer = self._send(call, server)
        except httpx.ConnectError as e:
            if "CERTIFICATE_VERIFY_FAILED" in str(e):
                raise OperatorFault(
                    f"{server} does not show a certificate of this pair: {e}.",
                    hint="Check the address, or copy ca.crt of a member and name it with --ca.",
                    code="cli.certificate",
                ) from e
            return _Miss(f"{server}: {e}")
        except httpx.ConnectTimeout:
            return _Miss(f"{server} does not answer")
        except httpx.HTTPError as e:
            return _Miss(f"{server}: {e or type(e).__name__}", may_have_happened=True)
        if answer.status_code < 400:
            return answer.content
        fault = _error(answer)
        if answer.status_code not in {503, 504}:
            raise OperatorFault(fault.error, hint=fault.hint, code=fault.code)
        return _Miss(fault.error, answer.status_code == 504, fault.primary_address or "")

    def _send(self, call: _Call, server: str) -> httpx.Response:
        host = f"[{server}]" if server.count(":") > 1 else server  # a bare IPv6 address
        url = f"https://{host}" + ("" if ":" in server and server.count(":") == 1 else f":{paths.PORT_WEB}")
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": call.key} if call.key else {})
        return self._client.request(
            call.method,
            f"{url}/api/v1{call.path}",
            params=call.params,
            content=call.content,
            headers=headers,
            timeout=httpx.Timeout(call.answer_s, connect=CONNECT_S),
        )


def _error(answer: httpx.Response) -> ErrorBody:
    try:
        return ErrorBody.model_validate_json(answer.content)
    except ValidationError:
        return ErrorBody(error=f"The server answered {answer.status_code}.", code="cli.answer")


def _shaped(content: bytes, shape: type[M]) -> M:
    try:
        return shape.model_validate_json(content)
    except ValidationError as e:
        raise RemoteProtocolFault(f"the answer is not a {shape.__name__}: {e.errors(include_url=False)[0]}") from e
