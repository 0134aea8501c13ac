"""The settings file of a member, /etc/futago/futago.toml, and of an agent, /etc/futago/agent.toml.

Light: the controller, guard and receiver read it at start-up, so only the standard library and msgspec. Secrets are
never in it: it names their files. Unknown keys, wrong types and impossible values are refused with the place and,
where a known key is close, that key.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import math
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from futago.cluster.model import Config, MemberName
from futago.runtime.clock import MS, S
from futago.runtime.faults import OperatorFault
from futago.setup import addresses, fences, paths, thirdvote
from futago.setup.addresses import AddressSettings
from futago.setup.fences import FenceDevice
from futago.setup.thirdvote import ThirdVote


class Profile(msgspec.Struct, frozen=True):
    """Timing of failure detection, in milliseconds (pair protocol, section 3.7). `probe_ms`: how late the answer of
    PostgreSQL may be until it counts as hung.
    """

    h_ms: int
    k: int
    bias_ms: int
    t_stall_ms: int = 2000
    probe_ms: int = 1200


PROFILES = {
    "default": Profile(h_ms=200, k=10, bias_ms=300, t_stall_ms=2000, probe_ms=1200),
    "fast": Profile(h_ms=100, k=5, bias_ms=200, t_stall_ms=1000, probe_ms=500),
    "vm": Profile(h_ms=300, k=15, bias_ms=400, t_stall_ms=3000, probe_ms=1800),
}


class MemberSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One machine of the pair."""

    name: str
    service: str  # its address on the service network
    heartbeat: str  # its address on the heartbeat network
    interface: str  # the network interface that carries the service network and the floating IP
    fence: list[FenceDevice] = []  # what can power it off, in the order of trying; a single one may be a plain table
    eni: str = ""  # its network interface in the cloud, for the kinds of pair.address that need one


