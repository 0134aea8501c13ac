"""What the product answers, read as any client reads it: over HTTPS, through the floating IP, from the lab's client host."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote

from senders import install

from futago.lab.lab import Lab
from futago.lab.pair import admin_token
from futago.lab.topology import FLOATING_IP

CA = "/etc/lab-ca.crt"


class Api:
    """The API of the lab's pair.

    Args:
        lab: the lab with a pair in it.
    """

    def __init__(self, lab: Lab) -> None:
        self._client = lab.host("c1")
        self._program = install(self._client, "api_get.py")
        member = next(m for m in lab.members if m.is_on())
        self._client.write(CA, member.read("/etc/futago/pki/ca.crt"))
        self._token = admin_token(lab)

    def ask(self, path: str, *, post: object = None, deadline_s: float = 20) -> dict[str, Any]:
        """Return one answer; with `post`, of a POST with that JSON body."""
        (found,) = self._run(path, rows="", deadline_s=deadline_s, post=None if post is None else json.dumps(post))
        return found

    def ask_each(self, paths: list[str], *, deadline_s: float = 20) -> list[dict[str, Any] | None]:
        """Return the answers to these paths, in their order, asked by one program; None: there is no such thing."""
        settings = {**self._settings(deadline_s), "paths": [f"/api/v1{path}" for path in paths], "post": None}
        done = self._client.run(["python3", self._program, json.dumps(settings)], deadline_s=300)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def event_messages(
        self, *, monitor: str | None = None, source: str | None = None, after: int = 0
    ) -> list[dict[str, Any]]:
        """Return every event of that kind, with `after` only those of a greater id."""
        words = {"monitor": monitor, "source": source, "limit": "10000"}
        query = "&".join(f"{k}={quote(v)}" for k, v in words.items() if v is not None)
        return self._run(f"/events?{query}", rows="events", next="next", parameter="after", start=after)

    def event_count(self, *, monitor: str) -> int:
        """Return how many events a monitor has made."""
        return int(self.ask(f"/events/count?monitor={quote(monitor)}")["count"])

    def samples(self, monitor: str) -> list[dict[str, Any]]:
        """Return every sample of a monitor; the instants at which one page ends and the next begins come once."""
        rows = self._run(
            f"/samples?monitor={quote(monitor)}&limit=10000",
            rows="samples",
            next="next_since_utc",
            parameter="since_utc",
        )
        unique = {(r["host_name"], r["at_utc"]): r for r in rows}
        return list(unique.values())

    def wait_for_events(self, *, monitor: str, count: int, deadline_s: float) -> int:
        """Wait until a monitor has made `count` events; return how many there are at the end, fewer at the deadline."""
        end = time.monotonic() + deadline_s
        while (found := self.event_count(monitor=monitor)) < count and time.monotonic() < end:
            time.sleep(0.5)
        return found

    def _run(
        self,
        path: str,
        *,
        rows: str,
        next: str = "next",
        parameter: str = "after",
        post: str | None = None,
        start: int | None = None,
        deadline_s: float = 20,
    ) -> list[dict[str, Any]]:
        settings = {
            **self._settings(deadline_s), "path": f"/api/v1{path}", "rows": rows, "next": next,
            "parameter": parameter, "post": post, "start": start,
        }  # fmt: skip
        done = self._client.run(["python3", self._program, json.dumps(settings)], deadline_s=300)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def _settings(self, deadline_s: float) -> dict[str, object]:
        return {"host": FLOATING_IP.split("/")[0], "token": self._token, "ca": CA, "deadline_s": deadline_s}
