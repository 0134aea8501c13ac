"""Structured log lines on standard error, one JSON object a line; the journal of systemd keeps them.

Light on purpose: the controller, guard, receiver and agent use it and must start fast. Secrets are never passed to it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from futago.runtime.clock import now_utc


class Log:
    """Writes events with the fields bound to it.

    Args:
        fields: pairs put into every line, such as ``program="controller"``, ``member="m1"``.
    """

    def __init__(self, **fields: Any) -> None:
        self._fields = fields

    def bind(self, **fields: Any) -> Log:
        """Return a log that adds more fields."""
        return Log(**{**self._fields, **fields})

    def event(self, event: str, **fields: Any) -> None:
        """Write one line. `event` is a stable dotted name such as ``view.persisted``."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Write one line that a person should see."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Write one line about something that failed."""
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        line = {
            "utc": now_utc().isoformat(timespec="milliseconds"),
            "level": level,
            "event": event,
            **self._fields,
            **fields,
        }
        sys.stderr.write(json.dumps(line, default=str, ensure_ascii=False) + "\n")
        sys.stderr.flush()
