"""A certificate authority of a pair for tests, and certificates of members and agents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from futago.setup import authority

PAIR = "pair-1"


@dataclass
class Keys:
    home: Path

    def __post_init__(self) -> None:
        self.ca_key = authority.make_key()
        self.ca = authority.make_authority(PAIR, self.ca_key)
        (self.home / "ca.crt").write_bytes(self.ca)

    def issue(self, kind: str, name: str) -> tuple[Path, Path, Path]:
        key = authority.make_key()
        request = authority.make_request(key)
        holder = authority.Holder(kind, name, PAIR, ("127.0.0.1",))
        cert = authority.sign_request(request, holder, ca_cert=self.ca, ca_key=self.ca_key)
        paths = (self.home / f"{kind}-{name}.crt", self.home / f"{kind}-{name}.key", self.home / "ca.crt")
        paths[0].write_bytes(cert)
        paths[1].write_bytes(key)
        return paths
