"""What goes over the wire about orders on the pair: plans, maintenance, tests of power devices, explanations.

Pure shapes, as model.py; what the controller tells is passed on as it is.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from futago.web.model import Shape, Told


class PlanStep(Told):
    """One thing that a recovery would try, and what it is expected to cost."""

    what: Annotated[str, Field(description="follow, rewind, basebackup, empty, wait, power-on or add.")]
    text: str
    bytes_max: int = 0
    seconds: float = 0.0
    is_destructive: bool = False


class PlanCheck(Told):
    """One thing that was looked at beforehand."""

    name: str
    member: str
    grade: Annotated[str, Field(description="ok; warn: it is said; bad: nothing is begun.")]
    text: str
    repair: str = ""


class RecoveryPlan(Told):
    """What a recovery would do now. `refusal` is empty where it would begin; `repair` says what a person must do."""

    is_needed: bool
    wrong: tuple[str, ...] = ()
    back: str = ""
    source: str = ""
    steps: tuple[PlanStep, ...] = ()
    checks: tuple[PlanCheck, ...] = ()
    refusal: str = ""
    repair: str = ""


class MaintenanceOrder(Shape):
    """Hang the sign, or take it off."""

    on: bool


class OrderDone(Told):
    """What became of an order, as a sentence."""

    text: str


class FenceTestOrder(Shape):
    """Which devices to test."""

    member: Annotated[str, Field(max_length=31, description="Empty: those of both members.")] = ""


class FenceTest(Told):
    """What one device answered to one member."""

    from_member: Annotated[str, Field(alias="from")]
    member: str
    driver: str = ""
    device: str = ""
    level: int = 1
    state: str = "unknown"
    ok: bool = False
    error: str = ""


class FenceTests(Told):
    """What all devices answered. `passed`: all of them as they should."""

    passed: bool
    tests: tuple[FenceTest, ...] = ()
    text: str = ""


class WhatIfStep(Shape):
    """One step of what would happen; `at_ms` counts from the failure."""

    at_ms: int
    member: str
    rule: str
    text: str


class WhatIf(Shape):
    """What would happen if something failed now. `pause_ms`: how long writes would wait; null: until somebody acts."""

    failure: str
    title: str
    outcome: str
    serves: str | None
    pause_ms: int | None
    lost: str
    sentences: list[str]
    steps: tuple[WhatIfStep, ...] = ()
    command: str = ""


class Explanation(Shape):
    """Why the pair is in its state, in sentences, and what a failure would do now if that was asked."""

    why: list[str]
    failures: Annotated[list[str], Field(description="What can be asked with `if`.")]
    what_if: WhatIf | None = None
