"""What the intake is told beyond the pair's settings: /etc/futago/intake.toml, the same on both members, optional.

It holds SNMP communities and passwords, so it must not be readable by others. Light: the receiver reads it. Unknown
keys, wrong types and impossible values are refused with the place.
"""

from __future__ import annotations

import os
import tomllib
from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec

from futago.runtime.faults import OperatorFault
from futago.setup import paths

OPTIONS = paths.ETC / "intake.toml"
# Name of an authentication protocol -> bytes of its code in a message (RFC 3414, RFC 7860).
AUTH_CODE_BYTES = {"sha1": 12, "sha224": 16, "sha256": 24, "sha384": 32, "sha512": 48}
PASSWORD_CHARS_MIN = 8  # RFC 3414, section 11.2
USERS_MAX = 1000
KEPT_DAYS_MAX, KEPT_ROWS_MAX = 3660, 100_000_000
CONNECTIONS_MAX = 16_384  # each is a descriptor, and may hold a frame
# Least and most of each bound on time, in seconds.
UNFINISHED_S, IDLE_S, HANDSHAKE_S = (10, 86_400), (60, 31 * 86_400), (1, 60)
_OTHERS = 0o037  # neither writable by the group nor anything to others
_ENGINE_ID_START = bytes.fromhex("80007ed905")  # an enterprise number for examples (RFC 5612), then "octets"


