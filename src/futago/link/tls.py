"""Mutual TLS between our programs, on the pair's own certificate authority.

A certificate's subject says who holds it: O = pair id, OU = "member" or "agent", CN = name. The name of the machine in the network plays no part:
a peer is whoever holds a certificate of this pair, so addresses may change.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

from futago.runtime.faults import RemoteProtocolFault
from futago.setup import paths


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is at the other end. `kind` is "member" or "agent"."""

    kind: str
    name: str
    pair_id: str


def server_context(
    *, cert: Path = paths.OWN_CERT, key: Path = paths.OWN_KEY, ca: Path = paths.CA_CERT, anonymous_allowed: bool = False
) -> ssl.SSLContext:
    """Return a context for a listening program. With `anonymous_allowed`, clients may come without a certificate (enrolment)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(cert, key)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_OPTIONAL if anonymous_allowed else ssl.CERT_REQUIRED
    return context


def client_context(
    *, cert: Path = paths.OWN_CERT, key: Path = paths.OWN_KEY, ca: Path = paths.CA_CERT
) -> ssl.SSLContext:
    """Return a context for a connecting program; the caller checks `identity` of the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # identity is the subject, checked by `require`
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(cert, key)
    context.load_verify_locations(ca)
    return context


def identity(writer: asyncio.StreamWriter) -> Identity | None:
    """Return who is at the other end of a TLS stream; None if it came without a certificate."""
    certificate = writer.get_extra_info("peercert")
    if not certificate:
        return None
    subject = {key: value for part in certificate["subject"] for key, value in part}
    return Identity(
        kind=subject.get("organizationalUnitName", ""),
        name=subject.get("commonName", ""),
        pair_id=subject.get("organizationName", ""),
    )


def require(writer: asyncio.StreamWriter, *, pair_id: str, kind: str, name: str | None = None) -> Identity:
    """Return the identity at the other end if it is of this pair, kind and (if given) name.

    Raises:
        RemoteProtocolFault: someone else; the caller closes and counts.
    """
    who = identity(writer)
    if who is None or who.pair_id != pair_id or who.kind != kind or (name is not None and who.name != name):
        raise RemoteProtocolFault(f"expected {kind} {name or ''} of pair {pair_id}, met {who}")
    return who
