"""ICMP as bytes, with a reference computed by another implementation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from icmplib.sockets import ICMPv4Socket

from futago.monitoring.probes import icmp

TOKEN = b"12345678"


def _reply(packet: bytes) -> bytes:
    return bytes([icmp.REPLY_V4]) + packet[1:]


IP_HEADER = bytes([0x45]) + bytes(19)
IP_HEADER_WITH_OPTIONS = bytes([0x46]) + bytes(23)


def test_checksum_is_that_of_another_implementation() -> None:
    packet = icmp.echo(is_v6=False, identifier=77, token=TOKEN, number=3)
    bare = packet[:2] + b"\0\0" + packet[4:]
    assert int.from_bytes(packet[2:4]) == ICMPv4Socket._checksum(None, bare)
    assert icmp.checksum(packet) == 0


@given(st.integers(min_value=0, max_value=2**64 - 1), st.sampled_from([IP_HEADER, IP_HEADER_WITH_OPTIONS]))
def test_reply_to_our_echo_is_ours(number: int, header: bytes) -> None:
    packet = icmp.echo(is_v6=False, identifier=1, token=TOKEN, number=number)
    assert icmp.reply_number(header + _reply(packet), is_v6=False, token=TOKEN) == number
    assert icmp.reply_number(header + packet, is_v6=False, token=TOKEN) is None, "an echo request is no reply"
    assert icmp.reply_number(header + _reply(packet), is_v6=False, token=b"87654321") is None


@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_are_looked_at_and_never_break_it(packet: bytes, is_v6: bool) -> None:
    assert icmp.reply_number(packet, is_v6=is_v6, token=TOKEN) is None