class User(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One SNMPv3 user. Without `auth` its messages are taken as they are; with it only if they are authenticated, with
    `priv` only if they are encrypted, too.
    """

    name: str
    auth: str = ""  # one of AUTH_CODE_BYTES
    auth_password: str = ""
    priv: str = ""  # "aes128"
    priv_password: str = ""


class Snmp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may send notifications."""

    communities: list[str] | None = None  # None: any
    users: list[User] = []


class SyslogTls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Syslog over TLS (RFC 5425). Without `cert` the member's own certificate is shown; `client_ca` asks senders for
    one of its certificates, `clients` names those whose common name or DNS name is taken (empty: all of that
    authority).
    """

    port: int = 6514
    cert: str = ""
    key: str = ""
    client_ca: str = ""
    clients: list[str] = []


class Relp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """RELP, by default without TLS."""

    port: int = 2514
    is_tls: bool = msgspec.field(default=False, name="tls")  # with what [syslog_tls] says


class Connections(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds on connections of senders, of syslog by TCP and TLS and of RELP together. `per_sender`: of one address.
    `unfinished_s`: a frame of syslog that has begun ends within; `idle_s`: a connection that says nothing for so long is
    ended, 0: never; `handshake_s`: TLS is agreed on within.
    """

    max: int = 4096
    per_sender: int = 1024
    unfinished_s: int = 300
    idle_s: int = 0
    handshake_s: int = 10


class Messages(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which received messages are kept for search, for how long and how many. `keep`: all, or those of monitors that
    say `keep: true`.
    """

    keep: Literal["all", "monitors"] = "monitors"
    days: int = 7
    rows: int = 1_000_000


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. Its absence means: no syslog over TLS, no RELP, any community, no SNMPv3 users."""

    snmp: Snmp = Snmp()
    syslog_tls: SyslogTls | None = None
    relp: Relp | None = None
    messages: Messages = Messages()
    connections: Connections = Connections()


def load(where: Path = OPTIONS) -> Options:
    """Read the file; its absence is the default.

    Raises:
        OperatorFault: it cannot be read, others can read it, or something in it is wrong.
    """
    try:
        with where.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & _OTHERS:
                raise _fault(where, "others can read or change it, and it holds passwords", f"chmod 600 {where}")
            return parse(file.read().decode(), where=where)
    except FileNotFoundError:
        return Options()
    except (OSError, UnicodeDecodeError) as e:
        raise _fault(where, f"it cannot be read: {e}", f"chown futago: {where}; chmod 600 {where}") from e


def parse(text: str, *, where: Path) -> Options:
    """Return what `text` says. Raises OperatorFault."""
    try:
        options = msgspec.convert(tomllib.loads(text), Options)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as e:
        raise _fault(where, str(e)) from e  # names keys and types, no values
    names = [user.name for user in options.snmp.users]
    if len(set(names)) != len(names) or len(names) > USERS_MAX:
        raise _fault(where, f"snmp.users: names must differ, and there may be {USERS_MAX}")
    for user in options.snmp.users:
        _check_user(user, where)
    for server in (options.syslog_tls, options.relp):
        if server is not None and not 0 < server.port <= 65_535:
            raise _fault(where, f"{server.port} is not a port")
    tls = options.syslog_tls
    if tls is not None and bool(tls.cert) != bool(tls.key):
        raise _fault(where, "syslog_tls: cert and key belong together")
    if tls is not None and tls.clients and not tls.client_ca:
        raise _fault(where, "syslog_tls.clients needs client_ca: without it nobody shows a certificate")
    if options.relp is not None and options.relp.is_tls and tls is None:
        raise _fault(where, "relp.tls takes its certificates from [syslog_tls], which is not there")
    kept = options.messages
    if not 1 <= kept.days <= KEPT_DAYS_MAX or not 1 <= kept.rows <= KEPT_ROWS_MAX:
        raise _fault(where, f"messages: days is from 1 to {KEPT_DAYS_MAX}, rows from 1 to {KEPT_ROWS_MAX:,}")
    _check_connections(options.connections, where)
    return options


def _check_connections(wanted: Connections, where: Path) -> None:
    if not 1 <= wanted.max <= CONNECTIONS_MAX or not 1 <= wanted.per_sender <= CONNECTIONS_MAX:
        raise _fault(where, f"connections: max and per_sender are from 1 to {CONNECTIONS_MAX:,}")
    times = (
        ("unfinished_s", wanted.unfinished_s, UNFINISHED_S),
        ("idle_s", wanted.idle_s or IDLE_S[0], IDLE_S),  # 0: never
        ("handshake_s", wanted.handshake_s, HANDSHAKE_S),
    )
    for name, value, (least, most) in times:
        if not least <= value <= most:
            zero = " (0: never)" if name == "idle_s" else ""
            raise _fault(where, f"connections.{name} is from {least} to {most}{zero}")


def _check_user(user: User, where: Path) -> None:
    place = f"snmp.users.{user.name}"
    if not 1 <= len(user.name.encode()) <= 32:
        raise _fault(where, f"{place}: a name has 1 to 32 bytes")
    if user.auth and user.auth not in AUTH_CODE_BYTES:
        raise _fault(where, f"{place}.auth is `{user.auth}`; there are: {', '.join(AUTH_CODE_BYTES)}")
    if user.priv and (user.priv != "aes128" or not user.auth):
        raise _fault(where, f"{place}.priv: there is aes128, and it needs auth")
    for kind, password in ((user.auth, user.auth_password), (user.priv, user.priv_password)):
        if kind and len(password.encode()) < PASSWORD_CHARS_MIN:
            raise _fault(where, f"{place}: a password has {PASSWORD_CHARS_MIN} characters or more")


class OptionsWatch:
    """The options as they are now: `look` reads the file again when it changed. What is wrong leaves what was.

    Args:
        path: the file.
    """

    def __init__(self, path: Path = OPTIONS) -> None:
        self.path = path
        self.current = Options()
        self.fault = ""
        self.revision = 0
        self._stamp: tuple[int, ...] | None = ()

    def look(self) -> bool:
        """Return whether the options changed, or what is wrong with them."""
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self.current, self.fault = load(self.path), ""
            self.revision += 1
        except OperatorFault as e:
            self.fault = str(e)
        return True

    def _stamp_now(self) -> tuple[int, ...] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size)


def engine_id(pair_id: str) -> bytes:
    """Return the SNMP engine id of a pair. Both members have the same, so that a sender of INFORMs need not notice which
    of them has the floating IP.
    """
    return _ENGINE_ID_START + sha256(b"futago snmp engine " + pair_id.encode()).digest()[:8]


def _fault(where: Path, what: str, hint: str = "Correct it; it is read again within seconds.") -> OperatorFault:
    return OperatorFault(f"{where}: {what}.", hint=hint, code="intake.options")
