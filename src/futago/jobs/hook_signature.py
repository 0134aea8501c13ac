"""Signatures of requests that fire triggers: what is signed, how it is written in a header, and whether it is genuine.

    Futago-Signature: t=1763859600,v1=HEX

HEX is the HMAC-SHA-256, with the SHA-256 of the trigger's secret as its key, of the lines `v1`, the time, the path and the
request's key, each ended by a line feed, and then the body. No clock and no store: both are the caller's. What is signed
holds the request's key, so a copy of a request can have no other key than the request had, and starts nothing.

GitHub's own way is poorer: the HMAC-SHA-256 of the body alone, with neither time nor key. Its copies are known by the
register of what was taken (jobs/deliveries.py).

    X-Hub-Signature-256: sha256=HEX
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HEADER = "Futago-Signature"
GITHUB_HEADER = "X-Hub-Signature-256"
GITHUB_DELIVERY = "X-GitHub-Delivery"
GITHUB_EVENT = "X-GitHub-Event"
WINDOW_S = 300  # a request's time and the member's clock are no farther apart

_GITHUBS = re.compile(r"sha256=([0-9a-f]{64})", re.ASCII)
_WRITTEN = re.compile(r"t=([0-9]{1,12}),v1=([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a request says of itself. `at_s`: when it was signed, seconds since 1970; `mac`: 32 bytes."""

    at_s: int
    mac: bytes

    @property
    def header(self) -> str:
        return f"t={self.at_s},v1={self.mac.hex()}"

    def is_of_now(self, now_s: float) -> bool:
        """Return whether its time is near enough to be looked at."""
        return abs(now_s - self.at_s) <= WINDOW_S

    def is_genuine(self, secret_hash: bytes, *, path: str, key: str, body: bytes) -> bool:
        """Return whether whoever has the secret signed exactly this; the time it takes does not depend on where it differs."""
        return hmac.compare_digest(sign(secret_hash, self.at_s, path=path, key=key, body=body).mac, self.mac)


def read_signature(text: str) -> Signature | None:
    """Return what a header says; None: it is no signature."""
    found = _WRITTEN.fullmatch(text)
    return Signature(int(found[1]), bytes.fromhex(found[2])) if found else None


def sign(secret_hash: bytes, at_s: int, *, path: str, key: str, body: bytes) -> Signature:
    """Return the signature of a request.

    Args:
        secret_hash: the SHA-256 of the secret, 32 bytes.
        at_s: the time, seconds since 1970.
        path: of the hook, such as `/api/v1/hooks/deploy`.
        key: the value of the header that tells one delivery from another; empty: there is none.
        body: the bytes of the body as they are sent.
    """
    head = f"v1\n{at_s}\n{path}\n{key}\n".encode()
    return Signature(at_s, hmac.new(secret_hash, head + body, hashlib.sha256).digest())


def github_key(secret_hash: bytes) -> str:
    """Return the text, 64 characters, that a sender of GitHub's kind is given as its secret: the key of its signatures.

    It follows from what is kept of the trigger's secret, and is not that: a trigger that takes the secret itself, or our
    own signatures, is not opened by it.
    """
    return hmac.new(secret_hash, b"futago github key", hashlib.sha256).hexdigest()


def read_github(text: str) -> bytes | None:
    """Return the 32 bytes of GitHub's signature; None: it is none."""
    found = _GITHUBS.fullmatch(text)
    return bytes.fromhex(found[1]) if found else None


def is_githubs(mac: bytes, secret_hash: bytes, body: bytes) -> bool:
    """Return whether whoever was given the key signed this body; the time it takes does not depend on where it differs."""
    return hmac.compare_digest(hmac.digest(github_key(secret_hash).encode(), body, "sha256"), mac)


def is_ping(event: str, body: Mapping[str, Any]) -> bool:
    """Return whether GitHub only tries whether somebody is there. `event`: the header, which is not signed; a ping stays
    one whatever a copy of it says there.
    """
    return event == "ping" or {"zen", "hook_id"} <= body.keys()
