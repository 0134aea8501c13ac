"""Receiving and packing many datagrams at once gives what doing it one by one gives."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from futago.intake.listen import pack_address
from futago.intake.mmsg import BATCH, BatchReceiver
from futago.intake.model import Protocol
from futago.intake.segment import pack_record, pack_records, scan, walk

MESSAGES = st.lists(st.tuples(st.binary(max_size=80), st.binary(min_size=16, max_size=16), st.integers(0, 65_535)))


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_datagrams_come_whole_in_order_and_with_their_senders(family: int, host: str) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as s, socket.socket(family, socket.SOCK_DGRAM) as sender:
        s.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
        s.setblocking(False)
        s.bind((host, 0))
        sender.bind((host, 0))
        receiver = BatchReceiver(s)
        assert receiver.receive() == []
        sent = [b"", b"x", os.urandom(65_000), *(b"%d" % n for n in range(2 * BATCH))]
        for data in sent:
            sender.sendto(data, s.getsockname())
        found = []
        while batch := receiver.receive():
            assert len(batch) <= BATCH
            found += batch
    assert [one[0] for one in found] == sent
    assert {one[1:] for one in found} == {(pack_address(host), sender_port(found))}


def sender_port(found: list[tuple[bytes, bytes, int]]) -> int:
    return found[0][2]


def test_a_closed_socket_is_an_error_not_an_end() -> None:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver = BatchReceiver(s)
    s.close()
    with pytest.raises(OSError, match="Bad file"):
        receiver.receive()


@given(MESSAGES, st.integers(1, 2**60))
def test_records_packed_together_are_those_packed_alone(messages: list[tuple[bytes, bytes, int]], first: int) -> None:
    pieces, last, size = pack_records(messages, first=first, time_ns=77, protocol=1)
    alone = [
        pack_record(sequence=first + n, time_ns=77, protocol=1, flags=0, source=source, port=port, data=data)
        for n, (data, source, port) in enumerate(messages)
    ]
    assert b"".join(pieces) == b"".join(alone)
    assert (last, size) == (first + len(messages) - 1, len(b"".join(alone)))


@given(MESSAGES, st.data())
def test_a_walk_finds_what_a_scan_finds(messages: list[tuple[bytes, bytes, int]], data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from([1, 3]), min_size=len(messages), max_size=len(messages)))
    blob = bytearray(
        b"".join(
            pack_record(sequence=n + 1, time_ns=n, protocol=kind, flags=0, source=m[1], port=m[2], data=m[0])
            for n, (kind, m) in enumerate(zip(kinds, messages, strict=True))
        )
    )
    for _ in range(data.draw(st.integers(0, 2)) if blob else 0):
        blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    cut = bytes(blob[: data.draw(st.integers(0, len(blob)))])
    after = data.draw(st.integers(0, 3))
    through = data.draw(st.none() | st.integers(0, 8))
    scanned = scan(cut, after=after, through=through)
    walked = walk(cut, after=after, through=through, choose={Protocol.SNMP_UDP})
    assert (walked.end, walked.is_damaged) == (scanned.end, scanned.is_damaged)
    assert walked.chosen == [r for r in scanned.records if r.protocol == Protocol.SNMP_UDP]
    if scanned.records:
        assert (walked.first, walked.last) == (scanned.records[0].sequence, scanned.records[-1].sequence)
    else:
        assert walked.first == 0
