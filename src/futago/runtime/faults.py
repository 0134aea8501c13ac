"""The fault types of the whole product, by whose move comes next.

A foreign exception is translated into one of these at the edge where it arises and keeps its cause. `Unknown` is a third value beside done and
refused: whoever receives it must find out, and must treat it as neither.
"""

from __future__ import annotations


class FutagoFault(Exception):
    """Base of all faults that the product raises on purpose."""


class OperatorFault(FutagoFault):
    """A person can mend it: exit code 2, HTTP 4xx.

    Args:
        what: one sentence: what happened and what it means.
        hint: one sentence: what to do next; may be empty only where nothing can be done.
        code: stable code listed in the docs, such as ``settings.unknown-field``.
    """

    def __init__(self, what: str, *, hint: str = "", code: str = "operator.input") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.code = code

    def __str__(self) -> str:
        return f"{self.what} {self.hint}".strip()


class WorldFault(FutagoFault):
    """The world did not do what was asked."""


class Refused(WorldFault):
    """It certainly did not happen."""


class Unknown(WorldFault):
    """It may have happened, or may still happen."""


class Corrupt(WorldFault):
    """Stored data does not pass its check."""


class ProtocolFault(FutagoFault):
    """A conversation between programs broke its rules."""


class LocalProtocolFault(ProtocolFault):
    """We broke the rules."""


class RemoteProtocolFault(ProtocolFault):
    """The other side broke the rules: count it, close the conversation, go on."""


class BrokenInvariant(FutagoFault):
    """Our bug: stop this program."""
