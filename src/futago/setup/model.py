"""What a newcomer and a member say to each other: the frames of admission, on PORT_CONTROL, without a client
certificate.

`ca` is asked over an unverified connection and gives only what its reader checks against the token's fingerprint.
Everything else is asked over a connection verified with it. `hello` changes nothing: the newcomer's checks use it.
`join` and `enroll` may be repeated.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from futago.setup.settings import MemberSettings, PairSettings

PEM_CHARS_MAX = 16_384
REQUEST_BYTES_MAX = 65_536  # every request fits many times; more is an attack
OPS = frozenset({"ca", "hello", "join", "enroll"})  # what a member answers to strangers


class Ca(msgspec.Struct, frozen=True, tag_field="op", tag="ca", forbid_unknown_fields=True):
    """Which authority does this pair have?"""


class Hello(msgspec.Struct, frozen=True, tag_field="op", tag="hello", forbid_unknown_fields=True):
    """Who are you? The token may be of either purpose."""

    token: str
    purpose: str


class Join(msgspec.Struct, frozen=True, tag_field="op", tag="join", forbid_unknown_fields=True):
    """Take me in as the second member. `fence_passwords`: of the devices that can power me off, since you will use them;
    one for each, empty where there is none.
    """

    token: str
    csr: str
    version: str
    member: MemberSettings
    fence_passwords: list[str] = []


class Enroll(msgspec.Struct, frozen=True, tag_field="op", tag="enroll", forbid_unknown_fields=True):
    """Take me in as an agent, reachable at `address`."""

    token: str
    csr: str
    version: str
    name: str
    address: str


Request = Ca | Hello | Join | Enroll


class Refusal(msgspec.Struct, frozen=True):
    """No, because. The fields of an OperatorFault."""

    error: str
    hint: str
    code: str
    ok: bool = False


class CaAnswer(msgspec.Struct, frozen=True):
    ca_cert: str
    ok: bool = True


class HelloAnswer(msgspec.Struct, frozen=True):
    """`member` is who answers; `taken` are the names of all members."""

    pair: PairSettings
    member: MemberSettings
    taken: list[str]
    version: str
    utc: datetime
    ok: bool = True


class JoinAnswer(msgspec.Struct, frozen=True):
    """All that the second member needs. `settings` is the text of its settings file; `fence_passwords` by the
    name of the file that holds each.
    """

    settings: str
    ca_cert: str
    ca_key: str
    cert: str
    heartbeat_key: str  # hex digits, as the next
    token_key: str
    fence_passwords: dict[str, str]
    admin_token: str
    ok: bool = True


class EnrollAnswer(msgspec.Struct, frozen=True):
    ca_cert: str
    cert: str
    pair_id: str
    members: list[str]  # addresses of all members on the service network
    ok: bool = True


Answer = Refusal | CaAnswer | HelloAnswer | JoinAnswer | EnrollAnswer
