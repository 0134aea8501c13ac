"""The port of a register W, which every kind of third vote fills: the jury and the witness (jury.py), an etcd, an object
store (cell.py and its two stores).

Lives here: the promises. Must not live here: how a kind keeps them. The idea: a noticeboard with one sheet under glass.
Anybody of the pair may read it; whoever brings a newer one may change it; nobody is ever told that it was changed unless
it surely was.

What every kind promises, and what tests/contract/test_register_contract.py tries on each of them:

1. `put` stores only a newer epoch, or a newer roster at the same or a newer epoch; of two members that put the same epoch
   at once, one wins.
2. A put that ends as stored or refused makes every earlier put of the same member void, including those whose answer was
   lost: none of them can be stored any more. (A refused put therefore writes, too: it puts down anew what is held.)
3. An outcome that is not certain is Unknown. Refused means: nothing of this put is stored or will be.
4. What was stored survives the death of the store's machine.
5. A register that lost its content, or is another one than was seated, stores nothing until it is seated anew.
6. After `retire()` no later put is begun, and no read is answered.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from futago.register.model import Value

LOST = "lost its memory"
OLD_ROSTER = "old-roster"
WENT_BACK = "went back"


class Health(NamedTuple):
    """How one part of the register fares: a juror, an endpoint. `error` is empty if it is fine."""

    name: str
    ok: bool
    error: str = ""


class Register(Protocol):
    """One kind of W, seated under one roster version."""

    @property
    def kind(self) -> str:
        """jury, witness, etcd or objectstore."""

    @property
    def version(self) -> int:
        """The roster version: it grows with every seating, whatever the kind."""

    async def run(self) -> None:
        """Keep connections warm until cancelled."""

    async def read(self) -> Value | None:
        """Return what is held; None: nothing yet.

        Raises:
            Refused: nobody who may speak for the register answered.
        """

    async def put(self, value: Value) -> tuple[bool, Value | None]:
        """Store `value` if it is newer.

        Returns:
            Whether it is held now, and what is held.

        Raises:
            Unknown: it may be held, or may yet be. Refused: it is not, and will not be.
        """

    async def seat(self, value: Value) -> tuple[bool, Value | None]:
        """As `put`, into a register that is new or was seated under a lower version before."""

    def retire(self) -> bool:
        """Answer nothing more; return False if a put is under way, whose end nobody knows."""

    def health(self, now: int) -> list[Health]:
        """Return how each part fares."""

    def heard_at(self) -> int:
        """Return when any part last answered; 0: never."""
