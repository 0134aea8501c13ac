"""Passwords of people: argon2id, with the parameters of RFC 9106's low-memory profile (argon2-cffi's default).

Hashing takes tens of milliseconds and 64 MiB on purpose: call it in a thread, a few at a time (see the web's login),
never in an event loop.
"""

from __future__ import annotations

import secrets

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

from futago.runtime.faults import OperatorFault

LENGTH_MIN = 10
LENGTH_MAX = 200  # a bound on the work that a stranger can ask for

_HASHER = argon2.PasswordHasher()
# The hash of a password that nobody has: verified when the account does not exist, so that the answer takes as long
# as for one that does.
NOBODY = _HASHER.hash(secrets.token_urlsafe(32))


def hash_password(password: str) -> str:
    """Return the argon2id hash of `password` in its standard text form.

    Raises:
        OperatorFault: if the password is shorter than LENGTH_MIN or longer than LENGTH_MAX characters.
    """
    if not LENGTH_MIN <= len(password) <= LENGTH_MAX:
        raise OperatorFault(
            f"A password has {LENGTH_MIN} to {LENGTH_MAX} characters; this one has {len(password)}.",
            hint="Choose another one.",
            code="access.password",
        )
    return _HASHER.hash(password)


def verify_password(password_hash: str, password: str) -> bool:
    """Return whether `password` is the one that was hashed. False, too, for a hash that cannot be read."""
    try:
        return _HASHER.verify(password_hash, password[:LENGTH_MAX])
    except (VerificationError, InvalidHashError):
        return False
