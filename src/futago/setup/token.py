"""Tokens: the one word that an operator carries from the first member to another machine.

It is self-contained: where the members are, what their authority's certificate hashes to (so the newcomer needs no
trust beforehand), what it allows and until when; sealed with a key that both members hold, so either can check it and
nothing is stored. Shown as one shell-safe word: `futago1-<payload>.<seal>`, both parts base64url.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from futago.runtime.faults import OperatorFault
from futago.runtime.unreadable import UNREADABLE

_MARK = "futago1-"  # the format's version
TOKEN_CHARS_MAX = 2048
LIFE = timedelta(hours=24)


class Purpose(StrEnum):
    """What the holder may do."""

    JOIN = "join"  # become the second member; receives the authority's key
    ENROLL = "enroll"  # become an agent


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a token says. `members`: addresses under which members answer. `ca_sha256`: lower-case hex."""

    purpose: Purpose
    pair: str
    ca_sha256: str
    members: tuple[str, ...]
    expires_utc: datetime
    nonce: str


def make(
    purpose: Purpose,
    *,
    pair_id: str,
    ca_sha256: str,
    members: tuple[str, ...],
    now_utc: datetime,
    life: timedelta = LIFE,
) -> Token:
    """Return a new token of `purpose` that ends `life` from now."""
    expires = (now_utc + life).replace(microsecond=0)
    return Token(purpose, pair_id, ca_sha256, members, expires, secrets.token_urlsafe(9))


def seal(token: Token, key: bytes) -> str:
    """Return the token as one word."""
    payload = _b64(msgspec.json.encode(token))
    return f"{_MARK}{payload}.{_b64(_mac(payload, key))}"


def read(word: str) -> Token:
    """Return what the word says, unchecked: for the newcomer, who has no key and needs only to know where to go.

    Raises:
        OperatorFault: it is not a token, such as one cut short while copying.
    """
    return _split(word)[0]


def verify(word: str, key: bytes, *, purpose: Purpose, pair_id: str, now_utc: datetime) -> Token:
    """Return what the word says if it was sealed with `key`, for this pair and purpose, and has not ended.

    Raises:
        OperatorFault: with the reason; one of the codes token.malformed, token.pair, token.forged, token.expired,
        token.purpose.
    """
    token, payload, mac = _split(word)
    if token.pair != pair_id:
        raise _refuse("The token belongs to another pair.", "Use the line printed by a member of this pair.", "pair")
    if not hmac.compare_digest(mac, _mac(payload, key)):
        raise _refuse("The token was not made by this pair, or was changed.", _PRINT_AGAIN, "forged")
    if token.expires_utc <= now_utc:
        raise _refuse(f"The token ended at {token.expires_utc.isoformat()}.", _PRINT_AGAIN, "expired")
    if token.purpose is not purpose:
        raise _refuse(f"The token allows to {token.purpose}, not to {purpose}.", _PRINT_AGAIN, "purpose")
    return token


_PRINT_AGAIN = "Print a fresh line on a member: `futago token join` or `futago token enroll`."


def _refuse(what: str, hint: str, code: str) -> OperatorFault:
    return OperatorFault(what, hint=hint, code=f"token.{code}")


def _split(word: str) -> tuple[Token, str, bytes]:
    word = word.strip()
    malformed = _refuse("This is not a complete token.", "Copy the whole line; it starts with futago1-.", "malformed")
    if len(word) > TOKEN_CHARS_MAX or not word.startswith(_MARK) or word.count(".") != 1:
        raise malformed
    payload, _, mac = word.removeprefix(_MARK).partition(".")
    try:
        token = msgspec.json.decode(_unb64(payload), type=Token)
        if token.expires_utc.tzinfo is None or not token.members:
            raise malformed
        return token, payload, _unb64(mac)
    except (binascii.Error, *UNREADABLE) as e:
        raise malformed from e


def _mac(payload: str, key: bytes) -> bytes:
    return hmac.digest(key, b"futago token\0" + payload.encode(), hashlib.sha256)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _unb64(text: str) -> bytes:
    raw = text.encode("ascii")
    data = base64.b64decode(raw + b"=" * (-len(raw) % 4), altchars=b"-_", validate=True)
    if _b64(data) != text:
        raise ValueError("not the one way to write it")
    return data
