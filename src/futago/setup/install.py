"""Putting a member's or an agent's files and units into place. Every step looks first and changes only what differs,
so all may be repeated.

The order of a set-up is the callers' (init.py, join.py, enrol.py); here are its steps. The settings file is the mark
that this machine is ours: it is written first of all, so that an interrupted set-up is recognised and continued.
"""

from __future__ import annotations

import grp
import pwd
import secrets
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from futago.runtime.faults import OperatorFault, Refused
from futago.setup import authority, files, machine, paths, settings
from futago.setup.admission import member_holder
from futago.setup.settings import AgentSettings, Settings

Say = Callable[[str], None]

SYSTEMD = paths.ROOT / "etc/systemd/system"
TMPFILES = paths.ROOT / "etc/tmpfiles.d/futago.conf"
SYSCTL = paths.ROOT / "etc/sysctl.d/90-futago.conf"
AGENT_UNIT = "futago-agent.service"
WITNESS_UNIT = "futago-witness.service"
BOOT_UNITS = ("futago-receiver.service", "futago-guard.service", "futago-controller.service")  # it starts the rest
MEMBER_UNITS = (*BOOT_UNITS, "futago-postgres.service", "futago-manager.service", "futago-web.service")
KEY_BYTES = 32


def is_real() -> bool:
    """Do we work on the machine itself, and not below FUTAGO_ROOT?"""
    return Path("/") == paths.ROOT


def settings_of_pair(wanted: Settings) -> None:
    """Write the member's settings file."""
    files.directory(paths.ETC, mode=0o755)
    files.write(paths.SETTINGS, settings.dump(wanted), mode=0o644)


def users() -> None:
    """Make the system user and group `futago`, under which receiver, manager and web run."""
    if not is_real():
        return
    try:
        pwd.getpwnam(files.USER)
        grp.getgrnam(files.USER)
    except KeyError:
        shape = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
        _must(["useradd", *shape, "--shell", "/usr/sbin/nologin", files.USER], "The user `futago` cannot be made")


def directories() -> None:
    """Make every directory of a member, with owner and mode."""
    files.directory(paths.ETC, mode=0o755)
    files.directory(paths.PKI, mode=0o755)
    files.directory(paths.SECRETS, mode=0o750, owner=files.SHARED)
    files.directory(paths.VAR, mode=0o755)
    files.directory(paths.CLUSTER, mode=0o755)
    for journal in (paths.JOURNAL_OWN.parent, paths.JOURNAL_OWN, paths.JOURNAL_PEER):
        files.directory(journal, mode=0o750, owner=files.OURS)
    files.directory(paths.PG_VOLUME, mode=0o755)


def own_authority(wanted: Settings) -> None:
    """Make the pair's certificate authority, unless it is there."""
    if not paths.CA_KEY.exists():
        files.write(paths.CA_KEY, authority.make_key(), mode=0o600)
    if not paths.CA_CERT.exists():
        files.write(paths.CA_CERT, authority.make_authority(wanted.pair.id, paths.CA_KEY.read_bytes()), mode=0o644)


def own_key(*, owner: files.Owner) -> bytes:
    """Return this machine's private key (PEM), made if it is not there."""
    if not paths.OWN_KEY.exists():
        files.directory(paths.PKI, mode=0o755)
        files.write(paths.OWN_KEY, authority.make_key(), mode=0o640, owner=owner)
    return paths.OWN_KEY.read_bytes()


def own_certificate(wanted: Settings) -> None:
    """Sign this member's certificate with the authority that lies here, unless a good one is there."""
    key, ca = own_key(owner=files.SHARED), paths.CA_CERT.read_bytes()
    if paths.OWN_CERT.exists() and authority.is_match(paths.OWN_CERT.read_bytes(), key, ca_cert=ca):
        return
    holder = member_holder(wanted, wanted.own)
    request = authority.make_request(key)
    cert = authority.sign_request(request, holder, ca_cert=ca, ca_key=paths.CA_KEY.read_bytes())
    files.write(paths.OWN_CERT, cert, mode=0o644)


