"""What stands for a custom trap in a record."""

from __future__ import annotations

import msgspec

from futago.intake.custom_traps import Trap, read


def test_a_custom_trap_that_no_database_would_take_is_none() -> None:
    assert read(msgspec.json.encode(Trap("a", "k", "literally \\u0000"))) is not None
    assert read(msgspec.json.encode(Trap("a", "k", "a\0b"))) is None
    assert read(b'{"account":"a","key":"k","message":"\x99"}') is None
