"""A member's BMC: real services (`ipmi_sim`, `sushy-emulator`, `moto`) in a network namespace of its own, whose power control acts
on the lab host through the daemon.

It has a power supply of its own, so it lives on when its host is cut. Its own troubles: it hangs (all of it, or one
service), its cable is pulled, or it lies (it says "off" and the host runs on).
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

from futago.lab import machine, network, redfish
from futago.lab.fencing import AWS, IPMI
from futago.lab.machine import Cgroup
from futago.lab.places import SOURCE
from futago.lab.topology import BMC_USER, Network, bmc_address, bmc_number, link
from futago.runtime.faults import OperatorFault

_LAN = """name "{name}"
set_working_mc 0x20
  startlan 1
    addr {address} 623
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid {guid}
  endlan
  chassis_control "{control} {member}"
  user 2 true "{user}" "{password}" admin 10 none md2 md5 straight
"""

_EMULATION = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
sel_enable 0x20 1000 0x0a
mc_enable 0x20
"""

# ipmi_sim calls: CONTROL MEMBER get|set|check PARAMETER [VALUE] ...; the answers to `get` are lines "power:1".
_CONTROL = """#!{python} -IS
import json, socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(60); s.connect({socket!r})
s.sendall(json.dumps({{"op": "chassis", "member": sys.argv[1], "words": sys.argv[2:]}}).encode() + b"\\n")
answer = json.loads(s.makefile().readline())
sys.stdout.write(answer.get("output", "")); sys.exit(0 if answer["ok"] else 1)
"""


class Bmc:
    """The BMC of one member.

    Args:
        member: the host it controls.
        home: its folder.
        cgroup: its cgroup.
        control_socket: the daemon's socket, for the power control.
        services: what it offers, of IPMI, REDFISH and AWS.
    """

    def __init__(
        self, member: str, home: Path, *, cgroup: Cgroup, control_socket: Path, services: tuple[str, ...] = (IPMI,)
    ) -> None:
        self.member = member
        self.home = home
        self.cgroup = cgroup
        self.lies = False
        self.is_hung = False
        self._socket = control_socket
        self._link = link(self.namespace, Network.BMC, bmc_number(member))
        self._services = services
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def namespace(self) -> str:
        return f"bmc-{self.member}"

    @property
    def port(self) -> str:
        """The switch's port of its cable."""
        return self._link.port

    def start(self) -> None:
        """Make its namespace and start it."""
        self._write()
        network.make_namespace(self.namespace)
        network.plug_in(self.namespace, [self._link])
        for service in self._services:
            self._start(service)

    def _command(self, service: str) -> list[str]:
        if service == IPMI:
            files = [
                "-c",
                str(self.home / "lan.conf"),
                "-f",
                str(self.home / "bmc.emu"),
                "-s",
                str(self.home / "state"),
            ]
            return ["ipmi_sim", *files, "-n"]
        if service == AWS:
            words = [str(self.home), bmc_address(self.member), str(self.home / "control"), self.member]
            return [sys.executable, "-m", "futago.lab.aws", *words]
        words = [str(self.home), bmc_address(self.member), str(redfish.PORT), str(self.home / "control"), self.member]
        return [sys.executable, "-m", "futago.lab.redfish", *words]

    def _part(self, service: str) -> Cgroup:
        return Cgroup(self.cgroup.path / service)

    def _start(self, service: str) -> None:
        self._part(service).make()
        with (self.home / f"{service}.log").open("ab") as log:
            self._processes[service] = subprocess.Popen(
                machine.within(
                    self._part(service),
                    ["nsenter", f"--net={network.NAMESPACES / self.namespace}", *self._command(service)],
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**machine.CLEAN_ENV, "PYTHONPATH": str(SOURCE / "src")},
                cwd=self.home,
            )

    def _write(self) -> None:
        (self.home / "state").mkdir(parents=True, exist_ok=True)
        secret = self.home / "password"
        if not secret.exists():
            fd = os.open(secret, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
            with os.fdopen(fd, "w") as f:
                f.write(secrets.token_hex(8) + "\n")
        (self.home / "user").write_text(f"{BMC_USER}\n", encoding="ascii")
        redfish.make_certificate(self.home, bmc_address(self.member))
        control = self.home / "control"
        control.write_text(
            _CONTROL.format(python=os.path.realpath(sys.executable), socket=str(self._socket)), encoding="ascii"
        )
        control.chmod(0o700)
        lan = self.home / "lan.conf"
        lan.touch(mode=0o600)
        lan.write_text(
            _LAN.format(
                name=self.namespace,
                address=bmc_address(self.member),
                guid=secrets.token_hex(16),
                control=control,
                member=self.member,
                user=BMC_USER,
                password=secret.read_text(encoding="ascii").strip(),
            ),
            encoding="ascii",
        )
        (self.home / "bmc.emu").write_text(_EMULATION, encoding="ascii")

    def hang(self, *, hung: bool, service: str = "") -> None:
        """Stop it, or one of its services, in the middle of whatever it does, or let it go on."""
        if service and service not in self._services:
            raise OperatorFault(
                f"The BMC of {self.member} has no service `{service}`.",
                hint=f"It has {', '.join(self._services)}.",
                code="lab.bmc",
            )
        for pid in (self._part(service) if service else self.cgroup).pids():
            os.kill(pid, signal.SIGSTOP if hung else signal.SIGCONT)
        self.is_hung = hung

    def is_running(self) -> bool:
        """Return whether all its services live."""
        return bool(self._processes) and all(p.poll() is None for p in self._processes.values())
