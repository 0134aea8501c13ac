"""`futago vote set` and `show`: where the third vote is kept.

Here the words become a request, and files that it names are read (their content goes to both members, so the paths mean
nothing there). Whether what is named can hold the vote, and the seating itself, belong to the controller
(cluster/seating.py). Jurors and the witness are looked up and asked first, as setup/jury.py does it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from futago.runtime.faults import OperatorFault
from futago.setup import control, jury, settings, thirdvote
from futago.setup.install import Say
from futago.setup.settings import Juror
from futago.setup.thirdvote import NONE, WITNESS, ThirdVote

SEAT_S_MAX = 60.0
FILE_BYTES_MAX = 16 * 1024


def seat_witness(name: str, *, say: Say) -> None:
    """Make one host, with an agent or a witness process, the third vote. A name may be written as name=address.

    Raises:
        OperatorFault: unknown or silent, or the controller refused. Refused: no controller answers here.
    """
    own = settings.load()
    jury.check_bare([name.partition("=")[0]], own)
    jurors = jury.find([name])
    say(f"asking {jurors[0].name}")
    asyncio.run(jury.ask_each(own, jurors))
    _ask(WITNESS, jurors=jurors, say=say)


def seat_store(vote: ThirdVote, files: dict[str, Path | None], *, say: Say) -> None:
    """Keep the third vote in an etcd or in an object store.

    Args:
        vote: kind, endpoints and names; its files are not named.
        files: password, ca, cert, key: where they lie on this machine.

    Raises:
        OperatorFault: a file cannot be read, the settings do not fit together, or the controller refused.
        Refused: no controller answers here.
    """
    settings.load()
    held = {what: _content(where) for what, where in files.items() if where is not None}
    named = {f"{what}_file": what for what in held}
    if wrong := thirdvote.problem(msgspec.structs.replace(vote, **named), authority="register", jurors=0):
        raise OperatorFault(f"{wrong[:1].upper()}{wrong[1:]}.", hint="Nothing was changed.", code="vote.request")
    _ask(vote.kind, vote=vote, held=held, say=say)


def seat_none(*, say: Say) -> None:
    """Let the power devices decide. Raises OperatorFault or Refused."""
    settings.load()
    _ask(NONE, say=say)


def show() -> dict[str, Any]:
    """Return the controller's account of the third vote, as in the status. Raises Refused."""
    return jury.show()


def _ask(
    kind: str,
    *,
    say: Say,
    jurors: Sequence[Juror] = (),
    vote: ThirdVote | None = None,
    held: dict[str, str] | None = None,
) -> None:
    rows = [{"name": j.name, "address": j.address, "port": j.port} for j in jurors]
    shown = {} if vote is None else msgspec.to_builtins(vote)
    control.ask("vote", kind=kind, jurors=rows, vote=shown, held=held or {}, deadline_s=SEAT_S_MAX + 5, on_progress=say)


def _content(where: Path) -> str:
    try:
        if where.stat().st_size > FILE_BYTES_MAX:
            raise OperatorFault(f"{where} is no key, certificate or password: it is too long.", code="vote.file")
        return where.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise OperatorFault(f"{where} cannot be read: {e}.", hint="Run this as root.", code="vote.file") from e
