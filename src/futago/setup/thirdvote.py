"""The settings of the third vote, `[third_vote]`: where the register W is kept.

Light, as settings.py is: the controller reads it at start-up. Lives here: the nouns and what each kind needs. Must not
live here: how a kind is spoken to (futago/register). The jurors of a jury, and the one of a witness, stand in
`[[jurors]]`; the version of whatever is seated in `roster`. Both are written by `futago vote set` and `futago jury set`,
never by hand: a change of the third vote is a change of view.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

JURY, WITNESS, ETCD, OBJECTSTORE, NONE = "jury", "witness", "etcd", "objectstore", "none"
SIZES = {JURY: (3, 5), WITNESS: (1,)}
ENDPOINTS_MAX = 7


class ThirdVote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where W is kept.

    Args:
        kind: jury, witness, etcd, objectstore, none; empty: as pair.authority says (a jury, or none).
        endpoints: of the etcd's members, or the store's one, as URLs.
        bucket, region: of an object store.
        prefix: of the key in an etcd, or of the object's name.
        user: of an etcd with authentication; the access key of an object store.
        password_file: its password, or the secret key; readable by root only.
        ca_file: whom to trust for https; the system's authorities if empty.
        cert_file, key_file: what we show to an etcd that asks for client certificates.
        seat: drawn when it was seated; what the register's content must carry.
    """

    kind: str = ""
    endpoints: list[str] = []
    bucket: str = ""
    region: str = ""
    prefix: str = "futago"
    user: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    seat: str = ""

    @property
    def files(self) -> dict[str, str]:
        """The files that it names, by what they hold."""
        named = {"password": self.password_file, "ca": self.ca_file, "cert": self.cert_file, "key": self.key_file}
        return {what: where for what, where in named.items() if where}


@dataclass(frozen=True, slots=True)
class Shape:
    """What a kind needs, and may be given besides."""

    needs: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()


_TLS = frozenset({"ca_file", "cert_file", "key_file"})
SHAPES = {
    JURY: Shape(),
    WITNESS: Shape(),
    ETCD: Shape(needs=frozenset({"endpoints"}), may=_TLS | {"user", "password_file"}),
    OBJECTSTORE: Shape(
        needs=frozenset({"endpoints", "bucket", "region", "user", "password_file"}), may=frozenset({"ca_file"})
    ),
    NONE: Shape(),
}
_FIELDS = ("endpoints", "bucket", "region", "user", "password_file", "ca_file", "cert_file", "key_file")


def kind_of(vote: ThirdVote, *, authority: str) -> str:
    """Return the kind, spelled out."""
    return vote.kind or (NONE if authority == "fence" else JURY)


def problem(vote: ThirdVote, *, authority: str, jurors: int) -> str:
    """Return what is wrong with the settings of the third vote, as half a sentence that begins with its key; empty if
    they can be used.

    Args:
        authority: pair.authority. The fence device and a third vote never decide together.
        jurors: how many stand in [[jurors]]; 0: none is seated yet.
    """
    kind = kind_of(vote, authority=authority)
    shape = SHAPES.get(kind)
    if shape is None:
        return f"third_vote.kind is `{kind}`; it must be one of {', '.join(sorted(SHAPES))}"
    if (authority == "fence") != (kind == NONE) and (vote.kind or authority == "fence"):
        return (
            f'third_vote.kind is `{kind}` and pair.authority is "{authority}"; '
            'kind "none" goes with authority "fence", every other with authority "register"'
        )
    if jurors and jurors not in SIZES.get(kind, ()):
        return _wrong_number(kind, jurors)
    for field in _FIELDS:
        value = getattr(vote, field)
        if field in shape.needs and not value:
            return f"third_vote.{field} is missing, which the kind {kind} needs"
        if value and field not in shape.needs | shape.may:
            return f"third_vote.{field} has no meaning for the kind {kind}"
    return _problem_of_values(vote, kind)


def _wrong_number(kind: str, jurors: int) -> str:
    if kind == JURY:
        return f"a jury has 3 or 5 jurors, not {jurors}"
    if kind == WITNESS:
        return f"a witness is one juror, not {jurors}"
    return f"jurors have no meaning for the third vote {kind}"


def _problem_of_values(vote: ThirdVote, kind: str) -> str:
    most = ENDPOINTS_MAX if kind == ETCD else 1
    if len(vote.endpoints) > most:
        return f"third_vote.endpoints: {len(vote.endpoints)} of them, more than {most}"
    for url in vote.endpoints:
        if wrong := _problem_of_url(url):
            return f"third_vote.endpoints: `{url}` {wrong}"
    for one, other in (("cert_file", "key_file"), ("user", "password_file")):
        if bool(getattr(vote, one)) != bool(getattr(vote, other)):
            return f"third_vote.{one} and {other} go together"
    for field, pattern, meaning in _PATTERNS:
        if getattr(vote, field) and not re.fullmatch(pattern, getattr(vote, field)):
            return f"third_vote.{field} is `{getattr(vote, field)}`; {meaning}"
    return ""


_PATTERNS = (
    ("prefix", r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*", "it may hold letters, digits and . _ -, with slashes between"),
    ("bucket", r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}", "that is no name of a bucket"),
    ("region", r"[a-z0-9-]{1,32}", "that is no name of a region"),
    ("user", r"[!-~]{1,200}", "it may hold no spaces and no control characters"),
)


def _problem_of_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as e:
        return f"is no URL: {e}"
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or port == 0:
        return "is not of the form https://host:port"
    if parts.path.strip("/") or parts.query or parts.fragment or not url.isascii() or not url.isprintable():
        return "must name a server and nothing else"
    return ""