class Juror(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One acceptor of the jury: an agent that listens for the controllers."""

    name: str
    address: str
    port: int = paths.PORT_JUROR
    acceptor: str = ""  # the identity of its vote, learned when it was seated: a host enrolled anew has another


class PairSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What both members agree on."""

    name: str
    id: str  # random, in every frame and certificate
    floating_ip: str = ""  # with prefix length, such as 10.91.1.100/24; none if clients know both members
    authority: str = "register"
    profile: str = "default"
    recovery: str = "auto"
    fence_after: str = "on"
    watchdog: str = "auto"  # the machine's own /dev/watchdog: used where there is one
    watchdog_s: int = 0  # seconds without a sign of life until it resets the machine; 0: what the profile asks for
    returns_max: int = 20  # automatic returns of a member within 15 minutes, then it waits for a person; 0: no limit
    floating_more: list[str] = []  # further addresses that move with it, such as one of IPv6
    job_history_days: int = 400  # sessions of job nets that ended earlier are removed; 0: never
    address: AddressSettings | None = None  # how they move, if not by themselves on one subnet

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every floating address, without prefix length; empty if there is none."""
        return tuple(a.partition("/")[0] for a in (self.floating_ip, *self.floating_more) if a)

    @property
    def has_address(self) -> bool:
        """Is there anything that moves to the serving member?"""
        return bool(self.floating_ip) or self.address is not None

    @property
    def on_subnet(self) -> tuple[str, ...]:
        """The floating addresses, with prefix length, that must lie in the service network for the way they move."""
        is_local = self.address is None or self.address.kind in ("netlink", "aws-secondary")
        return tuple(a for a in (self.floating_ip, *self.floating_more) if a and is_local)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file of a member."""

    me: str
    pair: PairSettings
    members: list[MemberSettings]
    jurors: list[Juror] = []
    roster: int = 0  # version of the third vote, whatever its kind; every seating makes a higher one
    third_vote: ThirdVote = ThirdVote()

    @property
    def own(self) -> MemberSettings:
        """This machine."""
        return next(m for m in self.members if m.name == self.me)

    @property
    def peer(self) -> MemberSettings | None:
        """The other machine; None until it has joined."""
        return next((m for m in self.members if m.name != self.me), None)

    @property
    def profile(self) -> Profile:
        return PROFILES[self.pair.profile]

    @property
    def watchdog_s(self) -> int:
        """Seconds until the machine's own watchdog resets it, by default the whole seconds after which an isolated
        member must have stopped itself; 0 if it is to be left alone.
        """
        if self.pair.watchdog == "off":
            return 0
        return self.pair.watchdog_s or max(WATCHDOG_S_MIN, math.ceil(self.config().t_self / S))

    @property
    def _shot_apart_s(self) -> float:
        """By how much the shots of the two members are apart where the fence decides: one must have ended first."""
        longest = max((fences.shot_s_max(m.fence) for m in self.members), default=0.0)
        return max(SHOT_APART_S_MIN, longest + 1.0)

    def config(self) -> Config:
        """Return what the decision needs of the settings."""
        p, peer = self.profile, self.peer
        return Config(
            me=MemberName(self.me),
            peer=MemberName(peer.name if peer else ""),
            h=p.h_ms * MS,
            k=p.k,
            bias=p.bias_ms * MS,
            t_stall=p.t_stall_ms * MS,
            authority=self.pair.authority,
            recovery=self.pair.recovery,
            fence_after=self.pair.fence_after,
            has_peer=peer is not None,
            fence_delay=int(self._shot_apart_s * S),
        )


class AgentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file of an agent."""

    name: str
    pair_id: str
    members: list[str]  # addresses of the members' service network
    listen: str = "0.0.0.0"  # noqa: S104  jurors are asked from both networks of the members; mutual TLS guards the port


SHOT_APART_S_MIN = 5.0
WATCHDOG_S_MIN, WATCHDOG_S_MAX = 2, 300
RETURNS_MAX = 1000
JOB_HISTORY_DAYS_MAX = 36_500
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}\Z")
CHOICES = {
    "authority": {"register", "fence"},
    "recovery": {"auto", "manual"},
    "fence_after": {"on", "stay_off"},
    "watchdog": {"auto", "off", "required"},
    "profile": set(PROFILES),
}


def _fault(
    path: Path, what: str, hint: str = "Correct the file and try again; nothing has been changed."
) -> OperatorFault:
    return OperatorFault(f"{path}: {what}.", hint=hint, code="settings.invalid")


def _suggest(message: str, known: list[str]) -> str:
    found = re.search(r"unknown field `([^`]+)`", message)
    close = difflib.get_close_matches(found.group(1), known, n=1) if found else []
    return f"{message}; did you mean `{close[0]}`" if close else message


def parse(text: str, *, where: Path) -> Settings:
    """Return the settings that `text` holds.

    Raises:
        OperatorFault: with the file, the place in it and what is wrong there.
    """
    settings = _convert(text, Settings, where, prepare=_fences_as_lists)
    _check(settings, where)
    return settings


def parse_agent(text: str, *, where: Path) -> AgentSettings:
    """Return an agent's settings. Raises OperatorFault as `parse` does."""
    return _convert(text, AgentSettings, where)


T = TypeVar("T", bound=msgspec.Struct)


def _fences_as_lists(raw: dict[str, Any]) -> None:
    """A member with one fence device may have it as `[members.fence]`."""
    members = raw.get("members")
    for member in members if isinstance(members, list) else []:
        if isinstance(member, dict) and isinstance(member.get("fence"), dict):
            member["fence"] = [member["fence"]]


def _convert(
    text: str, kind: type[T], where: Path, *, prepare: Callable[[dict[str, Any]], None] = lambda _raw: None
) -> T:
    try:
        raw: dict[str, Any] = tomllib.loads(text)
        prepare(raw)
        return msgspec.convert(raw, kind)
    except tomllib.TOMLDecodeError as e:
        raise _fault(where, f"not valid TOML: {e}") from e
    except msgspec.ValidationError as e:
        known = [
            f
            for k in (
                Settings,
                PairSettings,
                AddressSettings,
                MemberSettings,
                FenceDevice,
                Juror,
                ThirdVote,
                AgentSettings,
            )
            for f in k.__struct_fields__
        ]
        raise _fault(where, _suggest(str(e), known)) from e


def _check(s: Settings, where: Path) -> None:
    for key, allowed in CHOICES.items():
        value = getattr(s.pair, key)
        if value not in allowed:
            raise _fault(where, f"pair.{key} is `{value}`; it must be one of {', '.join(sorted(allowed))}")
    if not 1 <= len(s.members) <= 2 or len({m.name for m in s.members}) != len(s.members):
        raise _fault(where, "a pair has one or two members with different names")
    if s.me not in {m.name for m in s.members}:
        raise _fault(where, f"me is `{s.me}`, which is not the name of a member")
    check_name(s.pair.name, what=f"{where}: pair.name")
    if s.pair.watchdog_s and not WATCHDOG_S_MIN <= s.pair.watchdog_s <= WATCHDOG_S_MAX:
        raise _fault(where, f"pair.watchdog_s is {s.pair.watchdog_s}; it must be {WATCHDOG_S_MIN} to {WATCHDOG_S_MAX}")
    if not 0 <= s.pair.returns_max <= RETURNS_MAX:
        raise _fault(where, f"pair.returns_max is {s.pair.returns_max}; it must be 0 (no limit) to {RETURNS_MAX}")
    _check_history(s, where)
    for m in s.members:
        check_name(m.name, what=f"{where}: members.name")
        for device in m.fence:
            if wrong := fences.problem(device):
                raise _fault(where, f"members.{m.name}.fence.{wrong}")
        if len(m.fence) > fences.LEVELS_MAX:
            raise _fault(where, f"members.{m.name}.fence: {len(m.fence)} devices, more than {fences.LEVELS_MAX}")
        for key in ("service", "heartbeat"):
            _address(where, f"members.{m.name}.{key}", getattr(m, key))
    _check_floating(s, where)
    if wrong := thirdvote.problem(s.third_vote, authority=s.pair.authority, jurors=len(s.jurors)):
        raise _fault(where, wrong)


def _check_history(s: Settings, where: Path) -> None:
    days = s.pair.job_history_days
    if not 0 <= days <= JOB_HISTORY_DAYS_MAX:
        raise _fault(where, f"pair.job_history_days is {days}; it must be 0 to {JOB_HISTORY_DAYS_MAX}")


def _check_floating(s: Settings, where: Path) -> None:
    """Each floating address is one, and none of a member's own; together they are different; how they move is clear."""
    pair = s.pair
    if pair.address is not None:
        enis = [m.eni for m in s.members]
        if wrong := addresses.problem(pair.address, has_floating=bool(pair.floating_ip), enis=enis):
            raise _fault(where, f"pair.address.{wrong}")
    if pair.floating_more and not pair.floating_ip:
        raise _fault(where, "pair.floating_more needs pair.floating_ip")
    named = [("floating_ip", pair.floating_ip)] if pair.floating_ip else []
    seen = {ipaddress.ip_address(a) for m in s.members for a in (m.service, m.heartbeat)}
    for key, value in [*named, *(("floating_more", x) for x in pair.floating_more)]:
        try:
            ip = ipaddress.ip_interface(value).ip
        except ValueError as e:
            raise _fault(where, f"pair.{key}: {e}") from e
        if ip in seen:
            raise _fault(where, f"pair.{key}: {ip} is named twice, or is a member's own address")
        seen.add(ip)


def _address(where: Path, key: str, value: str) -> None:
    try:
        ipaddress.ip_address(value)
    except ValueError as e:
        raise _fault(where, f"{key}: {e}") from e


def check_name(name: str, *, what: str) -> str:
    """Return `name` if it may name a member, host or juror: a lower-case letter, then letters, digits and hyphens, 31
    characters at most.
    """
    if not _NAME.match(name):
        raise OperatorFault(
            f"{what}: `{name}` cannot be a name.",
            hint="Use a lower-case letter, then letters, digits and hyphens, 31 characters at most.",
            code="settings.name",
        )
    return name


def load(where: Path | None = None) -> Settings:
    """Read the member's settings. Raises OperatorFault if the file is missing, unreadable or wrong."""
    where = where or paths.SETTINGS
    return parse(_read(where, "Run `futago init` here, or `futago join` if the other member exists."), where=where)


def load_agent(where: Path | None = None) -> AgentSettings:
    """Read the agent's settings. Raises OperatorFault if the file is missing, unreadable or wrong."""
    where = where or paths.AGENT_SETTINGS
    return parse_agent(_read(where, "Run `futago agent enroll` here."), where=where)


def _read(where: Path, hint: str) -> str:
    try:
        return where.read_text(encoding="utf-8")
    except FileNotFoundError as e:
        raise OperatorFault(
            f"{where} does not exist: this machine is not set up.", hint=hint, code="settings.missing"
        ) from e
    except (OSError, UnicodeDecodeError) as e:
        raise OperatorFault(
            f"{where} cannot be read: {e}.", hint="Run this as root.", code="settings.unreadable"
        ) from e


def dump(settings: Settings | AgentSettings) -> str:
    """Return the settings as TOML text that `parse` reads back."""
    return _toml(msgspec.to_builtins(settings), prefix="")


def _toml(table: dict[str, Any], *, prefix: str) -> str:
    lines = [f"{k} = {_literal(v)}" for k, v in table.items() if v is not None and not _is_table(v)]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += [f"\n[{prefix}{key}]", _toml(value, prefix=f"{prefix}{key}.")]
        elif _is_table(value):
            lines += [f"\n[[{prefix}{key}]]\n" + _toml(row, prefix=f"{prefix}{key}.") for row in value]
    return "\n".join(lines)


def _literal(value: object) -> str:
    """Return a TOML literal: JSON's, except that TOML has no surrogate pairs and wants DEL escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))
