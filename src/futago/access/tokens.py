"""Secrets that we draw ourselves: session cookies, API tokens, and the CSRF token derived from a session.

They have 256 random bits, so a plain SHA-256 is enough to store them; only the hash reaches the database.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

SECRET_LENGTH_MAX = 200


def draw_secret() -> str:
    """Return a new random secret, 43 characters that are safe in URLs, headers and cookies."""
    return secrets.token_urlsafe(32)


def hash_secret(secret: str) -> bytes:
    """Return the 32 bytes under which a secret is stored."""
    return hashlib.sha256(secret[:SECRET_LENGTH_MAX].encode()).digest()


def csrf_token(session_secret: str) -> str:
    """Return the token that a page sends in a header to show that it could read our page, not only make the browser
    send our cookie.

    It is derived from the cookie's secret, which scripts cannot read, so it needs no storage and ends with the
    session.
    """
    return hmac.new(session_secret.encode(), b"futago csrf", hashlib.sha256).hexdigest()


def is_csrf_token(session_secret: str, offered: str) -> bool:
    """Return whether `offered` is the session's CSRF token, in time that does not depend on where it differs."""
    return hmac.compare_digest(csrf_token(session_secret), offered)
