"""What an agent says about a run, made fit for rows: whatever it is, it must end neither the engine nor a transaction.

An agent holds a certificate of the pair, and its host may still be hostile, or somebody copied a folder of its runs.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from futago.link.orders import DETAIL_CHARS_MAX, OUTPUT_TAIL_CHARS_MAX, Outcome, RunEnded

CODE_MAX = (1 << 31) - 1  # of the column
SECONDS_MAX = 253_402_300_799.0  # the last second of the year 9999
BYTES_MAX = (1 << 63) - 1


def is_run_id(text: str) -> bool:
    """Return whether a run may have this id."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def presentable(said: RunEnded) -> RunEnded:
    """Return the same with everything in it that a row cannot hold replaced. An exit code that is none makes the end
    unknown; an instant that is none is not known.
    """
    has_code = said.exit_code is None or -CODE_MAX <= said.exit_code <= CODE_MAX
    return msgspec.structs.replace(
        said,
        outcome=said.outcome if has_code else Outcome.UNKNOWN,
        exit_code=said.exit_code if has_code else None,
        started=_instant(said.started),
        ended=_instant(said.ended),
        output=_text(said.output, OUTPUT_TAIL_CHARS_MAX),
        output_bytes=min(max(said.output_bytes, 0), BYTES_MAX),
        detail=_text(said.detail, DETAIL_CHARS_MAX),
    )


def _instant(seconds: float) -> float:
    return seconds if 0.0 <= seconds <= SECONDS_MAX else 0.0


def _text(text: str, chars_max: int) -> str:
    return text[-chars_max:].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
