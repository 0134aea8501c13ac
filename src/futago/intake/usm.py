"""SNMPv3 messages and their user-based security (RFC 3412, RFC 3414; SHA-2 of RFC 7860; AES of RFC 3826). Pure.

Opens what senders protect, and makes what we answer: responses to INFORMs and the reports by which a sender finds out
our engine's id and time. Not for the receiver's own process: it loads `cryptography`.

Our engine's time is the wall clock since EPOCH_S, with one number of boots for ever. So both members of a pair are one
engine whose time goes on through a switch, and nothing need be stored; clocks may differ by less than the window.
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import new as new_hash
from typing import NamedTuple

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from futago.intake import ber, snmp
from futago.intake.ber import INTEGER, SEQUENCE, STRING, expect, integer, integer_value, value
from futago.intake.options import AUTH_CODE_BYTES, User
from futago.intake.snmp import NOTIFICATIONS, VERSION_3, Opened
from futago.runtime.faults import Corrupt

EPOCH_S = 1_735_689_600  # 2025-01-01: engine time counts from here, 2^31 seconds are 68 years
BOOTS = 1
WINDOW_S = 150  # RFC 3414, section 2.2.3
MESSAGE_BYTES_MAX = 65_507
_KEYS_REMEMBERED = 20_000  # an engine id is whatever a sender writes: bounded
_SPREAD_BYTES = 1 << 20  # RFC 3414, appendix A.2
_AUTH, _PRIV, _REPORTABLE = 1, 2, 4
_SECURITY_MODEL = 3
_REPORT = 0xA8
_COUNTER32 = 0x41


class Doubt(enum.Enum):
    """Why a message is not taken, and the last part of the counter that a report names (RFC 3414, section 5)."""

    LEVEL = 1
    TIME = 2
    USER = 3
    ENGINE = 4
    DIGEST = 5
    DECRYPTION = 6


class Doubtful(Exception):
    """A well-formed message that security does not let through."""

    def __init__(self, doubt: Doubt) -> None:
        super().__init__(doubt.name.lower())
        self.doubt = doubt


class Message(NamedTuple):
    """The envelope of a v3 message. `code_at`: where its authentication code stands; `scoped_at`: where its scoped PDU
    begins, which ends at `end`.
    """

    data: bytes
    id: int
    flags: int
    engine_id: bytes
    boots: int
    time: int
    user: bytes
    code_at: int
    code: bytes
    salt: bytes
    scoped_at: int
    end: int

    @property
    def is_reportable(self) -> bool:
        """Does the sender want an answer?"""
        return bool(self.flags & _REPORTABLE)


def parse(data: bytes) -> Message:
    """Return the envelope of a v3 message. Raises Corrupt."""
    at, end = expect(data, 0, len(data), SEQUENCE)
    start, at = expect(data, at, end, INTEGER)
    if integer(data, start, at) != VERSION_3:
        raise Corrupt("SNMP: not version 3")
    head, head_end = expect(data, at, end, SEQUENCE)
    start, at = expect(data, head, head_end, INTEGER)
    message_id = integer(data, start, at)
    _, at = expect(data, at, head_end, INTEGER)
    start, at = expect(data, at, head_end, STRING)
    flags = data[start] if at - start == 1 else -1
    start, at = expect(data, at, head_end, INTEGER)
    if flags < 0 or integer(data, start, at) != _SECURITY_MODEL or flags & (_AUTH | _PRIV) == _PRIV:
        raise Corrupt("SNMP: a v3 message of another security model, or with impossible flags")
    outer, scoped_at = expect(data, head_end, end, STRING)
    start, stop = expect(data, outer, scoped_at, SEQUENCE)
    engine, at = expect(data, start, stop, STRING)
    engine_id = data[engine:at]
    start, at = expect(data, at, stop, INTEGER)
    boots = integer(data, start, at)
    start, at = expect(data, at, stop, INTEGER)
    time = integer(data, start, at)
    start, at = expect(data, at, stop, STRING)
    user = data[start:at]
    code_at, at = expect(data, at, stop, STRING)
    code = data[code_at:at]
    start, at = expect(data, at, stop, STRING)
    if len(engine_id) > 32 or len(user) > 32 or boots < 0 or time < 0:
        raise Corrupt("SNMP: security parameters out of their ranges")
    return Message(data, message_id, flags, engine_id, boots, time, user, code_at, code, data[start:at], scoped_at, end)


@dataclass(frozen=True, slots=True)
class _Keys:
    auth: str  # "" without
    code_bytes: int
    auth_key: bytes
    cipher_key: bytes  # b"" without
    cipher: AES | None = None  # made of it

    @property
    def level(self) -> int:
        return (_AUTH if self.auth else 0) | (_PRIV if self.cipher_key else 0)


def spread(password: bytes, auth: str) -> bytes:
    """Return the key of a password (RFC 3414, appendix A.2): some milliseconds, on purpose."""
    whole = password * (_SPREAD_BYTES // len(password) + 1)
    return new_hash(auth, whole[:_SPREAD_BYTES]).digest()


def localised(key: bytes, engine_id: bytes, auth: str) -> bytes:
    """Return a user's key for one engine."""
    return new_hash(auth, key + engine_id + key).digest()


