"""SNMPv3 with real net-snmp and pysnmp senders: what they protect is opened, what is forged or old is not."""

from __future__ import annotations

import asyncio
import hmac
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import Journal, add_monitor, all_rows, engine, eventually
from pysnmp.hlapi.v3arch.asyncio import (  # type: ignore[import-untyped]
    ContextData,
    NotificationType,
    ObjectIdentity,
    OctetString,
    SnmpEngine,
    UdpTransportTarget,
    UsmUserData,
    send_notification,
    usmAesCfb128Protocol,
    usmHMAC192SHA256AuthProtocol,
)
from test_snmp_decoder import encoded

from futago.intake import ber, snmp
from futago.intake.consume import Places
from futago.intake.informs import engine_named
from futago.intake.model import Protocol, Record
from futago.intake.options import Snmp, User, engine_id
from futago.intake.traps import TrapCounters, TrapReader
from futago.intake.usm import BOOTS, EPOCH_S, Doubt, Doubtful, Security, SenderTimes, _sealed, localised, parse, spread
from futago.intake.usm_desk import Answer, Question
from futago.intake.usm_program import Answerer
from futago.runtime.faults import Corrupt
from futago.store.commit import Store

AUTHS = ("sha1", "sha224", "sha256", "sha384", "sha512")
USERS = [
    User("plain"),
    *(User(f"auth{auth}", auth, "auth-password") for auth in AUTHS),
    *(User(f"priv{auth}", auth, "auth-password", "aes128", "priv-password") for auth in AUTHS),
]
NET_SNMP = {"sha1": "SHA", "sha224": "SHA-224", "sha256": "SHA-256", "sha384": "SHA-384", "sha512": "SHA-512"}
LINK_DOWN = "1.3.6.1.6.3.1.1.5.3"
IF_INDEX = "1.3.6.1.2.1.2.2.1.1.2"


def sender_args(user: User, *, engine: str = "0x8000000001020304") -> list[str]:
    """The options of net-snmp's tools for a user."""
    args = ["-v3", "-m", "", "-e", engine, "-u", user.name]
    if not user.auth:
        return [*args, "-l", "noAuthNoPriv"]
    args += ["-a", NET_SNMP[user.auth], "-A", user.auth_password]
    return (
        [*args, "-l", "authPriv", "-x", "AES", "-X", user.priv_password] if user.priv else [*args, "-l", "authNoPriv"]
    )


@pytest.fixture(scope="module")
def captured() -> dict[str, tuple[bytes, bytes]]:
    """For each user two datagrams of two real `snmptrap` processes with one content."""
    if not shutil.which("snmptrap"):
        pytest.skip("snmptrap is not installed")
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        s.settimeout(5)
        target = f"127.0.0.1:{s.getsockname()[1]}"
        for user in USERS:
            command = ["snmptrap", *sender_args(user), target, "", LINK_DOWN, IF_INDEX, "i", "2"]
            pair = []
            for _ in range(2):
                subprocess.run(command, check=True, timeout=10)
                pair.append(s.recv(65536))
            found[user.name] = (pair[0], pair[1])
    return found


@pytest.mark.parametrize("user", USERS, ids=lambda user: user.name)
def test_what_snmptrap_protects_is_opened_and_two_copies_have_one_content(
    user: User, captured: dict[str, tuple[bytes, bytes]]
) -> None:
    reader = TrapReader(Snmp(users=USERS), TrapCounters())
    one, two = captured[user.name]
    assert one != two
    opened = reader.look(one).opened
    assert opened is not None
    trap = snmp.decode_opened(opened)
    assert (trap.user, trap.trap_oid, trap.text) == (user.name, LINK_DOWN, f"trapOID={LINK_DOWN} {IF_INDEX}=2")
    assert reader.content(one) == reader.content(two)
    assert all(other == user.name or reader.content(captured[other][0]) != reader.content(one) for other in captured)
    assert reader.text(record(one)) == trap.text


def record(data: bytes, *, time_ns: int = 0) -> Record:
    return Record(1, time_ns, Protocol.SNMP_UDP, 0, bytes(16), 162, data)


