"""What a receiver needs to know, and how it hears that the pair's settings changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from futago.intake.options import OPTIONS
from futago.intake.sync import Peer
from futago.runtime.faults import OperatorFault
from futago.runtime.log import Log
from futago.setup import paths
from futago.setup import settings as settings_file


@dataclass(frozen=True, slots=True)
class Ports:
    """Where devices send to."""

    syslog_udp: int = 514
    syslog_tcp: int = 514
    snmp_udp: int = 162


@dataclass(frozen=True, slots=True)
class ReceiverConfig:
    """Everything a receiver needs to know; tests make their own."""

    me: str
    pair_id: str
    peer: Peer | None
    own_root: Path = paths.JOURNAL_OWN
    copy_root: Path = paths.JOURNAL_PEER
    socket: Path = paths.RECEIVER_SOCKET
    controller: Path = paths.CONTROLLER_SOCKET
    ports: Ports = field(default_factory=Ports)
    hosts: tuple[str, ...] = ("0.0.0.0", "::")  # noqa: S104  devices send from everywhere
    journal_host: str = "0.0.0.0"  # noqa: S104  mutual TLS guards the port
    journal_port: int = paths.PORT_JOURNAL
    cert: Path = paths.OWN_CERT
    key: Path = paths.OWN_KEY
    ca: Path = paths.CA_CERT
    options: Path = OPTIONS


def config_of(settings: settings_file.Settings) -> ReceiverConfig:
    """Return what the settings file says to a receiver."""
    other = settings.peer
    peer = Peer(other.name, (other.heartbeat, other.service), paths.PORT_JOURNAL) if other else None
    return ReceiverConfig(me=settings.me, pair_id=settings.pair.id, peer=peer)


async def follow_settings(set_peer: Callable[[Peer | None], None], log: Log) -> None:
    """Learn of a peer that joined, or of its new addresses, without a restart."""
    changed = _changed_at()
    while True:
        await asyncio.sleep(1)
        now = _changed_at()
        if now == changed:
            continue
        changed = now
        try:
            set_peer(config_of(settings_file.load()).peer)
            log.event("receiver.settings_read")
        except OperatorFault as e:
            log.warning("receiver.settings_refused", error=str(e))


def _changed_at() -> int:
    try:
        return paths.SETTINGS.stat().st_mtime_ns
    except OSError:
        return 0