class Security:
    """The users, and their keys for every engine that was met.

    Args:
        users: from the options; their passwords are turned into keys here, some milliseconds each.
    """

    def __init__(self, users: Iterable[User]) -> None:
        self._users = {user.name.encode(): user for user in users}
        self._spread = {
            user.name.encode(): (
                spread(user.auth_password.encode(), user.auth),
                spread(user.priv_password.encode(), user.auth) if user.priv else b"",
            )
            for user in self._users.values()
            if user.auth
        }
        self._keys: dict[tuple[bytes, bytes], _Keys] = {}

    def open_message(self, message: Message) -> Opened:
        """Return the notification in a v3 message: authenticated and decrypted as its user's settings ask. The time
        window is the caller's.

        Raises:
            Corrupt: not a notification.
            Doubtful: not let through.
        """
        keys = self.verified(message)
        return _notification(self._plain(message, keys), message.user)

    def verified(self, message: Message) -> _Keys:
        """Return the keys of a message whose sender is who it says it is. Raises Doubtful."""
        keys = self._keys_of(message.user, message.engine_id)
        if message.flags & (_AUTH | _PRIV) != keys.level:
            raise Doubtful(Doubt.LEVEL)
        if keys.auth:
            if len(message.code) != keys.code_bytes:
                raise Doubtful(Doubt.DIGEST)
            data, at = message.data, message.code_at
            blank = b"".join((data[:at], bytes(keys.code_bytes), data[at + keys.code_bytes : message.end]))
            if not hmac.compare_digest(_code(keys, blank), message.code):
                raise Doubtful(Doubt.DIGEST)
        return keys

    def answer(self, message: Message, *, engine_id: bytes, now_s: int, salt: bytes) -> bytes:
        """Return the response to an INFORM, protected as that was.

        Args:
            salt: 8 bytes that are never used twice with one key.

        Raises:
            As `open_message`.
        """
        keys = self.verified(message)
        scoped = self._plain(message, keys)
        pdu = snmp.response_pdu(_notification(scoped, message.user))
        context, _, _ = scoped_context(scoped)
        return _sealed(
            message.id,
            keys,
            message.user,
            value(SEQUENCE, context + pdu),
            engine_id=engine_id,
            now_s=now_s,
            salt=salt,
        )

    def report(self, message: Message, doubt: Doubt, count: int, *, engine_id: bytes, now_s: int) -> bytes:
        """Return the report that tells a sender what is wrong, and our engine's id and time with it. One about the time
        is authenticated, as senders must not believe it otherwise.
        """
        name = bytes.fromhex("2b06010603") + bytes((15, 1, 1, doubt.value, 0))
        varbind = value(SEQUENCE, value(ber.OID, name) + integer_value(count, tag=_COUNTER32))
        nothing = integer_value(0)
        pdu = value(_REPORT, nothing * 3 + value(SEQUENCE, varbind))
        scoped = value(SEQUENCE, value(STRING, engine_id) + value(STRING, b"") + pdu)
        keys, user = _NO_KEYS, message.user
        if doubt is Doubt.TIME:
            known = self._keys_of(message.user, engine_id)
            keys = _Keys(known.auth, known.code_bytes, known.auth_key, b"")
        return _sealed(message.id, keys, user, scoped, engine_id=engine_id, now_s=now_s, salt=b"")

    def _keys_of(self, user: bytes, engine_id: bytes) -> _Keys:
        known = self._keys.get((user, engine_id))
        if known is not None:
            return known
        settings = self._users.get(user)
        if settings is None:
            raise Doubtful(Doubt.USER)
        if not settings.auth:
            return _NO_KEYS
        auth, priv = self._spread[user]
        cipher_key = localised(priv, engine_id, settings.auth)[:16] if priv else b""
        made = _Keys(
            settings.auth,
            AUTH_CODE_BYTES[settings.auth],
            localised(auth, engine_id, settings.auth),
            cipher_key,
            AES(cipher_key) if cipher_key else None,
        )
        if len(self._keys) >= _KEYS_REMEMBERED:
            self._keys.clear()
        self._keys[user, engine_id] = made
        return made

    @staticmethod
    def _plain(message: Message, keys: _Keys) -> bytes:
        """Return the scoped PDU, decrypted."""
        data, at = message.data, message.scoped_at
        if keys.cipher is None:
            return data[at : message.end]
        start, stop = expect(data, at, message.end, STRING)
        if len(message.salt) != 8:
            raise Doubtful(Doubt.DECRYPTION)
        cipher = Cipher(keys.cipher, CFB(_vector(message.boots, message.time, message.salt)))
        return cipher.decryptor().update(data[start:stop])


