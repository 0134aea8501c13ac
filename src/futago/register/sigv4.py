"""Signing requests to an S3-compatible store: AWS Signature Version 4, with the standard library alone. Pure.

Source: AWS documentation, "Signature Version 4 signing process"; tests compare with botocore's signer.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

_SERVICE = "s3"


@dataclass(frozen=True, slots=True)
class Key:
    """An access key and the region that requests are signed for."""

    access: str
    secret: str
    region: str


def path_of(bucket: str, name: str) -> str:
    """Return the path of an object, encoded as it is both sent and signed."""
    return quote(f"/{bucket}/{name}", safe="/-_.~")


def signed(
    key: Key, method: str, *, authority: str, path: str, headers: dict[str, str], body: bytes, now_utc: datetime
) -> dict[str, str]:
    """Return the headers with those added that prove who asks.

    Args:
        authority: of the server, as in the Host header.
        path: encoded, without a query.
        now_utc: aware; the store refuses a request that is more than minutes off.
    """
    stamp = now_utc.strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    sent = {**headers, "x-amz-date": stamp, "x-amz-content-sha256": digest}
    canonical = {"host": authority, **{name.lower(): value.strip() for name, value in sent.items()}}
    names = ";".join(sorted(canonical))
    lines = "".join(f"{name}:{canonical[name]}\n" for name in sorted(canonical))
    request = "\n".join([method, path, "", lines, names, digest])
    scope = f"{stamp[:8]}/{key.region}/{_SERVICE}/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    seal = hmac.new(_signing_key(key, stamp[:8]), text.encode(), hashlib.sha256).hexdigest()
    proof = f"AWS4-HMAC-SHA256 Credential={key.access}/{scope}, SignedHeaders={names}, Signature={seal}"
    return {**sent, "Authorization": proof}


def _signing_key(key: Key, day: str) -> bytes:
    seal = f"AWS4{key.secret}".encode()
    for word in (day, key.region, _SERVICE, "aws4_request"):
        seal = hmac.new(seal, word.encode(), hashlib.sha256).digest()
    return seal
