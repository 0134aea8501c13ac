"""The SNMP decoder against an independent one (pysnmp), and against anything at all."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyasn1.codec.ber import decoder, encoder  # type: ignore[import-untyped]
from pysnmp.proto import api

from futago.intake.snmp import TrapKind, decode, normalised, open_plain, text_opened
from futago.runtime.faults import Corrupt

v1, v2c = api.PROTOCOL_MODULES[api.SNMP_VERSION_1], api.PROTOCOL_MODULES[api.SNMP_VERSION_2C]
UP_TIME, TRAP_OID = "1.3.6.1.2.1.1.3.0", "1.3.6.1.6.3.1.1.4.1.0"
PART = st.integers(0, 2**32 - 1)
OID = st.tuples(st.integers(0, 1), st.integers(0, 39), st.lists(PART, min_size=1, max_size=12)).map(
    lambda p: ".".join(map(str, [p[0], p[1], *p[2]]))
)
VALUE = st.one_of(
    st.integers(-(2**31), 2**31 - 1).map(v2c.Integer32),
    st.integers(0, 2**32 - 1).map(v2c.Counter32),
    st.integers(0, 2**32 - 1).map(v2c.Gauge32),
    st.integers(0, 2**32 - 1).map(v2c.TimeTicks),
    st.integers(0, 2**64 - 1).map(v2c.Counter64),
    st.binary(max_size=300).map(v2c.OctetString),
    OID.map(v2c.ObjectIdentifier),
    st.binary(min_size=4, max_size=4).map(v2c.IpAddress),
)


def encoded(
    varbinds: list[tuple[str, Any]], *, trap_oid: str = "1.3.6.1.6.3.1.1.5.3", request_id: int = 1, up_time: int = 5
) -> bytes:
    pdu = v2c.TrapPDU()
    v2c.apiTrapPDU.set_defaults(pdu)
    v2c.apiTrapPDU.set_request_id(pdu, request_id)
    head = [(UP_TIME, v2c.TimeTicks(up_time)), (TRAP_OID, v2c.ObjectIdentifier(trap_oid))]
    v2c.apiTrapPDU.set_varbinds(pdu, head + varbinds)
    message = v2c.Message()
    v2c.apiMessage.set_defaults(message)
    v2c.apiMessage.set_community(message, "public")
    v2c.apiMessage.set_pdu(message, pdu)
    return bytes(encoder.encode(message))


def shown(value: Any) -> str:
    """How our text form shows a value that pysnmp decoded."""
    if isinstance(value, v2c.IpAddress):
        return ".".join(map(str, bytes(value)))
    if isinstance(value, v2c.OctetString):
        data = bytes(value)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return "0x" + data.hex()
        plain = text if text.isprintable() else text.translate({9: 32, 10: 32, 13: 32}).rstrip("\0")
        return plain if plain.isprintable() else "0x" + data.hex()
    return str(value.prettyPrint()) if isinstance(value, v2c.ObjectIdentifier) else str(int(value))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(OID, VALUE), max_size=8), OID)
def test_what_pysnmp_encodes_is_decoded_as_pysnmp_decodes_it(varbinds: list[tuple[str, Any]], trap_oid: str) -> None:
    raw = encoded(varbinds, trap_oid=trap_oid)
    trap = decode(raw)
    message, rest = decoder.decode(raw, asn1Spec=v2c.Message())
    pdu = v2c.apiMessage.get_pdu(message)
    oracle = [(o.prettyPrint(), shown(v)) for o, v in v2c.apiTrapPDU.get_varbinds(pdu)]
    assert not rest
    assert trap.kind is TrapKind.TRAP
    assert trap.community == b"public"
    assert (trap.up_time, trap.trap_oid) == (5, trap_oid)
    assert text_opened(open_plain(raw)) == trap.text
    mine = [(v.oid, v.text) for v in trap.varbinds]
    assert mine == [pair for pair in oracle if pair[0] not in (UP_TIME, TRAP_OID)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(OID, VALUE), max_size=4), PART, PART, st.integers(1, 2**31 - 1))
def test_request_id_and_up_time_are_not_part_of_the_content(
    varbinds: list[tuple[str, Any]], time_a: int, time_b: int, request_id: int
) -> None:
    a = encoded(varbinds, up_time=time_a)
    b = encoded(varbinds, up_time=time_b, request_id=request_id)
    assert normalised(a) == normalised(b)
    assert normalised(a) != normalised(encoded([*varbinds, ("1.3.6.1.9", v2c.Integer32(1))]))


def v1_trap(time: int, generic: int = 6) -> bytes:
    pdu = v1.TrapPDU()
    v1.apiTrapPDU.set_defaults(pdu)
    v1.apiTrapPDU.set_enterprise(pdu, "1.3.6.1.4.1.9999")
    v1.apiTrapPDU.set_agent_address(pdu, "192.0.2.7")
    v1.apiTrapPDU.set_generic_trap(pdu, generic)
    v1.apiTrapPDU.set_specific_trap(pdu, 42)
    v1.apiTrapPDU.set_timestamp(pdu, time)
    v1.apiTrapPDU.set_varbinds(pdu, [("1.3.6.1.4.1.9999.1", v1.OctetString("hello"))])
    message = v1.Message()
    v1.apiMessage.set_defaults(message)
    v1.apiMessage.set_community(message, "public")
    v1.apiMessage.set_pdu(message, pdu)
    return bytes(encoder.encode(message))


def test_v1_is_mapped_as_rfc_3584_says() -> None:
    trap = decode(v1_trap(7))
    assert trap.text == (
        "trapOID=1.3.6.1.4.1.9999.0.42 1.3.6.1.4.1.9999.1=hello"
        " 1.3.6.1.6.3.18.1.3.0=192.0.2.7 1.3.6.1.6.3.1.1.4.3.0=1.3.6.1.4.1.9999"
    )
    assert decode(v1_trap(7, generic=2)).trap_oid == "1.3.6.1.6.3.1.1.5.3"
    assert normalised(v1_trap(7)) == normalised(v1_trap(99999))
    assert normalised(v1_trap(7)) != normalised(v1_trap(7, generic=2))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
@example(b"")
@example(b"\x30\x80\x00\x00")
@example(b"\x30\x84\xff\xff\xff\xff")
def test_nothing_but_corrupt_is_raised_on_any_bytes(data: bytes) -> None:
    with pytest.raises(Corrupt):
        decode(data)
    assert normalised(data) == data


SAMPLE = encoded([("1.3.6.1.2.1.2.2.1.1.2", v2c.Integer32(2)), ("1.3.6.1.9.9", v2c.OctetString("x" * 200))])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_nothing_but_corrupt_is_raised_on_damaged_traps(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from([SAMPLE, v1_trap(1)])))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    normalised(cut)
    with contextlib.suppress(Corrupt):
        text = text_opened(open_plain(cut))
        assert text.startswith("trapOID=")
        assert decode(cut).text == text