_NO_KEYS = _Keys("", 0, b"", b"")


def _vector(boots: int, time: int, salt: bytes) -> bytes:
    return (boots & 0xFFFFFFFF).to_bytes(4, "big") + (time & 0xFFFFFFFF).to_bytes(4, "big") + salt


def _code(keys: _Keys, blank: bytes) -> bytes:
    return hmac.digest(keys.auth_key, blank, keys.auth)[: keys.code_bytes]


def scoped_context(data: bytes) -> tuple[bytes, int, int]:
    """Return the encoded context (engine id and name) of a scoped PDU, and the bounds of what follows. Raises Corrupt."""
    start, end = expect(data, 0, len(data), SEQUENCE)
    _, at = expect(data, start, end, STRING)
    _, at = expect(data, at, end, STRING)
    return data[start:at], at, end


def _notification(scoped: bytes, user: bytes) -> Opened:
    try:
        context, at, end = scoped_context(scoped)
        tag, start, stop = ber.header(scoped, at, end)
    except Corrupt as e:
        raise Doubtful(Doubt.DECRYPTION) from e
    if tag not in NOTIFICATIONS or tag == snmp.V1_TRAP:
        raise Corrupt(f"SNMP: PDU {tag:#x} is not a v3 notification")
    _, engine_end = expect(context, 0, len(context), STRING)
    sender = user + b"\0" + context[engine_end:]  # not the engine: of an INFORM it is the receiver's
    return Opened(scoped, VERSION_3, tag, start, stop, sender, user.decode("utf-8", "backslashreplace"))


def _sealed(
    message_id: int, keys: _Keys, user: bytes, scoped: bytes, *, engine_id: bytes, now_s: int, salt: bytes
) -> bytes:
    """Return a whole message with this scoped PDU."""
    time = now_s - EPOCH_S
    if keys.cipher is not None:
        cipher = Cipher(keys.cipher, CFB(_vector(BOOTS, time, salt)))
        scoped = value(STRING, cipher.encryptor().update(scoped))
    head = value(
        SEQUENCE,
        integer_value(message_id)
        + integer_value(MESSAGE_BYTES_MAX)
        + value(STRING, bytes((keys.level,)))
        + integer_value(_SECURITY_MODEL),
    )
    before = value(STRING, engine_id) + integer_value(BOOTS) + integer_value(time) + value(STRING, user)

    def whole(code: bytes) -> bytes:
        security = value(SEQUENCE, before + value(STRING, code) + value(STRING, salt if keys.cipher_key else b""))
        return value(SEQUENCE, integer_value(VERSION_3) + head + value(STRING, security) + scoped)

    return whole(_code(keys, whole(bytes(keys.code_bytes)))) if keys.auth else whole(b"")


@dataclass(slots=True)
class _Anchor:
    boots: int
    time: int
    at_ns: int


class SenderTimes:
    """The engines of senders and their times, to tell a repeated old trap from a new one (RFC 3414, section 3.2, 7b).

    By the time of receipt, not of processing: a journal may be read hours later. The first message of an engine that we
    hear of is believed. Bounded: of more engines than that, the first to be heard of are forgotten.
    """

    def __init__(self, *, engines_max: int = _KEYS_REMEMBERED) -> None:
        self._known: dict[bytes, _Anchor] = {}
        self._max = engines_max

    def is_fresh(self, message: Message, at_ns: int) -> bool:
        """Return whether a message that was authenticated, received at `at_ns`, is of its engine's present."""
        known = self._known.get(message.engine_id)
        if known is None:
            if len(self._known) >= self._max:
                del self._known[next(iter(self._known))]
            self._known[message.engine_id] = _Anchor(message.boots, message.time, at_ns)
            return True
        expected_s = known.time + (at_ns - known.at_ns) // 1_000_000_000
        if message.boots == known.boots:
            if message.time < expected_s - WINDOW_S:
                return False
            is_newer = message.time > expected_s
        else:
            is_newer = message.boots > known.boots
            if not is_newer and at_ns >= known.at_ns:
                return False
        if is_newer:
            known.boots, known.time, known.at_ns = message.boots, message.time, at_ns
        return True
