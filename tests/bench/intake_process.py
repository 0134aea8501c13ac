"""How fast messages become committed events: `python tests/bench/intake_process.py`, one JSON object a figure.

The journals of both members are filled before, every message in both. Then the engine starts, as a program of its own on
a real PostgreSQL with synchronous commits, and the clock runs from its first batch to the commit of the last message.
Merging, decoding, matching and COPY are all in it. Rates are messages, not copies.

A load that is not worked off in time has the value null and says so; the others follow.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "unit/intake")]

import msgspec  # noqa: E402
import psycopg  # noqa: E402
from intake import DURABLE, consume, stopped  # noqa: E402
from intake_receive import TICKS, cpu_s, say  # noqa: E402
from intake_senders import Messages  # noqa: E402
from journals import Journal  # noqa: E402
from test_snmp_decoder import encoded, v2c  # noqa: E402
from test_snmp_security import ENGINE, SECURITY  # noqa: E402

import postgres_cluster  # noqa: E402
from futago.intake import ber  # noqa: E402
from futago.intake.model import Protocol  # noqa: E402
from futago.intake.usm import _sealed  # noqa: E402
from futago.store import migrate  # noqa: E402

CHUNK = 5000
FIRST_S = 420.0  # until the first batch: before it ten thousand patterns are compiled
WORK_S = 240.0
OPTIONS = """
[[snmp.users]]
name = "privsha256"
auth = "sha256"
auth_password = "auth-password"
priv = "aes128"
priv_password = "priv-password"
"""


@dataclass(frozen=True)
class Load:
    """What is in the journals, and the rules."""

    name: str
    messages: int
    rules: int
    match_every: int
    kind: str = "syslog"  # or "v2c", "v3"


def patterns(count: int, matching: str) -> list[dict[str, str]]:
    """Return rules of five common shapes; the last one matches what is to match."""
    chance = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(chance.choice(letters) for _ in range(chance.randint(4, 9))) for _ in range(3000)]
    made = []
    for n in range(count - 1):
        a, b = chance.choice(words), chance.choice(words)
        shapes = (
            rf"{a}.*{b}",
            rf"{a}\[\d+\]: (error|warn|fail)",
            rf"ERR-{n:05d}",
            rf"(failed|refused) .* from \d+\.\d+\.\d+\.\d+ {a}",
            rf"%{a.upper()}-[0-5]-{b.upper()}: ",
        )
        made.append(shapes[n % 5])
    return [{"match": p, "priority": "info", "message": "{text}"} for p in [*made, matching]]


def traps(load: Load) -> list[bytes]:
    """Return traps of six varbinds, from two models: pysnmp's encoder is slow."""
    name = "1.3.6.1.4.1.9.9.41.1.2.3.1"
    models = []
    for word in ("matching", "ordinary"):
        said = v2c.OctetString(f"{word} SEQ=0000000000")
        values = (v2c.OctetString("LINK"), v2c.Integer32(3), v2c.OctetString("UPDOWN"), said)
        models.append(encoded([(f"{name}.{n}", one) for n, one in enumerate(values, 2)]))
    keys = SECURITY._keys_of(b"privsha256", ENGINE)
    context = ber.value(ber.STRING, ENGINE) + ber.value(ber.STRING, b"")
    made = []
    for n in range(load.messages):
        data = models[n % load.match_every != 0].replace(b"SEQ=0000000000", b"SEQ=%010d" % n)
        if load.kind == "v3":
            scoped = ber.value(ber.SEQUENCE, context + data[data.index(b"public") + 6 :])
            now_s, salt = int(time.time()), n.to_bytes(8, "big")
            data = _sealed(n, keys, b"privsha256", scoped, engine_id=ENGINE, now_s=now_s, salt=salt)
        made.append(data)
    return made


def fill(root: Path, load: Load) -> list[Journal]:
    """Write both members' journals, as they are on the primary's disk."""
    (root / "intake.toml").touch(0o600)
    (root / "intake.toml").write_text(OPTIONS)
    journals = [Journal(root / "own"), Journal(root / "peer")]
    for journal in journals:
        journal.mark()
    syslog = Messages(match_every=load.match_every)
    made = traps(load) if load.kind != "syslog" else []
    protocol = Protocol.SYSLOG_UDP if load.kind == "syslog" else Protocol.SNMP_UDP
    for first in range(0, load.messages, CHUNK):
        count = min(CHUNK, load.messages - first)
        chunk = made[first : first + count] or syslog.take(count)
        for journal in journals:
            journal.add(*chunk, protocol=protocol, time_ns=time.time_ns())
    return journals