def adopt_certificate(fresh: bytes, key: bytes) -> None:
    """Write the certificate that the pair has signed for us, unless one as good is there: programs use that already."""
    old = paths.OWN_CERT.read_bytes() if paths.OWN_CERT.exists() else b""
    is_good = authority.is_match(old, key, ca_cert=paths.CA_CERT.read_bytes()) and authority.says_the_same(old, fresh)
    if not is_good:
        files.write(paths.OWN_CERT, fresh, mode=0o644)


def own_secrets() -> None:
    """Make the pair's keys and root's API token, unless they are there."""
    if not paths.HEARTBEAT_KEY.exists():
        files.write(paths.HEARTBEAT_KEY, secrets.token_bytes(KEY_BYTES), mode=0o640, owner=files.SHARED)
    if not paths.TOKEN_KEY.exists():
        files.write(paths.TOKEN_KEY, secrets.token_bytes(KEY_BYTES), mode=0o600)
    if not paths.ADMIN_TOKEN.exists():
        files.write(paths.ADMIN_TOKEN, f"futago_{secrets.token_urlsafe(32)}\n", mode=0o600)


def agent_settings(wanted: AgentSettings) -> None:
    """Write the agent's settings file and its directory."""
    files.directory(paths.ETC, mode=0o755)
    files.directory(paths.AGENT_VAR, mode=0o700)
    files.write(paths.AGENT_SETTINGS, settings.dump(wanted), mode=0o644)


# --- units ---


def unit_text(name: str, *, postgres: str = "") -> str:
    """Return the text of a unit or of another file in setup/units, with the programs' places filled in."""
    template = resources.files("futago.setup").joinpath("units", name).read_text(encoding="utf-8")
    return template.replace("@FUTAGO@", str(Path(sys.prefix) / "bin/futago")).replace("@POSTGRES@", postgres)


def member_units(*, postgres: str) -> None:
    """Write the units of a member and let systemd know them. `postgres`: the command line that starts the database."""
    changed = [files.write(SYSTEMD / name, unit_text(name, postgres=postgres), mode=0o644) for name in MEMBER_UNITS]
    files.write(TMPFILES, unit_text("tmpfiles.conf"), mode=0o644)
    files.write(SYSCTL, unit_text("sysctl.conf"), mode=0o644)
    if is_real():
        _must(["systemd-tmpfiles", "--create", str(TMPFILES)], "The folders in /run cannot be made")
        _try(["/lib/systemd/systemd-sysctl", str(SYSCTL)])
        if any(changed):
            reload_units()


def host_unit(name: str) -> bool:
    """Write the unit of an agent or of a witness; return whether it changed."""
    changed = files.write(SYSTEMD / name, unit_text(name), mode=0o644)
    if changed and is_real():
        reload_units()
    return changed


def reload_units() -> None:
    """Let systemd read its units again."""
    _must(["systemctl", "daemon-reload"], "systemd cannot read its units again")


def start(units: tuple[str, ...]) -> None:
    """Enable the units for every boot and start those that do not run, in this order.

    Raises:
        OperatorFault: one does not start; names the command that shows why.
    """
    enable(*units)
    for unit in units:
        _must(["systemctl", "start", unit], f"{unit} does not start", hint=f"See `journalctl -u {unit} -n 50`.")


def enable(*units: str) -> None:
    """Let the units start at every boot. Raises OperatorFault."""
    _must(["systemctl", "enable", "--quiet", *units], "The units cannot be enabled")


def restart(unit: str) -> None:
    """Start the unit anew, as after its files changed. Raises OperatorFault as `start` does."""
    _must(["systemctl", "restart", unit], f"{unit} does not start", hint=f"See `journalctl -u {unit} -n 50`.")


def _must(args: list[str], otherwise: str, *, hint: str = "Mend it, then run the same command again.") -> None:
    try:
        machine.tool(args, deadline_s=60)
    except Refused as e:
        raise OperatorFault(f"{otherwise}: {e}.", hint=hint, code="setup.install") from e


def _try(args: list[str]) -> None:
    """Run what is good to have: some containers do not allow it."""
    try:
        machine.tool(args, deadline_s=10)
    except Refused:
        return
