"""The engine against a real database, real echoes and real ports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from futago.inventory.apply import apply
from futago.inventory.definitions import parse
from futago.monitoring import engine as engine_module
from futago.monitoring.engine import MonitoringEngine
from futago.monitoring.model import Pair, Result, Verdict
from futago.monitoring.probes import tcp
from futago.monitoring.probes.ping import Pinger
from futago.monitoring.schedule import next_on_grid
from futago.runtime.clock import now_utc
from futago.runtime.engine import EngineContext, Outward
from futago.runtime.log import Log
from futago.setup.settings import MemberSettings, PairSettings, Settings
from futago.store.commit import Connection, Store
from postgres_cluster import Cluster

SETTINGS = Settings(
    me="m1",
    pair=PairSettings(name="lab", id="p", floating_ip="10.0.0.100/24"),
    members=[MemberSettings(name="m1", service="10.0.0.1", heartbeat="10.1.0.1", interface="eth0")],
)
ALIVE = "{kind: Host, name: alive, address: 127.0.0.1}"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a raw socket needs CAP_NET_RAW")
MS = timedelta(milliseconds=1)
LONG = timedelta(seconds=30)
WAIT_S = 60


async def _apply(store: Store, text: str) -> None:
    async def work(conn: Connection) -> None:
        await apply(conn, parse(text))

    await store.commit(work, name="test.apply")


async def _rows(store: Store, query: str) -> list[tuple[object, ...]]:
    async def work(conn: Connection) -> list[tuple[object, ...]]:
        return await (await conn.execute(query.encode())).fetchall()

    return await store.read(work, name="test.rows")


async def _until_rows(store: Store, query: str, wanted: Callable[[list[tuple[object, ...]]], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not wanted(found := await _rows(store, query)):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.03)


@contextlib.asynccontextmanager
async def _running(store: Store, *, epoch: int = 7) -> AsyncIterator[MonitoringEngine]:
    context = EngineContext(SETTINGS, store, epoch, Outward(is_allowed=True), Log())
    made = MonitoringEngine(context)
    task = asyncio.create_task(made.run())
    try:
        yield made
        assert not task.done(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.contextmanager
def _port(*, is_open: bool) -> Iterator[int]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        if is_open:
            s.listen(64)
        yield s.getsockname()[1]


def _monitor(name: str, rest: str, *, interval: str = "200ms", timeout: str = "150ms") -> str:
    return (
        f"{ALIVE}\n---\n{{kind: Monitor, name: {name}, scope: '*', interval: {interval}, timeout: {timeout}, {rest}}}"
    )


@needs_root
async def test_living_host_answers_a_ping() -> None:
    pinger = Pinger()
    results = await asyncio.gather(*(pinger.ping("127.0.0.1", LONG) for _ in range(200)))
    assert all(r.verdict is Verdict.OK and r.value is not None and 0 < r.value < 1000 for r in results)
    pinger.close()


@needs_root
async def test_busy_loop_does_not_make_the_host_look_slow() -> None:
    pinger = Pinger()
    asked = asyncio.create_task(pinger.ping("127.0.0.1", LONG))
    await asyncio.sleep(0)
    time.sleep(1)  # the loop stands still while the reply arrives
    result = await asked
    assert result.value is not None and result.value < 500
    pinger.close()


@needs_root
@pytest.mark.parametrize(
    ("prepare", "verdict"),
    [
        ("ip link set lo up && echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all", Verdict.FAILED),
        ("true", Verdict.IMPOSSIBLE),  # a network without any interface that is up
    ],
)
async def test_silence_is_a_failure_but_a_dead_network_of_our_own_is_not(prepare: str, verdict: Verdict) -> None:
    program = (
        "import asyncio, datetime as d\nfrom futago.monitoring.probes.ping import Pinger\n"
        "async def main():\n print(str((await Pinger().ping('127.0.0.2', d.timedelta(seconds=0.2))).verdict))\n"
        "asyncio.run(main())"
    )
    script = f'{prepare} && exec "$0" -c "$1"'
    child = await asyncio.create_subprocess_exec(
        "unshare", "--net", "sh", "-c", script, sys.executable, program, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await child.communicate()
    assert said.decode().strip() == verdict


@needs_root
async def test_ping_over_ipv6_is_answered() -> None:
    pinger = Pinger()
    result = await pinger.ping("::1", LONG)
    assert result.verdict in (Verdict.OK, Verdict.IMPOSSIBLE), result  # a machine may have no IPv6 at all
    pinger.close()


async def test_tcp_probe_tells_open_from_closed() -> None:
    with _port(is_open=True) as port:
        assert (await tcp.probe("127.0.0.1", port, LONG)).verdict is Verdict.OK
    with _port(is_open=False) as port:
        result = await tcp.probe("127.0.0.1", port, LONG)
        assert result.verdict is Verdict.FAILED and "refused" in result.text.lower()


@needs_root
async def test_samples_come_at_the_interval_without_a_hole(store: Store) -> None:
    interval = 1000 * MS
    await _apply(store, _monitor("p", "check: ping", interval="1s", timeout="900ms"))
    async with _running(store):
        await _until_rows(store, "SELECT count(*) >= 4 FROM sample", lambda r: r == [(True,)])
    found = await _rows(store, "SELECT at_utc, ok, value FROM sample ORDER BY at_utc")
    at = [row[0] for row in found if isinstance(row[0], datetime)]
    assert all(row[1] for row in found)
    slots = [next_on_grid(Pair("p", "alive"), interval, a) for a in at]
    assert [b - a for a, b in pairwise(slots)] == [interval] * (len(at) - 1), "one sample for each instant of the grid"
    assert await _rows(store, "SELECT status, failures FROM monitor_state") == [("ok", 0)]
    assert await _rows(store, "SELECT count(*) FROM event") == [(0,)]


async def test_status_change_is_a_state_an_event_and_the_intent_to_notify(store: Store) -> None:
    with _port(is_open=True) as port:
        rest = f"check: tcp, port: {port}, failures: 2, notify: [ops]"
        text = _monitor("t", rest, interval="1s", timeout="1s")
        text += "\n---\n{kind: Notification, name: ops, channel: mail, to: [a@b], from: c@d, smtp: {host: h}}"
        await _apply(store, text)
        async with _running(store):
            await _until_rows(store, "SELECT status FROM monitor_state", lambda r: r == [("ok",)])
    async with _running(store):
        await _until_rows(store, "SELECT status FROM monitor_state", lambda r: r == [("critical",)])
    events = await _rows(store, "SELECT priority, source, monitor_name, host_name, epoch, notify, detail FROM event")
    assert events == [("critical", "monitor", "t", "alive", 7, ["ops"], {"before": "ok", "after": "critical"})]


async def test_failures_in_a_row_are_counted_across_a_switch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    epoch = 7

    async def fail(_address: str, _port: int, _timeout: timedelta) -> Result:
        calls.append(epoch)
        if calls.count(7) > 3 and epoch == 7:
            await asyncio.Event().wait()  # the first engine comes no further
        return Result(now_utc(), Verdict.FAILED, None, "refused")

    monkeypatch.setattr(tcp, "probe", fail)
    await _apply(store, _monitor("t", "check: tcp, port: 9, failures: 6", interval="300ms"))
    async with _running(store, epoch=7):
        await _until_rows(store, "SELECT failures FROM monitor_state", lambda r: bool(r) and int(str(r[0][0])) == 3)
    before = await _rows(store, "SELECT status, failures FROM monitor_state")
    assert before == [("unknown", 3)]
    epoch = 8
    async with _running(store, epoch=8):
        await _until_rows(store, "SELECT status FROM monitor_state", lambda r: r == [("critical",)])
    samples = await _rows(store, "SELECT count(*) FROM sample WHERE at_utc <= (SELECT since_utc FROM monitor_state)")
    assert samples == [(6,)], "three before the switch and three after it"
    assert await _rows(store, "SELECT epoch FROM event") == [(8,)]


async def test_what_became_due_during_the_switch_runs_once_and_at_once(store: Store) -> None:
    interval, pair = 2000 * MS, Pair("t", "alive")
    with _port(is_open=True) as port:
        await _apply(store, _monitor("t", f"check: tcp, port: {port}", interval="2s", timeout="2s"))
        async with _running(store):
            await _until_rows(store, "SELECT count(*) >= 2 FROM sample", lambda r: r == [(True,)])
        [(row_due,)] = await _rows(store, "SELECT next_due_utc FROM monitor_state")
        [(count,)] = await _rows(store, "SELECT count(*) FROM sample")
        assert isinstance(row_due, datetime) and isinstance(count, int)
        later = next_on_grid(pair, interval, max(row_due, now_utc()))  # with a whole interval to the next instant
        await asyncio.sleep((later - now_utc()).total_seconds() + 0.01)
        began = now_utc()
        async with _running(store):
            await _until_rows(store, f"SELECT count(*) >= {count + 2} FROM sample", lambda r: r == [(True,)])
    found = [row[0] for row in await _rows(store, "SELECT at_utc FROM sample ORDER BY at_utc")]
    *_, last, first, second = [a for a in found[: count + 2] if isinstance(a, datetime)]
    assert last < row_due < began, "it became due while nobody was there"
    assert began < first < next_on_grid(pair, interval, began)
    next_instant = next_on_grid(pair, interval, first)
    assert next_instant <= second < next_instant + interval, "then the old grid goes on"


async def test_unknown_commit_is_repeated_and_nothing_is_written_twice(
    store: Store, postgres: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The standby is gone for a while: each attempt ends in doubt at its deadline, and later turns out to have happened."""
    monkeypatch.setattr(engine_module, "DEADLINE_S", 0.4)
    with _port(is_open=True) as port:
        await _apply(store, _monitor("t", f"check: tcp, port: {port}, failures: 1"))
        async with _running(store):
            await _until_rows(store, "SELECT count(*) >= 3 FROM sample", lambda r: r == [(True,)])
            with postgres.absent_standby():
                await asyncio.sleep(3)
                async with asyncio.timeout(WAIT_S):
                    while not store.counters.unknown:
                        await asyncio.sleep(0.02)
            back = now_utc().isoformat()
            await _until_rows(
                store, f"SELECT count(*) >= 3 FROM sample WHERE at_utc > '{back}'", lambda r: r == [(True,)]
            )
    found = [row[0] for row in await _rows(store, "SELECT at_utc FROM sample ORDER BY at_utc")]
    at = [a for a in found if isinstance(a, datetime)]
    assert max(Counter(at).values()) == 1
    assert max(b - a for a, b in pairwise(at)) < 2000 * MS, "probing goes on while the database waits"


