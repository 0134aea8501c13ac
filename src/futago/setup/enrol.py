"""`futago agent enroll`: this host becomes an agent of a pair, or with `--witness` its witness alone.

The token says where the members are; the first that answers signs this host's key. A host that was enrolled before
keeps its key, its runs and its seat in the jury; only its certificate is new.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from dataclasses import dataclass

from futago import __version__
from futago.runtime.clock import S, now_at
from futago.runtime.faults import OperatorFault, Refused
from futago.setup import authority, checks, files, install, machine, paths, settings, token
from futago.setup.conversation import ask, fetch_authority, wait_for
from futago.setup.install import Say
from futago.setup.model import Enroll, EnrollAnswer
from futago.setup.settings import AgentSettings
from futago.setup.token import Token

CONNECTED_S_MAX = 30.0
POLL_S = 0.2
MARK = {install.AGENT_UNIT: "connected to", install.WITNESS_UNIT: "listening"}  # what they tell systemd


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator asked for; empty means: find out."""

    token: str
    name: str = ""
    address: str = ""
    wait_s: float = CONNECTED_S_MAX
    is_witness: bool = False

    @property
    def unit(self) -> str:
        """The unit that this host shall run."""
        return install.WITNESS_UNIT if self.is_witness else install.AGENT_UNIT


def run(options: Options, *, say: Say) -> AgentSettings:
    """Make this host an agent; return its settings once it is connected.

    Raises:
        OperatorFault: something must be put right first, or the pair refused; or the agent does not connect in time.
    """
    checks.check_root()
    ticket = token.read(options.token)
    name = settings.check_name(options.name or _own_name(), what="--name")
    check_host(ticket, name, unit=options.unit)
    say(f"asking the pair at {', '.join(ticket.members)}")
    key = paths.OWN_KEY.read_bytes() if paths.OWN_KEY.exists() else authority.make_key()
    answer = _admitted(options, ticket, name, key)
    say("enrolled; writing its files and unit")
    own = put_down(answer, key, name)
    install.host_unit(options.unit)
    install.enable(options.unit)
    install.restart(options.unit)
    _wait_connected(options.unit, options.wait_s, say=say)
    return own


def check_host(ticket: Token, name: str, *, unit: str = install.AGENT_UNIT) -> None:
    """This host may become that agent, or witness, of that pair. Raises OperatorFault before anything is changed."""

    def free() -> None:
        if paths.SETTINGS.exists():
            raise OperatorFault("This machine is a member of a pair; members need no agent.", code="enrol.member")
        if not paths.AGENT_SETTINGS.exists():
            return
        found = settings.load_agent()
        if found.pair_id != ticket.pair or found.name != name:
            raise OperatorFault(
                f"This host is the agent `{found.name}` "
                f"already{'' if found.pair_id == ticket.pair else ' of another pair'}.",
                hint=f"Enroll it under that name; or, to move it, stop futago-agent and remove {paths.ETC} and "
                f"{paths.AGENT_VAR}.",
                code="enrol.exists",
            )

    def alone() -> None:
        other = next(u for u in MARK if u != unit)
        if machine.unit_state(other) in ("active", "activating"):
            raise OperatorFault(
                f"This host runs {other} already.",
                hint="An agent can be the witness as it is: `futago vote set witness NAME` on a member."
                if unit == install.WITNESS_UNIT
                else f"To make an agent of it, run `systemctl disable --now {other}` first; its vote stays.",
                code="enrol.exists",
            )

    def port() -> None:
        held = machine.port_holder(paths.PORT_JUROR, kind=socket.SOCK_STREAM)
        if held and all(machine.unit_state(u) not in ("active", "activating") for u in MARK):
            raise OperatorFault(
                f"TCP port {paths.PORT_JUROR} of this host: {held}.",
                hint="`ss -lntp` shows by whom.",
                code="setup.ports",
            )

    checks.ask_all([checks.check_systemd, free, alone, port])


def put_down(answer: EnrollAnswer, key: bytes, name: str) -> AgentSettings:
    """Write the agent's files, its settings first."""
    own = AgentSettings(name=name, pair_id=answer.pair_id, members=answer.members)
    install.agent_settings(own)
    files.directory(paths.PKI, mode=0o755)
    files.write(paths.OWN_KEY, key, mode=0o600)
    files.write(paths.CA_CERT, answer.ca_cert, mode=0o644)
    install.adopt_certificate(answer.cert.encode(), key)
    return own


def _admitted(options: Options, ticket: Token, name: str, key: bytes) -> EnrollAnswer:
    silent: list[str] = []
    for member in ticket.members:
        try:
            ca = wait_for(fetch_authority(member, ticket))
            address = options.address or own_address(member)
            request = Enroll(options.token, authority.make_request(key).decode(), __version__, name, address)
            return wait_for(ask(member, request, EnrollAnswer, ca_cert=ca, pair_id=ticket.pair))
        except Refused as e:
            silent.append(str(e))
    raise OperatorFault(
        f"No member of the pair answers: {'; '.join(silent)}. Nothing has been changed.",
        hint=f"This host must reach the members' TCP ports {paths.PORT_CONTROL} and {paths.PORT_AGENT}.",
        code="enrol.unreachable",
    )


def own_address(member: str) -> str:
    """Return the address from which this host reaches `member` (the kernel's choice of route; nothing is sent).

    Raises:
        Refused: there is no route.
    """
    version = ipaddress.ip_address(member).version
    try:
        with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as s:
            s.connect((member, paths.PORT_CONTROL))
            return str(s.getsockname()[0])
    except OSError as e:
        raise Refused(f"{member}: {e.strerror or e}") from e


def _own_name() -> str:
    return socket.gethostname().partition(".")[0].lower()


def _wait_connected(unit: str, wait_s: float, *, say: Say) -> None:
    end_at = now_at() + int(wait_s * S)
    said = ""
    while now_at() < end_at:
        said = machine.status_text(unit)
        if said.startswith(MARK[unit]):
            say(said)
            return
        time.sleep(POLL_S)
    port = paths.PORT_JUROR if unit == install.WITNESS_UNIT else paths.PORT_AGENT
    whose = (
        "The members must reach this host's" if unit == install.WITNESS_UNIT else "This host must reach the members'"
    )
    raise OperatorFault(
        f"{unit} runs but is not {MARK[unit].split()[0]} after {wait_s:g} s ({said or 'it says nothing'}).",
        hint=f"{whose} TCP port {port}; see `journalctl -u {unit} -n 30`.",
        code="enrol.connect",
    )