def test_strangers_forgeries_and_lower_levels_are_refused(captured: dict[str, tuple[bytes, bytes]]) -> None:
    counters = TrapCounters()
    strict = {user.name: user for user in USERS}
    strict["authsha1"] = User("authsha1", "sha1", "another-password")
    del strict["authsha224"]
    strict["plain"] = User("plain", "sha256", "auth-password")
    strict["authsha256"] = User("authsha256", "sha256", "auth-password", "aes128", "priv-password")
    reader = TrapReader(Snmp(users=list(strict.values())), counters)
    for name, why in (
        ("authsha1", "not authenticated"),
        ("authsha224", "user is not known"),
        ("plain", "security level"),
        ("authsha256", "security level"),
    ):
        text = reader.text(record(captured[name][0]))
        assert text.startswith("refused: ")
        assert why in text
    assert counters.refused == 4
    bent = bytearray(captured["privsha512"][0])
    bent[-1] ^= 1
    assert "not authenticated" in reader.text(record(bytes(bent)))


def test_v2c_and_v1_communities_are_checked() -> None:
    counters = TrapCounters()
    trap = encoded([], trap_oid=LINK_DOWN)
    assert TrapReader(Snmp(communities=["other"]), counters).text(record(trap)).startswith("refused: its community")
    assert TrapReader(Snmp(communities=["public"]), counters).text(record(trap)) == f"trapOID={LINK_DOWN}"
    assert TrapReader(Snmp(), counters).text(record(trap)) == f"trapOID={LINK_DOWN}"
    assert counters.refused == 1


def test_keys_are_those_of_the_rfc() -> None:
    """RFC 3414, appendix A.3.2."""
    engine = bytes.fromhex("000000000000000000000002")
    key = spread(b"maplesyrup", "sha1")
    assert key.hex() == "9fb5cc0381497b3793528939ff788d5d79145211"
    assert localised(key, engine, "sha1").hex() == "6695febc9288e36282235fc7151f128497b38f3f"


def test_a_trap_that_someone_repeats_later_is_old_and_one_from_a_late_journal_is_not(
    captured: dict[str, tuple[bytes, bytes]],
) -> None:
    message = parse(captured["privsha256"][0])
    s, times = 1_000_000_000, SenderTimes()
    at = 10**18
    assert times.is_fresh(message._replace(time=1000), at)
    assert times.is_fresh(message._replace(time=1100), at + 100 * s)
    assert not times.is_fresh(message._replace(time=1000), at + 300 * s)
    assert times.is_fresh(message._replace(time=500), at - 500 * s), "received earlier, read later"
    assert times.is_fresh(message._replace(time=5000), at + 300 * s), "its clock runs ahead"
    assert not times.is_fresh(message._replace(time=1400), at + 400 * s)
    assert times.is_fresh(message._replace(boots=message.boots + 1, time=0), at + 500 * s)
    assert not times.is_fresh(message._replace(time=5200), at + 501 * s), "from before its restart"


