"""The newcomer's side of admission: ask a member, having nothing but a token.

Trust comes in two steps. Over an unverified connection the member sends its authority's certificate, which must hash
to the fingerprint in the token; every further connection is verified with it, and the other end must hold a
certificate of a member of that pair. So nobody in between learns a secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import msgspec

from futago.link.frames import FrameStream
from futago.link.tls import require
from futago.runtime.faults import OperatorFault, Refused, RemoteProtocolFault
from futago.runtime.unreadable import UNREADABLE
from futago.setup import authority, paths
from futago.setup.model import Ca, CaAnswer, EnrollAnswer, HelloAnswer, JoinAnswer, Refusal, Request
from futago.setup.token import Token

DEADLINE_S = 10.0
ANSWER_BYTES_MAX = 1 << 20
A = TypeVar("A", CaAnswer, HelloAnswer, JoinAnswer, EnrollAnswer)
T = TypeVar("T")


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run one conversation from a program without a loop."""
    return asyncio.run(work)


async def fetch_authority(address: str, token: Token, *, port: int = paths.PORT_CONTROL) -> bytes:
    """Return the pair's authority certificate (PEM) as the member at `address` sends it, proven by the token.

    Raises:
        Refused: the member cannot be reached, or does not answer in time.
        OperatorFault: whoever answers is not of the token's pair.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # what comes over it is checked against the token below
    async with _connect(address, port, context) as (reader, writer):
        answer = await _exchange(reader, writer, Ca(), CaAnswer)
    certificate = answer.ca_cert.encode()
    if authority.fingerprint(certificate) != token.ca_sha256:
        raise OperatorFault(
            f"{address} is not a member of the token's pair: its authority differs.",
            hint="Check the address, and that the token was printed by this pair.",
            code="enrol.ca",
        )
    return certificate


async def ask(
    address: str, request: Request, kind: type[A], *, ca_cert: bytes, pair_id: str, port: int = paths.PORT_CONTROL
) -> A:
    """Return the answer of the member at `address`, reached over a verified connection.

    Raises:
        Refused: it cannot be reached, or does not answer in time.
        OperatorFault: it refused, in its own words; or it is no member of this pair.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # who it is stands in the subject
    context.load_verify_locations(cadata=ca_cert.decode("ascii"))
    async with _connect(address, port, context) as (reader, writer):
        require(writer, pair_id=pair_id, kind="member")
        return await _exchange(reader, writer, request, kind)


@contextlib.asynccontextmanager
async def _connect(
    address: str, port: int, context: ssl.SSLContext
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    try:
        async with asyncio.timeout(DEADLINE_S):
            reader, writer = await asyncio.open_connection(address, port, ssl=context)
            try:
                yield reader, writer
            finally:
                writer.transport.abort()
    except TimeoutError as e:
        raise Refused(f"{address} port {port} did not answer within {DEADLINE_S:g} s") from e
    except ssl.SSLCertVerificationError as e:
        raise OperatorFault(
            f"{address} does not hold a certificate of this pair: {e.verify_message}.",
            hint="Check the address, and the clocks of both machines.",
            code="enrol.certificate",
        ) from e
    except (OSError, EOFError, RemoteProtocolFault) as e:
        raise Refused(f"{address} port {port}: {e}") from e


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request, kind: type[A]) -> A:
    stream: FrameStream[msgspec.Raw] = FrameStream(reader, writer, msgspec.Raw, frame_bytes_max=ANSWER_BYTES_MAX)
    await stream.send(request)
    raw = bytes(await stream.receive())
    try:
        if msgspec.msgpack.decode(raw, type=_Head).ok:
            return msgspec.msgpack.decode(raw, type=kind, strict=False)
        refusal = msgspec.msgpack.decode(raw, type=Refusal)
    except UNREADABLE as e:
        raise RemoteProtocolFault(f"the answer cannot be understood: {e}") from e
    raise OperatorFault(refusal.error, hint=refusal.hint, code=refusal.code)


class _Head(msgspec.Struct):
    ok: bool
