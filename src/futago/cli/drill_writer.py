"""The client of a drill: writes numbered events through the API all the time, then reads them back and counts.

A program of its own (`python -m futago.cli.drill_writer`), because it stands where a client stands: on a member, or on
another host. It takes its orders as one JSON object on standard input, says each acknowledgement as one JSON line, and
when its input ends it reads everything back. What it calls lost or written twice is counted from the acknowledgements
that it got, never from what the pair says of itself. The idea: a parrot that remembers what it was promised.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from futago.cli.remote import Remote, way
from futago.runtime.faults import FutagoFault, OperatorFault
from futago.web.model import Events, NewEvent, PairStatus, PostedEvent

ANSWER_S = 2.0
PATIENCE_S = 120.0  # one write; both members may be off for a while
PAGE = 10_000


def message(run: str, number: int) -> str:
    """Return the text of one numbered event."""
    return f"futago drill {run} {number:06}"


def number_of(run: str, text: str) -> int | None:
    """Return the number in an event's text; None if it is no event of this drill."""
    head, _, tail = text.rpartition(" ")
    return int(tail) if head == f"futago drill {run}" and tail.isdigit() else None


def counted(run: str, texts: list[str]) -> dict[int, int]:
    """Return how often each number of the drill was found."""
    found: dict[int, int] = {}
    for text in texts:
        number = number_of(run, text)
        if number is not None:
            found[number] = found.get(number, 0) + 1
    return found


def main() -> int:
    """Write until standard input ends, then read back; return the exit code."""
    orders: dict[str, Any] = json.loads(sys.stdin.readline())
    stop = threading.Event()
    threading.Thread(target=_await_end, args=(stop,), daemon=True).start()
    token, ca = orders.get("token_file"), orders.get("ca")
    remote = Remote(
        way(orders.get("servers"), Path(token) if token else None, Path(ca) if ca else None), patience_s=PATIENCE_S
    )
    run, every_s = str(orders["run"]), float(orders["every_s"])
    first_id, number = 0, 0
    while not stop.is_set():
        number += 1
        began = time.monotonic()
        try:
            posted = remote.post(
                "/events", PostedEvent, NewEvent(message=message(run, number)), is_keyed=True, answer_s=ANSWER_S
            )
        except OperatorFault as e:
            _say(fault=str(e))
            return 2
        except FutagoFault as e:
            _say(n=number, error=str(e))
            continue
        first_id = first_id or posted.event_id
        _say(n=number, at=time.monotonic(), utc=time.time(), ms=round((time.monotonic() - began) * 1000, 1))
        stop.wait(max(0.0, every_s - (time.monotonic() - began)))
    _say(found={str(n): count for n, count in counted(run, _texts(remote, first_id)).items()})
    _say(pair=remote.get("/pair", PairStatus).model_dump(mode="json", by_alias=True))
    return 0


def _await_end(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def _texts(remote: Remote, first_id: int) -> list[str]:
    """Return the texts of all events from the API since the first one of the drill. An id is drawn before its commit,
    so a little earlier ones are read too."""
    texts: list[str] = []
    after: int | None = max(0, first_id - 1000)
    while after is not None:
        page = remote.get("/events", Events, {"source": "api", "after": after, "limit": PAGE})
        texts += [event.message for event in page.events]
        after = page.next
    return texts


def _say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
