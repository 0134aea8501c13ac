"""How many failed logins are borne: a sliding window per key (an address, an account). Pure: the instant is an
argument.

Kept in memory by the one web program that serves; a switch forgives. The bound on keys keeps a flood of strangers
from filling the memory.
"""

from __future__ import annotations

from collections import OrderedDict, deque

FAILURES_MAX = 8
WINDOW_NS = 300 * 1_000_000_000
KEYS_MAX = 10_000


class FailureLimit:
    """Counts failures per key within the last WINDOW_NS."""

    def __init__(
        self, *, failures_max: int = FAILURES_MAX, window_ns: int = WINDOW_NS, keys_max: int = KEYS_MAX
    ) -> None:
        self._failures_max = failures_max
        self._window_ns = window_ns
        self._keys_max = keys_max
        self._failed_at: OrderedDict[str, deque[int]] = OrderedDict()

    def wait_ns(self, key: str, now_at: int) -> int:
        """Return how long `key` has to wait before its next attempt; 0 when it may try now."""
        failed = self._failed_at.get(key)
        if failed is None:
            return 0
        while failed and failed[0] <= now_at - self._window_ns:
            failed.popleft()
        if not failed:
            del self._failed_at[key]
        if len(failed) < self._failures_max:
            return 0
        return failed[0] + self._window_ns - now_at

    def failed(self, key: str, now_at: int) -> None:
        """Count one failure of `key`."""
        self._failed_at.setdefault(key, deque(maxlen=self._failures_max)).append(now_at)
        self._failed_at.move_to_end(key)
        while len(self._failed_at) > self._keys_max:
            self._failed_at.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """Forget the failures of `key`."""
        self._failed_at.pop(key, None)