def measured(load: Load, conninfo: str) -> dict[str, float]:
    """Run one load and say how long it took."""
    kind = "syslog" if load.kind == "syslog" else "snmptrap"
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute("TRUNCATE event, intake_position, intake_unmatched CASCADE")
        conn.execute("UPDATE intake_state SET revision = 0, state = ''")
        conn.execute("DELETE FROM monitor")
        set_rules(conn, load.rules, kind)
    with tempfile.TemporaryDirectory() as tmp:
        root = Path(tmp)
        journals = fill(root, load)
        last = {journal.incarnation.id: journal.sequence for journal in journals}
        program = subprocess.Popen([sys.executable, __file__, "--consume", conninfo, str(root)])
        try:
            return clocked(load, conninfo, last, program)
        finally:
            stopped(program)
            for journal in journals:
                journal.close()


def set_rules(conn: psycopg.Connection, count: int, kind: str) -> None:
    """Define so many patterns, a hundred a monitor."""
    rules = patterns(count, r"matching SEQ=(?P<seq>\d+)")
    for n in range(0, count, 100):
        spec = {"name": f"m{n}", "check": kind, "scope": "*", "patterns": rules[n : n + 100], "notify": []}
        conn.execute(
            "INSERT INTO monitor (monitor_name, kind, spec, scope_name) VALUES (%s, %s, %s::jsonb, '*')",
            (f"m{n}", kind, msgspec.json.encode(spec).decode()),
        )


def clocked(load: Load, conninfo: str, last: dict[str, int], program: subprocess.Popen[bytes]) -> dict[str, float]:
    began = began_cpu = first = 0.0
    with psycopg.connect(conninfo, autocommit=True) as conn:
        until = time.monotonic() + FIRST_S
        while time.monotonic() < until:
            found = dict(conn.execute("SELECT incarnation, sequence FROM intake_position").fetchall())
            if found and not began:
                began, began_cpu = time.monotonic(), cpu_s(program.pid)
                first = max(found.values())
                until = began + WORK_S
            if found == last:
                break
            time.sleep(0.01)
        else:
            raise AssertionError(f"not consumed within its time: {found} of {last}")
        took, cpu = time.monotonic() - began, cpu_s(program.pid) - began_cpu
        row = conn.execute("SELECT count(*), count(DISTINCT message) FROM event").fetchone()
    expected = len(range(0, load.messages, load.match_every))
    assert row == (expected, expected), f"events: {row}, expected {expected}"
    done = load.messages - first
    return {"per_s": done / took, "per_cpu_s": done / max(cpu, 1 / TICKS), "took_s": took}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--only", default="")
    parser.add_argument("--consume", nargs=2, metavar=("CONNINFO", "ROOT"))
    args = parser.parse_args()
    if args.consume:
        import uvloop

        uvloop.run(consume(args.consume[0], Path(args.consume[1])))
        return
    n = args.messages
    loads = [
        Load("process.per_s", n, 1000, 100),
        Load("process.all_per_s", n // 2, 1000, 1),
        Load("rules.few", n // 2, 10, 100),
        Load("rules.many", n // 2, 10_000, 100),
        Load("trap.v2c_per_s", n // 2, 1000, 100, "v2c"),
        Load("trap.v3_per_s", n // 4, 1000, 100, "v3"),
    ]
    postgres_cluster._SETTINGS |= DURABLE
    cluster = postgres_cluster.Cluster()
    try:
        cluster.create()
        migrate.upgrade(cluster.conninfo)
        rates: dict[str, float] = {}
        cpu_rates: dict[str, float] = {}
        for load in loads:
            if args.only and load.name not in args.only.split(","):
                continue
            try:
                found = measured(load, cluster.conninfo)
            except (AssertionError, psycopg.Error, subprocess.SubprocessError) as e:
                why = f"{type(e).__name__}: {e}"[:300]
                print(json.dumps({"figure": f"intake.{load.name}", "value": None, "why": why}), flush=True)
                continue
            rates[load.name], cpu_rates[load.name] = found["per_s"], found["per_cpu_s"]
            if not load.name.startswith("rules."):
                say(f"intake.{load.name}", found["per_s"], per_cpu_s=round(found["per_cpu_s"]), rules=load.rules)
        if {"rules.few", "rules.many"} <= rates.keys():
            by_cpu = round(cpu_rates["rules.few"] / cpu_rates["rules.many"], 3)
            say("intake.rules.ratio", rates["rules.few"] / rates["rules.many"], by_cpu=by_cpu, few=10, many=10_000)
    finally:
        cluster.destroy()


if __name__ == "__main__":
    main()
