"""Makes the pair's address from the settings: which kind it is, and what each kind needs."""

from __future__ import annotations

from collections.abc import Callable

from futago.cluster.address.carried import CarriedAddress
from futago.cluster.address.floating import FloatingAddress
from futago.runtime.log import Log
from futago.setup.settings import Settings


def address_of(settings: Settings, *, on_change: Callable[[], None], log: Log) -> CarriedAddress:
    """Return the address of this pair; one without any address if the settings name none."""
    near = FloatingAddress(
        interface=settings.own.interface, addresses=settings.pair.addresses, on_change=on_change, log=log
    )
    return CarriedAddress(near, mover=None, on_change=on_change, log=log)
