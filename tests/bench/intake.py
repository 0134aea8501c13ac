"""What the intake costs: `python tests/bench/intake.py`, one JSON object a figure.

Two real receivers on loopback with journal sync over TLS, the consuming engine as a program of its own on a real
PostgreSQL, and a sender that gives each message to both receivers. Every message matches a monitor and becomes an event.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "unit/intake")]

import psycopg  # noqa: E402
from journals import add_monitor, engine  # noqa: E402
from receivers import ReceiverProcess, make_pair, make_pki  # noqa: E402

import postgres_cluster  # noqa: E402
from futago.intake.consume import Places  # noqa: E402
from futago.store import migrate  # noqa: E402
from futago.store.commit import Store  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
# As in production, but for the standby; and the time of each commit is kept.
DURABLE = {
    "fsync": "on",
    "track_commit_timestamp": "on",
    "log_min_messages": "warning",
    "shared_buffers": "256MB",
    "max_wal_size": "8GB",
}


def say(figure: str, value: float, **more: object) -> None:
    print(json.dumps({"figure": figure, "value": round(value, 3), **more}), flush=True)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def send(receivers: tuple[ReceiverProcess, ...], rate: int, seconds: float, start: int) -> int:
    """Send numbered 200-byte messages to all receivers, evenly; return how many."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    began, sent, pad = time.monotonic(), 0, "x" * 130
    while (now := time.monotonic() - began) < seconds:
        while sent < now * rate:
            stamp = time.strftime("%b %d %H:%M:%S")
            data = f"<13>{stamp} web{sent % 50} app[7]: SEQ={start + sent} {pad}".encode()
            for receiver in receivers:
                sock.sendto(data, ("127.0.0.1", receiver.syslog_udp))
            sent += 1
        time.sleep(0.002)
    return sent


async def consume(conninfo: str, root: Path) -> None:
    """The engine as a program."""
    store = await Store.open(conninfo=conninfo, application_name="bench")
    places = Places(root / "own", root / "peer", root / "receiver.sock", root / "intake.toml")
    async with engine(store, places) as running:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await asyncio.sleep(1)
                (root / "counters").write_text(repr(running.counters))


def events(conninfo: str) -> tuple[int, int]:
    with psycopg.connect(conninfo, autocommit=True) as conn:
        row = conn.execute("SELECT count(*), count(DISTINCT message) FROM event").fetchone()
    assert row is not None
    return row[0], row[1]


def run(rate: int, seconds: float, tmp: Path, conninfo: str) -> None:
    one, two = make_pair(tmp, make_pki(tmp / "pki", "m1", "m2"))
    one.start()
    two.start()
    for each in (one, two):
        each.wait(lambda status: status["complete"], limit_s=30)
    numbered = {"match": r"SEQ=(?P<seq>\S+)", "priority": "info", "message": "{seq}"}
    asyncio.run(add_monitor(conninfo, "numbered", "syslog", numbered))
    program = subprocess.Popen([sys.executable, __file__, "--consume", conninfo, str(one.root)])
    try:
        begun(conninfo)
        steady(rate, seconds, one, two, program, conninfo)
        backlog(rate, one, two, program, conninfo)
    finally:
        stopped(program)
        one.stop()
        two.stop()


def steady(
    rate: int,
    seconds: float,
    one: ReceiverProcess,
    two: ReceiverProcess,
    program: subprocess.Popen[bytes],
    conninfo: str,
) -> None:
    pids = {"receiver_one": one.process.pid, "receiver_two": two.process.pid, "engine": program.pid}
    before = {name: cpu_s(pid) for name, pid in pids.items()}
    sent = send((one, two), rate, seconds, 0)
    for name, pid in pids.items():
        say(f"intake.cpu.{name}_share", (cpu_s(pid) - before[name]) / seconds, rate=rate)
    complete(sent, conninfo)
    latency(conninfo)
    for receiver in (one, two):
        status = receiver.status()
        say(
            "intake.kernel_drops", status["counters"]["kernel_drops"], worst_sync_ms=status["counters"]["worst_sync_ms"]
        )


def stopped(program: subprocess.Popen[bytes]) -> None:
    """End a program that was started: ask, wait, kill."""
    program.terminate()
    try:
        program.wait(30)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()


def begun(conninfo: str, *, limit_s: float = 120) -> None:
    """Wait until the engine follows both journals."""
    until = time.monotonic() + limit_s
    with psycopg.connect(conninfo, autocommit=True) as conn:
        while conn.execute("SELECT count(*) FROM intake_position").fetchone() != (2,):
            if time.monotonic() > until:
                raise AssertionError(f"the engine does not follow both journals within {limit_s:g} s")
            time.sleep(0.1)


def complete(sent: int, conninfo: str) -> None:
    until = time.monotonic() + 30
    while (found := events(conninfo))[0] < sent and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(1)
    count, distinct = events(conninfo)
    say("intake.lost", sent - distinct, sent=sent)
    say("intake.twice", count - distinct, seen=found[0])


def latency(conninfo: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as conn:
        row = conn.execute(
            "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY ms), percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)"
            " FROM (SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin) - occurred_utc) * 1000 AS ms FROM event) e"
        ).fetchone()
    assert row is not None
    say("intake.latency_ms", float(row[0]), p99=round(float(row[1]), 1))  # arrival to commit


def backlog(
    rate: int, one: ReceiverProcess, two: ReceiverProcess, program: subprocess.Popen[bytes], conninfo: str
) -> None:
    """How fast the engine works off what both receivers took while it was stopped."""
    os.kill(program.pid, 19)
    base = events(conninfo)[0]
    sent = send((one, two), 2 * rate, 10, 1_000_000)
    time.sleep(1)
    os.kill(program.pid, 18)
    began, before = time.monotonic(), cpu_s(program.pid)
    while events(conninfo)[0] < base + sent and time.monotonic() < began + 60:
        time.sleep(0.05)
    wall = time.monotonic() - began
    say("intake.backlog.per_s", sent / wall, per_cpu_s=round(sent / (cpu_s(program.pid) - before)), copies=2 * sent)
    say("intake.backlog.twice", events(conninfo)[0] - base - sent)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--consume", nargs=2, metavar=("CONNINFO", "ROOT"))
    args = parser.parse_args()
    if args.consume:
        import uvloop

        uvloop.run(consume(args.consume[0], Path(args.consume[1])))
        return
    postgres_cluster._SETTINGS |= DURABLE
    cluster = postgres_cluster.Cluster()
    try:
        cluster.create()
        migrate.upgrade(cluster.conninfo)
        with tempfile.TemporaryDirectory() as tmp:
            run(args.rate, args.seconds, Path(tmp), cluster.conninfo)
    finally:
        cluster.destroy()


if __name__ == "__main__":
    main()