async def test_new_definitions_are_followed_within_a_second(store: Store) -> None:
    with _port(is_open=True) as port:
        async with _running(store):
            await asyncio.sleep(0.1)
            await _apply(store, _monitor("t", f"check: tcp, port: {port}"))
            await _until_rows(store, "SELECT count(*) > 0 FROM sample", lambda r: r == [(True,)])
            assert engine_module.WATCH_S + engine_module.WRITE_S < 1
            await _apply(store, _monitor("t", f"check: tcp, port: {port}, enabled: false"))
            async with asyncio.timeout(WAIT_S):
                before, after = [(-1,)], [(0,)]
                while after != before:
                    before = after
                    await asyncio.sleep(1)  # five intervals without a sample
                    after = await _rows(store, "SELECT count(*) FROM sample")


async def test_row_that_vanished_under_the_engine_is_begun_anew(store: Store) -> None:
    async def delete(conn: Connection) -> None:
        await conn.execute("DELETE FROM monitor_state")

    with _port(is_open=True) as port:
        await _apply(store, _monitor("t", f"check: tcp, port: {port}"))
        async with _running(store):
            await _until_rows(store, "SELECT count(*) > 2 FROM sample", lambda r: r == [(True,)])
            await store.commit(delete, name="test.delete")
            await _until_rows(store, "SELECT status FROM monitor_state", lambda r: r == [("ok",)])


