"""When rules are at work: `python tests/bench/intake_rules.py`, one JSON object a figure.

intake.rules.compile_ms    10,000 patterns that nobody compiled before, from the look at the definitions to work
intake.rules.takeover_ms   the same on a member that has just become primary: compiled by the other, read from the row
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "unit/intake")]

import psycopg  # noqa: E402
from intake import DURABLE  # noqa: E402
from intake_process import set_rules  # noqa: E402
from intake_receive import say  # noqa: E402
from journals import settings  # noqa: E402

import postgres_cluster  # noqa: E402
from futago.intake.following import Following  # noqa: E402
from futago.runtime.engine import EngineContext, Outward  # noqa: E402
from futago.runtime.log import Log  # noqa: E402
from futago.store import migrate  # noqa: E402
from futago.store.commit import Store  # noqa: E402


async def at_work_ms(conninfo: str) -> float:
    """Return how long a fresh engine waits for its rules."""
    store = await Store.open(conninfo=conninfo, application_name="bench")
    context = EngineContext(settings=settings(), store=store, epoch=1, outward=Outward(), log=Log())
    following = Following(context)
    began = time.monotonic()
    await following.look()
    took = (time.monotonic() - began) * 1000
    assert following.rules["syslog"].patterns.match("of matching SEQ=12"), "the rules do not work"
    await store.close()
    return took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rules", type=int, default=10_000)
    args = parser.parse_args()
    postgres_cluster._SETTINGS |= DURABLE
    cluster = postgres_cluster.Cluster()
    try:
        cluster.create()
        migrate.upgrade(cluster.conninfo)
        with psycopg.connect(cluster.conninfo, autocommit=True) as conn:
            set_rules(conn, args.rules, "syslog")
        say("intake.rules.compile_ms", asyncio.run(at_work_ms(cluster.conninfo)), rules=args.rules)
        with psycopg.connect(cluster.conninfo, autocommit=True) as conn:
            (stored,) = conn.execute("SELECT sum(octet_length(content))::bigint FROM intake_automaton").fetchone() or (
                0,
            )
        takeover = min(asyncio.run(at_work_ms(cluster.conninfo)) for _ in range(3))
        say("intake.rules.takeover_ms", takeover, rules=args.rules, row_bytes=stored)
    finally:
        cluster.destroy()


if __name__ == "__main__":
    main()