def test_a_repetition_takes_no_effect(captured: dict[str, tuple[bytes, bytes]]) -> None:
    reader = TrapReader(Snmp(users=USERS), TrapCounters())
    data = captured["privsha256"][0]
    assert reader.text(record(data)).startswith("trapOID=")
    assert "a repetition" in reader.text(record(data, time_ns=200 * 10**9))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_the_bytes_a_notification_has_a_text_and_a_content(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from([SAMPLE_PRIV, SAMPLE_PLAIN])))
    for _ in range(data.draw(st.integers(0, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    reader = TrapReader(Snmp(users=[USERS[0], USERS[8]]), TrapCounters())
    assert reader.text(record(cut)).startswith(("trapOID=", "refused: ", "undecodable: "))
    assert reader.content(cut) is not None
    answer = Answerer(SECURITY, ENGINE).answer(Question(1, cut), now_s=int(time.time()))
    assert answer.number == 1


SECURITY = Security(USERS)
ENGINE = engine_id("a-pair")


def made_inform(
    user: User, *, engine: bytes = ENGINE, now_s: int | None = None, value: bytes = b"x", tag: int = snmp.INFORM
) -> bytes:
    """An INFORM as a sender would make it. Our own sealing: that it is right is shown with net-snmp and pysnmp."""
    name = ber.value(ber.OID, bytes.fromhex("2b060102010202"))
    varbinds = ber.value(ber.SEQUENCE, ber.value(ber.SEQUENCE, name + ber.value(ber.STRING, value)))
    pdu = ber.value(tag, ber.integer_value(7) + ber.integer_value(0) * 2 + varbinds)
    scoped = ber.value(ber.SEQUENCE, ber.value(ber.STRING, engine) + ber.value(ber.STRING, b"") + pdu)
    try:
        keys = SECURITY._keys_of(user.name.encode(), engine)
    except Doubtful:
        keys = SECURITY._keys_of(b"plain", engine)
    now = int(time.time()) if now_s is None else now_s
    data = _sealed(5, keys, user.name.encode(), scoped, engine_id=engine, now_s=now, salt=bytes(8))
    flags_at = data.index(bytes((0x04, 0x01, keys.level)))
    # Reportable, which an INFORM is: so the code must be made again.
    message = bytearray(data)
    message[flags_at + 2] |= 4
    if keys.auth:
        at = parse(data).code_at
        message[at : at + keys.code_bytes] = bytes(keys.code_bytes)
        code = hmac.digest(keys.auth_key, bytes(message), keys.auth)[: keys.code_bytes]
        message[at : at + keys.code_bytes] = code
    return bytes(message)


SAMPLE_PRIV, SAMPLE_PLAIN = made_inform(USERS[8]), made_inform(USERS[0])


def reported(reply: bytes) -> int:
    """Which counter a report names."""
    message = parse(reply)
    scoped = reply[message.scoped_at :]
    at = scoped.index(bytes.fromhex("2b060106030f0101"))
    return scoped[at + 8]


@pytest.mark.parametrize("user", [USERS[0], USERS[3], USERS[8]], ids=lambda user: user.name)
def test_an_inform_is_answered_only_if_it_is_for_us_of_now_and_of_a_known_user(user: User) -> None:
    answerer, now_s = Answerer(SECURITY, ENGINE), int(time.time())
    good = answerer.answer(Question(1, made_inform(user)), now_s=now_s)
    assert good.identity
    again = answerer.answer(Question(2, made_inform(user)), now_s=now_s)
    assert again.identity == good.identity
    assert (again.reply != good.reply) is bool(user.priv), "no salt is used twice"
    assert answerer.answer(Question(3, made_inform(user, value=b"y")), now_s=now_s).identity != good.identity
    other = answerer.answer(Question(4, made_inform(user, engine=b"another engine")), now_s=now_s)
    assert (other.identity, reported(other.reply)) == (b"", Doubt.ENGINE.value)
    stranger = answerer.answer(Question(5, made_inform(User("stranger"))), now_s=now_s)
    assert (stranger.identity, reported(stranger.reply)) == (b"", Doubt.USER.value)
    old = answerer.answer(Question(6, made_inform(user, now_s=now_s - 1000)), now_s=now_s)
    recorded = answerer.answer(Question(7, made_inform(user, now_s=now_s - 1000), True), now_s=now_s)
    assert recorded.identity == good.identity
    assert recorded.reply == b""
    if user.auth:
        assert (old.identity, reported(old.reply)) == (b"", Doubt.TIME.value)
        report = parse(old.reply)
        assert (report.engine_id, report.boots, report.time) == (ENGINE, BOOTS, now_s - EPOCH_S)
        assert SECURITY._keys_of(user.name.encode(), ENGINE).auth
        assert report.flags == 1


@pytest.mark.parametrize("user", [USERS[0], USERS[3], USERS[8]], ids=lambda user: user.name)
def test_a_trap_whose_sender_wrongly_wants_an_answer_is_taken(user: User) -> None:
    """Its engine is the sender's own. Of an INFORM for another engine the sender is told of ours, and repeats it."""
    answerer, now_s = Answerer(SECURITY, ENGINE), int(time.time())
    trap = made_inform(user, engine=b"\x80\0\0\0\x01device", tag=snmp.V2_TRAP)
    assert answerer.answer(Question(1, trap), now_s=now_s) == Answer(1, is_foreign=True)
    unknown = made_inform(user, engine=b"\x80\0\0\0\x01device", tag=snmp.V2_TRAP).replace(
        user.name.encode(), user.name.encode()[::-1], 1
    )
    taken = answerer.answer(Question(2, unknown), now_s=now_s)
    assert (taken.is_foreign, reported(taken.reply)) == (True, Doubt.ENGINE.value), "shown as refused, not lost"
    assert engine_named(trap) == b"\x80\0\0\0\x01device"
    inform = made_inform(user, engine=b"\x80\0\0\0\x01device")
    assert not answerer.answer(Question(3, inform), now_s=now_s).is_foreign


def test_messages_of_other_security_models_or_cut_off_are_corrupt() -> None:
    for data in (b"", SAMPLE_PLAIN[:-1], SAMPLE_PLAIN.replace(b"\x02\x01\x03\x04", b"\x02\x01\x02\x04", 1)):
        with pytest.raises(Corrupt):
            parse(data)


async def test_pysnmp_trap_is_opened() -> None:
    """An independent implementation protects; ours opens."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        s.setblocking(False)
        user = UsmUserData(
            "privsha256",
            "auth-password",
            "priv-password",
            authProtocol=usmHMAC192SHA256AuthProtocol,
            privProtocol=usmAesCfb128Protocol,
        )
        target = await UdpTransportTarget.create(("127.0.0.1", s.getsockname()[1]))
        varbinds = NotificationType(ObjectIdentity(LINK_DOWN)).add_varbinds(
            ("1.3.6.1.9.1", OctetString("日本語".encode()))
        )
        engine = SnmpEngine()
        await send_notification(engine, user, target, ContextData(), "trap", varbinds)
        data = await asyncio.wait_for(loop.sock_recv(s, 65536), 5)
        engine.close_dispatcher()
    reader = TrapReader(Snmp(users=USERS), TrapCounters())
    assert reader.text(record(data)) == f"trapOID={LINK_DOWN} 1.3.6.1.9.1=日本語"


async def test_two_members_copies_of_one_v3_trap_make_one_event(
    database: str, store: Store, tmp_path: Path, captured: dict[str, tuple[bytes, bytes]]
) -> None:
    """Two processes of the sender protect it twice, with two salts and message ids."""
    options = tmp_path / "intake.toml"
    options.touch(0o600)
    options.write_text(
        '[[snmp.users]]\nname = "privsha256"\nauth = "sha256"\nauth_password = "auth-password"\n'
        'priv = "aes128"\npriv_password = "priv-password"\n'
    )
    places = Places(tmp_path / "own", tmp_path / "copy", tmp_path / "sock", options)
    one, two = Journal(places.own), Journal(places.copy)
    await add_monitor(database, "links", "snmptrap", {"match": LINK_DOWN, "priority": "warning", "message": "{text}"})
    await add_monitor(database, "refused", "snmptrap", {"match": "^refused: .*", "priority": "info", "message": "no"})
    try:
        async with engine(store, places) as running:
            one.add(captured["privsha256"][0], protocol=Protocol.SNMP_UDP)
            two.add(captured["privsha256"][1], captured["privsha1"][1], protocol=Protocol.SNMP_UDP)
            await eventually(database, "SELECT count(*) FROM event", 2)
            await eventually(database, "SELECT count(*) FROM intake_position", 2)
    finally:
        one.close()
        two.close()
    found = await all_rows(database, "SELECT monitor_name, message FROM event ORDER BY monitor_name")
    assert found == [("links", f"trapOID={LINK_DOWN} {IF_INDEX}=2"), ("refused", "no")]
    assert (running.counters.suppressed, running.counters.refused) == (1, 1)
