"""What msgspec raises on bytes that do not hold what they should: one name for all of it.

It is more than msgspec.MsgspecError: text that is not UTF-8 raises a UnicodeDecodeError, which is none, and nesting
without end a RecursionError. Whoever decodes what another program, another machine or a disk gave catches UNREADABLE;
a test forbids to catch less.
"""

from __future__ import annotations

import msgspec

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
