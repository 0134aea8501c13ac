"""v1 traps of real senders, mapped to v2: held against pysnmp's mapping, which others made (RFC 3584, section 3.1)."""

from __future__ import annotations

import shutil
import socket
import subprocess
from typing import Any

import pytest
from pyasn1.codec.ber import decoder  # type: ignore[import-untyped]
from pysnmp.proto.api import v1  # type: ignore[import-untyped]
from pysnmp.proto.proxy import rfc2576  # type: ignore[import-untyped]

from futago.intake.snmp import decode

ENTERPRISE = "1.3.6.1.4.1.9999"
UP_TIME, TRAP_OID = "1.3.6.1.2.1.1.3.0", "1.3.6.1.6.3.1.1.4.1.0"
ADDRESS, COMMUNITY, TRAP_ENTERPRISE = "1.3.6.1.6.3.18.1.3.0", "1.3.6.1.6.3.18.1.4.0", "1.3.6.1.6.3.1.1.4.3.0"
VARBINDS = [
    "1.3.6.1.2.1.2.2.1.1.3",
    "i",
    "3",
    f"{ENTERPRISE}.1",
    "s",
    "fan 日本",
    f"{ENTERPRISE}.2",
    "o",
    "1.3.6.1.9.0",
]


def captured(generic: int, specific: int) -> bytes:
    """What a real `snmptrap -v1` sends."""
    if not shutil.which("snmptrap"):
        pytest.skip("snmptrap is not installed")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        s.settimeout(5)
        target = f"127.0.0.1:{s.getsockname()[1]}"
        head = [
            "snmptrap",
            "-v1",
            "-m",
            "",
            "-c",
            "secret",
            target,
            ENTERPRISE,
            "192.0.2.7",
            str(generic),
            str(specific),
        ]
        subprocess.run([*head, "4711", *VARBINDS], check=True, timeout=10)
        return s.recv(65536)


def by_pysnmp(data: bytes) -> dict[str, Any]:
    message, _ = decoder.decode(data, asn1Spec=v1.Message())
    mapped = rfc2576.v1_to_v2(v1.apiMessage.get_pdu(message))
    from pysnmp.proto.api import v2c  # type: ignore[import-untyped]

    return {name.prettyPrint(): value for name, value in v2c.apiTrapPDU.get_varbinds(mapped)}


@pytest.mark.parametrize(("generic", "specific"), [(n, 0) for n in range(6)] + [(6, 42), (6, 0)])
def test_a_real_v1_trap_is_mapped_as_pysnmp_maps_it(generic: int, specific: int) -> None:
    data = captured(generic, specific)
    mine, oracle = decode(data), by_pysnmp(data)
    assert mine.trap_oid == oracle[TRAP_OID].prettyPrint()
    assert mine.up_time == int(oracle[UP_TIME]) == 4711
    found = {one.oid: one.text for one in mine.varbinds}
    for oid, shown in zip(VARBINDS[::3], VARBINDS[2::3], strict=True):
        assert found.pop(oid) == shown
        value = oracle[oid]
        assert shown == (bytes(value).decode() if oid == f"{ENTERPRISE}.1" else value.prettyPrint())
    # The community is left out: it is a secret. Address and enterprise are appended.
    assert found == {ADDRESS: "192.0.2.7", TRAP_ENTERPRISE: ENTERPRISE}
    assert oracle[TRAP_ENTERPRISE].prettyPrint() == ENTERPRISE
    assert "secret" not in mine.text
    assert COMMUNITY not in mine.text
