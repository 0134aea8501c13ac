"""A machine of its own for each test: every path of the product below a temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from futago.setup import authority, files, paths, settings
from futago.setup.settings import FenceDevice, MemberSettings, PairSettings, Settings


@pytest.fixture
def machine_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point every path there; return the root."""
    for name, value in vars(paths).copy().items():
        if isinstance(value, Path) and value not in (paths.ROOT, paths.PG_BIN):
            monkeypatch.setattr(paths, name, tmp_path / value.relative_to("/"))
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def first_member(machine_root: Path) -> Settings:
    """The files of a first member, as `futago init` writes them; its settings."""
    fence = FenceDevice("ipmi", "192.0.2.201", "admin", str(files.fence_password_file("m1")))
    own = Settings(
        me="m1",
        pair=PairSettings(name="lab", id="0123456789abcdef", floating_ip="192.0.2.100/24"),
        members=[MemberSettings("m1", "192.0.2.11", "198.51.100.11", "eth0", [fence])],
    )
    from futago.setup import install

    install.settings_of_pair(own)
    install.directories()
    install.own_authority(own)
    install.own_certificate(own)
    install.own_secrets()
    files.write(files.fence_password_file("m1"), "calvin", mode=0o600)
    assert settings.load() == own
    assert authority.is_match(
        paths.OWN_CERT.read_bytes(), paths.OWN_KEY.read_bytes(), ca_cert=paths.CA_CERT.read_bytes()
    )
    return own
