"""How fast files go from host to host as jobs: one at a time, and as many at once as the manager carries.

The target file lies on the target's disk and is synced before its job ends, as always; its digest is asked of the target's
host with a program of its own. Time is that of the runs' own stamps: from the beginning of the first to the end of the last.
"""

from __future__ import annotations

import statistics
from typing import Any

from api import Api
from jobs_world import HOSTS, define, finished, net, seconds, start

from futago.lab.lab import Lab
from futago.lab.progress import say

SOURCE, TARGET = "/var/tmp/bench-source", "/var/tmp/bench-target"
AT_ONCE = 4  # transfers, what the manager carries at the same time
DEADLINE_S = 300.0


def transfers(lab: Lab, api: Api, *, size_mb: int, rounds: int) -> dict[str, Any]:
    """Carry `size_mb` MiB of noise `rounds` times alone, then four of them at once; return MiB a second of both.

    Raises:
        AssertionError: a transfer did not end well, or what arrived is not what was sent (a failure of the product).
    """
    digests = [_noise(lab, host, size_mb) for host in HOSTS]
    try:
        define(lab, net("bench-transfer-1", _jobs(1)), net("bench-transfer-4", _jobs(AT_ONCE)))
        alone = [_rate(lab, api, "bench-transfer-1", 1, size_mb, digests) for _ in range(rounds)]
        together = [_rate(lab, api, "bench-transfer-4", AT_ONCE, size_mb, digests) for _ in range(rounds)]
    finally:
        for host in lab.managed:
            host.run(["sh", "-c", f"rm -f {SOURCE} {TARGET}"], check=False)
    return {
        "mib_per_s": round(statistics.median(alone), 1), "mib_per_s_min": round(min(alone), 1),
        "at_once": AT_ONCE, "mib_per_s_at_once": round(statistics.median(together), 1), "size_mib": size_mb, "n": rounds,
    }  # fmt: skip


def _jobs(count: int) -> list[dict[str, object]]:
    """Return transfers in a ring: each host is the source of one and the target of another."""
    return [
        {
            "name": f"t{n}",
            "transfer": {
                "from": {"host": HOSTS[n], "path": SOURCE},
                "to": {"host": HOSTS[(n + 1) % len(HOSTS)], "path": TARGET},
            },
        }
        for n in range(count)
    ]


def _noise(lab: Lab, host: str, size_mb: int) -> str:
    """Write the source on `host`; return its SHA-256."""
    lab.host(host).run(
        ["sh", "-c", f"head -c {size_mb}M /dev/urandom >{SOURCE} && sync {SOURCE}"], deadline_s=DEADLINE_S
    )
    return _digest(lab, host, SOURCE)


def _digest(lab: Lab, host: str, path: str) -> str:
    return lab.host(host).run(["sha256sum", path], deadline_s=DEADLINE_S).stdout.split()[0]


def _rate(lab: Lab, api: Api, name: str, count: int, size_mb: int, digests: list[str]) -> float:
    """Carry once; return MiB a second of all transfers together."""
    for host in lab.managed:
        host.run(["rm", "-f", TARGET])
    found = finished(api, start(api, name), deadline_s=DEADLINE_S)
    assert found["state"] == "normal", [(j["job_name"], j["state"], j.get("detail")) for j in found["jobs"]]
    for n in range(count):
        target = HOSTS[(n + 1) % len(HOSTS)]
        assert _digest(lab, target, TARGET) == digests[n], f"what arrived on {target} is not what was sent"
    jobs = [j for j in found["jobs"] if j["started_utc"] and j["ended_utc"]]
    took = max(seconds(j["ended_utc"]) for j in jobs) - min(seconds(j["started_utc"]) for j in jobs)
    say(f"  {count} at once: {count * size_mb / took:.1f} MiB a second")
    return count * size_mb / took
