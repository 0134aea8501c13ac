"""Makes the pair's address from the settings: which kind it is, and what each kind needs."""

from __future__ import annotations

from collections.abc import Callable

from futago.cluster.address import Mover
from futago.cluster.address.carried import CarriedAddress
from futago.cluster.address.command import CommandMover
from futago.cluster.address.floating import FloatingAddress
from futago.cluster.address.helper import HelperMover
from futago.runtime.log import Log
from futago.setup.addresses import SHAPES, AddressSettings
from futago.setup.settings import Settings

AWS_PROGRAM = "futago.cluster.address.aws_program"


def address_of(settings: Settings, *, on_change: Callable[[], None], log: Log) -> CarriedAddress:
    """Return the address of this pair; one that is held in name only if the settings name none."""
    wanted = settings.pair.address or AddressSettings()
    shape = SHAPES[wanted.kind]
    near = FloatingAddress(
        interface=settings.own.interface,
        addresses=settings.pair.addresses if shape.is_on_interface else (),
        on_change=on_change,
        log=log,
        is_announced=shape.is_announced,
    )
    return CarriedAddress(near, mover=_mover(settings, wanted, log), on_change=on_change, log=log)


def _mover(settings: Settings, wanted: AddressSettings, log: Log) -> Mover | None:
    own, addresses = settings.own, settings.pair.addresses
    if wanted.kind == "netlink":
        return None
    if wanted.kind == "command":
        words = (own.name, own.interface, *addresses)
        return CommandMover(wanted.program, words=words, deadline_s=wanted.deadline_s)
    return HelperMover(AWS_PROGRAM, address=wanted, addresses=addresses, eni=own.eni, log=log)
