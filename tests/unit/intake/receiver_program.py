"""Runs a real receiver with ports and folders of a test: `python receiver_program.py config.json`."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from futago.intake.receiver import Receiver
from futago.intake.receiver_config import Ports, ReceiverConfig
from futago.intake.sync import Peer
from futago.runtime import service
from futago.runtime.log import Log


def config_from(text: str) -> ReceiverConfig:
    """Return the config that a test wrote."""
    raw = json.loads(text)
    pki, root = Path(raw["pki"]), Path(raw["root"])
    return ReceiverConfig(
        me=raw["me"],
        pair_id=raw["pair_id"],
        peer=Peer(raw["peer"], tuple(raw["peer_addresses"]), raw["peer_port"]) if raw["peer"] else None,
        own_root=root / "own",
        copy_root=root / "peer",
        socket=root / "receiver.sock",
        controller=root / "controller.sock",
        ports=Ports(**raw["ports"]),
        hosts=tuple(raw["hosts"]),
        journal_host="127.0.0.1",
        journal_port=raw["journal_port"],
        cert=pki / f"{raw['me']}.crt",
        key=pki / f"{raw['me']}.key",
        ca=pki / "ca.crt",
        options=root / "intake.toml",
    )


async def run(stop: asyncio.Event) -> int:
    """Receive until told to stop."""
    config = config_from(Path(sys.argv[1]).read_text())
    await Receiver(config, log=Log(member=config.me)).run(stop)
    return 0


if __name__ == "__main__":
    sys.exit(service.run(run))
