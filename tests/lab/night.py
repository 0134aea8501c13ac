"""What the lab's pair does in a night: the objects as YAML, and what they must lead to. Pure data and text; nothing runs here.

A net of 40 jobs in ten layers over four hosts, each layer waiting for the one before; the last layer's jobs end with exit codes of their own, so that
a result that was made up would show. A ping of every host each second. Every numbered message and trap becomes an event.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from oracles import JobStarts

HOSTS = ("host1", "host2", "host3", "host4")
LAYERS = 10
NET = "night"
MAIL_HOST = "10.91.1.50"


@dataclass(frozen=True, slots=True)
class ExpectedJob:
    """One job of the net and its true end."""

    name: str
    host: str
    exit_code: int


def jobs() -> tuple[ExpectedJob, ...]:
    """Return the 40 jobs, layer by layer."""
    last = LAYERS - 1
    return tuple(
        ExpectedJob(f"l{layer}-{host}", host, (3 + i if layer == last else 0))
        for layer in range(LAYERS)
        for i, host in enumerate(HOSTS)
    )


def definitions(*, seconds_per_job: float, mail_port: int = 25) -> str:
    """Return the whole configuration as one YAML text."""
    documents: list[dict[str, object]] = [
        {"kind": "Scope", "name": "farm", "hosts": list(HOSTS)},
        {
            "kind": "Notification",
            "name": "ops",
            "channel": "mail",
            "to": ["ops@lab.test"],
            "from": "futago@lab.test",
            "smtp": {"host": MAIL_HOST, "port": mail_port},
        },
        {
            "kind": "Monitor",
            "name": "ping-farm",
            "check": "ping",
            "scope": "farm",
            "interval": "1s",
            "timeout": "800ms",
            "failures": 2,
            "notify": ["ops"],
        },
        {
            "kind": "Monitor",
            "name": "numbered",
            "check": "syslog",
            "scope": "*",
            "patterns": [{"match": r"SEQ=(?P<seq>[a-z0-9]+-\d+)", "priority": "info", "message": "{seq}"}],
        },
        {
            "kind": "Monitor",
            "name": "traps",
            "check": "snmptrap",
            "scope": "*",
            "patterns": [{"match": r"SEQ=(?P<seq>[a-z0-9]+-\d+)", "priority": "warning", "message": "{seq}"}],
        },
        {
            "kind": "JobNet",
            "name": NET,
            "jobs": [_job(layer, host, i, seconds_per_job) for layer in range(LAYERS) for i, host in enumerate(HOSTS)],
        },
    ]
    return "\n---\n".join(json.dumps(d) for d in documents) + "\n"  # JSON is YAML


def _job(layer: int, host: str, i: int, seconds: float) -> dict[str, object]:
    """A job notes its own start durably on its host before it does anything else: that record is the oracle."""
    code = 3 + i if layer == LAYERS - 1 else 0
    name = f"l{layer}-{host}"
    job: dict[str, object] = {
        "name": name,
        "host": host,
        "command": JobStarts.command(name, f"sleep {seconds}; exit {code}"),
    }
    if layer:
        job["after"] = [f"l{layer - 1}-{h}" for h in HOSTS]
    return job
