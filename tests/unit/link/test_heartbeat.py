"""Heartbeats: forged, broken, replayed and one-way words are never believed and never fatal."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from free_ports import free_port
from futago.cluster.model import Epoch, Heartbeat, Lsn, MemberName, PgState, View, Wants
from futago.link.heartbeat import ECHO_AGE_MAX, HeartbeatEndpoint, Path, PeerWatch, Wire, seal, unseal
from futago.runtime.clock import MS, S, now_at
from futago.runtime.faults import RemoteProtocolFault
from futago.runtime.log import Log

KEY = bytes(range(32))
T0 = 1000 * S
A, B = MemberName("a"), MemberName("b")


def word(member: MemberName, **changes: object) -> Heartbeat:
    base = Heartbeat(
        member=member,
        boot="",
        seq=0,
        view=View(Epoch(3), A, frozenset({A, B}), Lsn(77)),
        intent=Epoch(0),
        is_able=True,
        pg=PgState.PRIMARY,
        timeline=1,
        flush=Lsn(5),
        replay=Lsn(5),
        is_streaming=False,
        is_disk_ok=True,
        gate_open=True,
        address_held=True,
        wants=Wants("solo", Epoch(4)),
        journals_complete=True,
        is_fit=True,
        service_ok=True,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def watch(
    own: MemberName, peer: MemberName, *, boot: str, pair: str = "p", key: bytes = KEY, now: int = T0
) -> PeerWatch:
    return PeerWatch(pair=pair, own=own, peer=peer, boot=boot, links=("service", "heartbeat"), key=key, now=now)


def met(now: int = T0) -> tuple[PeerWatch, PeerWatch]:
    """Two members that have answered each other on the service link."""
    a, b = watch(A, B, boot="boot-a"), watch(B, A, boot="boot-b")
    b.receive("service", a.datagram("service", word(A), now=now), now=now)
    a.receive("service", b.datagram("service", word(B), now=now + MS), now=now + 2 * MS)
    b.receive("service", a.datagram("service", word(A), now=now + 3 * MS), now=now + 4 * MS)
    return a, b


def test_sealed_word_comes_back_whole() -> None:
    wire = Wire(1, "p", "service", "x", 9, False, "0.1", word(A))
    assert unseal(seal(wire, KEY), KEY) == wire


def test_members_know_each_other_after_three_words() -> None:
    a, b = met()
    assert a.peer.heartbeat is not None and a.peer.heartbeat.member == B
    assert b.peer.heartbeat is not None and b.peer.heartbeat.wants == Wants("solo", Epoch(4))
    link = next(x for x in b.peer.links if x.name == "service")
    assert link.rx_at == T0 + 4 * MS and link.echo_at == T0 + MS
    silent = next(x for x in b.peer.links if x.name == "heartbeat")
    assert silent.rx_at is None and silent.echo_at is None


def test_new_boot_is_not_believed_before_it_answers_a_word_of_ours() -> None:
    b = watch(B, A, boot="boot-b")
    a = watch(A, B, boot="boot-a")
    assert b.receive("service", a.datagram("service", word(A), now=T0), now=T0) is False
    assert b.peer.heartbeat is None and b.peer.heard_at is None


def test_recording_of_an_earlier_boot_is_not_believed_even_in_order() -> None:
    a, b = met()
    recorded = a.datagram("service", word(A), now=T0 + 5 * MS)
    b2 = watch(B, A, boot="boot-b-again")
    assert b2.receive("service", recorded, now=T0) is False
    assert b2.peer.heartbeat is None
    a2 = watch(A, B, boot="boot-a-again")  # the peer has booted as well and is met again
    b.receive("service", a2.datagram("service", word(A), now=T0 + S), now=T0 + S)
    a2.receive("service", b.datagram("service", word(B), now=T0 + S), now=T0 + S)
    b.receive("service", a2.datagram("service", word(A), now=T0 + S + MS), now=T0 + S + MS)
    assert b.peer.heartbeat is not None and b.peer.heartbeat.boot == "boot-a-again"
    with pytest.raises(RemoteProtocolFault, match="replay"):
        b.receive("service", recorded, now=T0 + 2 * S)


def test_answer_to_a_word_too_old_does_not_prove_a_new_boot() -> None:
    a, b = watch(A, B, boot="boot-a"), watch(B, A, boot="boot-b")
    a.receive("service", b.datagram("service", word(B), now=T0), now=T0)
    late = a.datagram("service", word(A), now=T0)
    assert b.receive("service", late, now=T0 + ECHO_AGE_MAX + S) is False
    assert b.peer.heartbeat is None


def test_repeated_datagram_is_refused() -> None:
    a, b = met()
    again = a.datagram("service", word(A), now=T0 + 10 * MS)
    b.receive("service", again, now=T0 + 10 * MS)
    with pytest.raises(RemoteProtocolFault, match="replay"):
        b.receive("service", again, now=T0 + 11 * MS)


def test_word_of_one_link_is_not_taken_on_the_other() -> None:
    a, b = met()
    with pytest.raises(RemoteProtocolFault, match="stranger"):
        b.receive("heartbeat", a.datagram("service", word(A), now=T0 + 9 * MS), now=T0 + 9 * MS)


@pytest.mark.parametrize(
    "stranger",
    [watch(A, B, boot="x", pair="other"), watch(A, B, boot="x", key=b"k" * 32)],
    ids=["another pair", "another key"],
)
def test_stranger_is_refused(stranger: PeerWatch) -> None:
    _, b = met()
    before = b.peer
    with pytest.raises(RemoteProtocolFault):
        b.receive("service", stranger.datagram("service", word(A), now=T0 + S), now=T0 + S)
    assert b.peer == before


def test_own_word_reflected_is_refused() -> None:
    a, _ = met()
    with pytest.raises(RemoteProtocolFault, match="stranger"):
        a.receive("service", a.datagram("service", word(A), now=T0 + S), now=T0 + S)


def test_one_way_link_keeps_its_echo_old() -> None:
    a, b = met()
    for i in range(1, 20):  # b hears a, a hears nothing any more
        now = T0 + i * 200 * MS
        b.receive("service", a.datagram("service", word(A), now=now), now=now)
    link = next(x for x in b.peer.links if x.name == "service")
    assert link.rx_at == T0 + 19 * 200 * MS and link.echo_at == T0 + MS


def test_older_word_from_a_slower_link_does_not_undo_a_newer_one() -> None:
    a, b = met()
    slow = a.datagram("heartbeat", word(A, gate_open=True), now=T0 + 10 * MS)
    fast = a.datagram("service", word(A, gate_open=False), now=T0 + 20 * MS)
    assert b.receive("service", fast, now=T0 + 21 * MS) is True
    b.receive("heartbeat", slow, now=T0 + 22 * MS)
    assert b.peer.heartbeat is not None and b.peer.heartbeat.gate_open is False


def test_unfit_since_is_the_first_unfit_word_and_ends_with_a_fit_one() -> None:
    a, b = met()
    for i in (1, 2):
        now = T0 + i * S
        b.receive("service", a.datagram("service", word(A, is_fit=False), now=now), now=now)
    assert b.peer.unfit_since == T0 + S
    b.receive("service", a.datagram("service", word(A), now=T0 + 3 * S), now=T0 + 3 * S)
    assert b.peer.unfit_since is None


def test_wants_since_is_when_the_present_wish_was_first_heard() -> None:
    a, b = met()
    assert b.peer.wants_since == T0 + 4 * MS
    b.receive("service", a.datagram("service", word(A), now=T0 + S), now=T0 + S)
    assert b.peer.wants_since == T0 + 4 * MS
    other = word(A, wants=Wants("solo", Epoch(5)))
    b.receive("service", a.datagram("service", other, now=T0 + 2 * S), now=T0 + 2 * S)
    assert b.peer.wants_since == T0 + 2 * S
    b.receive("service", a.datagram("service", word(A, wants=None), now=T0 + 3 * S), now=T0 + 3 * S)
    assert b.peer.wants_since is None


def test_bye_is_noted_and_withdrawn_by_the_next_word() -> None:
    a, b = met()
    b.receive("service", a.datagram("service", word(A), now=T0 + S, is_bye=True), now=T0 + S)
    assert b.peer.said_bye
    b.receive("service", a.datagram("service", word(A), now=T0 + 2 * S), now=T0 + 2 * S)
    assert not b.peer.said_bye


def test_unchanged_word_is_no_news() -> None:
    a, b = met()
    assert b.receive("service", a.datagram("service", word(A), now=T0 + S), now=T0 + S) is False
    assert b.receive("service", a.datagram("service", word(A, is_fit=False), now=T0 + 2 * S), now=T0 + 2 * S) is True


@given(st.binary(max_size=600))
def test_garbage_is_refused_and_changes_nothing(garbage: bytes) -> None:
    _, b = met()
    before = b.peer
    with pytest.raises(RemoteProtocolFault):
        b.receive("service", garbage, now=T0 + S)
    assert b.peer == before


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_any_flipped_byte_is_refused(at: int, flip: int) -> None:
    a, b = met()
    good = bytearray(a.datagram("service", word(A), now=T0 + S))
    good[at % len(good)] ^= flip
    with pytest.raises(RemoteProtocolFault):
        b.receive("service", bytes(good), now=T0 + S)


@given(st.binary(max_size=400))
def test_rightly_sealed_nonsense_is_refused(body: bytes) -> None:
    import hashlib
    import hmac

    _, b = met()
    with pytest.raises(RemoteProtocolFault):
        b.receive("service", body + hmac.digest(KEY, body, hashlib.sha256), now=T0 + S)


async def test_two_endpoints_meet_over_sockets_under_a_rain_of_garbage() -> None:
    port, log = free_port(), Log(program="test")
    links = {A: Path("service", "127.0.0.1", "127.0.0.2"), B: Path("service", "127.0.0.2", "127.0.0.1")}
    news = {A: asyncio.Event(), B: asyncio.Event()}
    ends: dict[MemberName, HeartbeatEndpoint] = {}
    for own, peer in ((A, B), (B, A)):
        w = PeerWatch(pair="p", own=own, peer=peer, boot=f"boot-{own}", links=("service",), key=KEY, now=now_at())
        ends[own] = HeartbeatEndpoint(
            watch=w,
            links=(links[own],),
            h=20 * MS,
            compose=partial(word, own),
            on_change=news[own].set,
            log=log,
            port=port,
        )
    tasks = [asyncio.create_task(e.run()) for e in ends.values()]
    rain, rng = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), random.Random(4)
    await asyncio.sleep(0)  # both sockets are open
    try:
        for _ in range(500):
            rain.sendto(rng.randbytes(rng.randrange(0, 1400)), (rng.choice(["127.0.0.1", "127.0.0.2"]), port))
        await asyncio.wait_for(asyncio.gather(*(n.wait() for n in news.values())), 60)
        assert ends[A].watch.refused.total() > 0 or ends[B].watch.refused.total() > 0
        await ends[A].say_bye()
        await asyncio.wait_for(_until(lambda: ends[B].watch.peer.said_bye), 60)
    finally:
        rain.close()
        for t in tasks:
            t.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await t


async def _until(condition: object) -> None:
    while not condition():  # type: ignore[operator]
        await asyncio.sleep(0.001)


async def test_endpoint_survives_a_missing_address() -> None:
    w = watch(A, B, boot="x")
    end = HeartbeatEndpoint(
        watch=w,
        links=(Path("service", "203.0.113.7", "203.0.113.8"),),
        h=5 * MS,
        compose=lambda: word(A),
        on_change=lambda: None,
        log=Log(),
        port=free_port(),
    )
    w._links.pop("heartbeat")
    task = asyncio.create_task(end.run())
    await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
