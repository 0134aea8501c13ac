"""A Redfish service that controls one machine: sushy-emulator with TLS and accounts, whose power switch is a program.

Runs as a program of its own, in the namespace of a BMC or in a test. The emulator's own machine is a fiction that
switches after a random time; here both its questions go to the control program that ipmi_sim calls too:

    CONTROL MEMBER get power        prints power:1 or power:0
    CONTROL MEMBER set power 0
"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from futago.runtime.clock import now_utc

PORT = 443
_CONTROL_S_MAX = 60.0


def main(home: Path, address: str, port: int, control: str, member: str) -> int:
    """Serve until ended.

    Args:
        home: holds `password` (of the user in `user`), takes the certificate, the key and the emulator's state.
        address: where to listen.
        port: TCP port.
        control: the program that switches the power.
        member: the machine's name.
    """
    import bcrypt
    from sushy_tools.emulator import main as emulator
    from sushy_tools.emulator.resources.systems.fakedriver import FakeDriver

    def ask(*words: str) -> str:
        done = subprocess.run(
            [control, member, *words], capture_output=True, text=True, check=True, timeout=_CONTROL_S_MAX
        )
        return done.stdout

    def power_state(_driver: Any, _identity: str) -> str:
        return "On" if "power:1" in ask("get", "power") else "Off"

    def set_power_state(_driver: Any, _identity: str, state: str) -> None:
        if state in ("ForceOff", "ForceRestart", "GracefulShutdown", "GracefulRestart"):
            ask("set", "power", "0")
        if state in ("On", "ForceOn", "ForceRestart", "GracefulRestart"):
            ask("set", "power", "1")

    FakeDriver.get_power_state = power_state
    FakeDriver.set_power_state = set_power_state
    user = (home / "user").read_text(encoding="ascii").strip()
    secret = (home / "password").read_bytes().strip()
    hashed = bcrypt.hashpw(secret, bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$", 1)
    _private(home / "htpasswd", f"{user}:{hashed}\n".encode())
    make_certificate(home, address)
    state = home / "redfish"
    state.mkdir(exist_ok=True)
    system = {
        "uuid": f"00000000-0000-0000-0000-{member.encode().hex():0>12}"[:36],
        "name": member,
        "power_state": "On",
        "nics": [],
    }
    emulator.app.configure(
        extra_config={
            "SUSHY_EMULATOR_FAKE_DRIVER": True,
            "SUSHY_EMULATOR_FAKE_SYSTEMS": [system],
            "SUSHY_EMULATOR_STATE_DIR": str(state),
            "SUSHY_EMULATOR_AUTH_FILE": str(home / "htpasswd"),
        }
    )
    sys.argv = [
        "sushy-emulator",
        *("--fake", "-i", address, "-p", str(port)),
        *("--ssl-certificate", str(certificate(home)), "--ssl-key", str(home / "redfish.key")),
    ]
    return int(emulator.main())


def certificate(home: Path) -> Path:
    """Return the file of the service's certificate."""
    return home / "redfish.crt"


def make_certificate(home: Path, address: str) -> None:
    """Make a certificate that the service signs itself, as service processors do; the one that is there is kept."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    if certificate(home).exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "service processor")])
    now = now_utc()
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _private(home / "redfish.key", secret)
    certificate(home).write_bytes(made.public_bytes(serialization.Encoding.PEM))


def _private(file: Path, content: bytes) -> None:
    file.unlink(missing_ok=True)
    fd = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as f:
        f.write(content)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5]))