async def test_clock_that_was_set_back_does_not_silence_a_monitor(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shift = timedelta()

    def shifted() -> datetime:
        return now_utc() + shift

    monkeypatch.setattr(engine_module, "now_utc", shifted)
    with _port(is_open=True) as port:
        await _apply(store, _monitor("t", f"check: tcp, port: {port}"))
        async with _running(store):
            await _until_rows(store, "SELECT count(*) > 2 FROM sample", lambda r: r == [(True,)])
            shift = timedelta(hours=-1)
            [(before,)] = await _rows(store, "SELECT count(*) FROM sample")
            assert isinstance(before, int)
            await _until_rows(store, f"SELECT count(*) >= {before + 5} FROM sample", lambda r: r == [(True,)])


async def test_clock_that_is_set_back_under_a_probe_does_not_silence_its_pair(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shift = timedelta(hours=1)
    asked, answer, asked_again = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def shifted() -> datetime:
        return now_utc() + shift

    async def wait(*_: object) -> Result:
        (asked_again if answer.is_set() else asked).set()
        await answer.wait()
        return Result(now_utc(), Verdict.OK, 1.0, "answered")

    monkeypatch.setattr(engine_module, "now_utc", shifted)
    monkeypatch.setattr(tcp, "probe", wait)
    await _apply(store, _monitor("t", "check: tcp, port: 1"))
    async with _running(store) as engine:
        await asyncio.wait_for(asked.wait(), WAIT_S)
        shift = timedelta()
        engine._heed_clock()
        answer.set()
        await asyncio.wait_for(asked_again.wait(), WAIT_S)


async def test_two_hundred_pairs_are_probed_twice_a_second(store: Store) -> None:
    with _port(is_open=True) as port:
        hosts = "\n---\n".join(f"{{kind: Host, name: h{i}, address: 127.0.1.{i}}}" for i in range(1, 201))
        rest = f"check: tcp, port: {port}, scope: '*', interval: 500ms, timeout: 500ms"
        await _apply(store, f"{hosts}\n---\n{{kind: Monitor, name: t, {rest}}}")
        each = "FROM (SELECT count(*) AS n FROM sample GROUP BY host_name) s"
        began_s = time.process_time()
        async with _running(store):
            await _until_rows(store, f"SELECT count(*), min(n) >= 4 {each}", lambda r: r == [(200, True)])
    [(rounds,)] = await _rows(store, f"SELECT avg(n)::float {each}")
    assert isinstance(rounds, float) and (time.process_time() - began_s) / rounds < 0.5, "of a processor"
