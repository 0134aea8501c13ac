"""Admission: what a member answers to machines that are not of the pair yet. One request, one answer, one short
process.

The controller serves PORT_CONTROL but must not load cryptography nor wait for a signature, so it starts `python -m
futago.setup.admission` for each request of a client without a certificate (ops of setup/model.py: OPS), with the
request as JSON on standard input and the answer as JSON on standard output:

    stranger --frame--> controller --JSON--> admission --JSON--> controller --frame--> stranger

A refusal is an answer too (`ok: false`, with sentence, hint and code); it is counted by code in a file beside the
views, and logged. Nothing is stored for a token. A join is written into the settings of this member before it is
answered, so that whoever holds the answer is a member.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from futago import __version__
from futago.runtime.clock import now_utc
from futago.runtime.faults import OperatorFault
from futago.runtime.log import Log
from futago.runtime.unreadable import UNREADABLE
from futago.setup import authority, files, paths, settings, token
from futago.setup.model import (
    REQUEST_BYTES_MAX,
    Answer,
    Ca,
    CaAnswer,
    Enroll,
    EnrollAnswer,
    Hello,
    HelloAnswer,
    Join,
    JoinAnswer,
    Refusal,
    Request,
)
from futago.setup.settings import MemberSettings, Settings

COUNTS = "admission.json"  # beside the views
TEXT_CHARS_MAX = 200


@dataclass(frozen=True, slots=True)
class Admission:
    """Answers requests from the files of this member. `reload` tells the controller that the settings have changed."""

    reload: Callable[[], None]
    log: Log

    def handle(self, raw: bytes) -> Answer:
        """Return the answer to one request (JSON). Never raises for what the stranger sent."""
        try:
            return self._answer(_decode(raw))
        except OperatorFault as fault:
            count = _count(fault.code)
            self.log.warning("admission.refused", code=fault.code, count=count, reason=fault.what)
            return Refusal(error=fault.what, hint=fault.hint, code=fault.code)

    def _answer(self, request: Request) -> Answer:
        match request:
            case Ca():
                return CaAnswer(ca_cert=paths.CA_CERT.read_text(encoding="ascii"))
            case Hello():
                return self._hello(request)
            case Join():
                with files.lock():
                    return self._join(request)
            case Enroll():
                return self._enroll(request)

    def _hello(self, request: Hello) -> HelloAnswer:
        own = settings.load()
        purpose = token.Purpose.JOIN if request.purpose == "join" else token.Purpose.ENROLL
        _verify(request.token, purpose, own)
        return HelloAnswer(own.pair, own.own, [m.name for m in own.members], __version__, now_utc())

    def _join(self, request: Join) -> JoinAnswer:
        own = settings.load()
        _verify(request.token, token.Purpose.JOIN, own)
        if request.version != __version__:
            raise OperatorFault(
                f"This member runs futago {__version__}, the newcomer {request.version[:TEXT_CHARS_MAX]}.",
                hint="Install the same version on both machines.",
                code="join.version",
            )
        newcomer = _placed(request.member)
        widened = take_in(own, newcomer)
        holder = member_holder(own, newcomer)
        cert = authority.sign_request(
            request.csr.encode(),
            holder,
            ca_cert=paths.CA_CERT.read_bytes(),
            ca_key=paths.CA_KEY.read_bytes(),
        )
        _check_passwords(request)
        for device, password in zip(newcomer.fence, request.fence_passwords, strict=True):
            if device.password_file:
                files.write(Path(device.password_file), password, mode=0o600)
        if files.write(paths.SETTINGS, settings.dump(widened), mode=0o644):
            self.reload()
        self.log.event("admission.joined", member=newcomer.name, service=newcomer.service)
        return _bundle(widened, newcomer.name, cert)

    def _enroll(self, request: Enroll) -> EnrollAnswer:
        own = settings.load()
        _verify(request.token, token.Purpose.ENROLL, own)
        if _series(request.version) > _series(__version__):
            raise OperatorFault(
                f"This pair runs futago {__version__}, the agent is newer ({request.version[:TEXT_CHARS_MAX]}).",
                hint="Upgrade the pair first, or install the pair's version on this host.",
                code="enrol.version",
            )
        name = settings.check_name(request.name[:TEXT_CHARS_MAX], what="The host's name")
        if name in {m.name for m in own.members}:
            raise OperatorFault(
                f"`{name}` is the name of a member.", hint="Choose another with --name.", code="enrol.name"
            )
        holder = authority.Holder("agent", name, own.pair.id, (_address(request.address),))
        ca_cert = paths.CA_CERT.read_bytes()
        cert = authority.sign_request(request.csr.encode(), holder, ca_cert=ca_cert, ca_key=paths.CA_KEY.read_bytes())
        self.log.event("admission.enrolled", host=name, address=request.address[:TEXT_CHARS_MAX])
        return EnrollAnswer(ca_cert.decode(), cert.decode(), own.pair.id, [m.service for m in own.members])


def take_in(own: Settings, newcomer: MemberSettings) -> Settings:
    """Return this member's settings with the newcomer in them.

    Raises:
        OperatorFault: its name or an address is ours; two others are members; or it joined before with other addresses.
    """
    if newcomer.name == own.me:
        raise OperatorFault(
            f"`{newcomer.name}` is this member's own name.", hint="Choose another with --member.", code="join.name"
        )
    if {newcomer.service, newcomer.heartbeat} & {own.own.service, own.own.heartbeat}:
        raise OperatorFault(
            "The newcomer names an address of this member as its own.",
            hint="Give --service and --heartbeat the addresses of the machine that joins.",
            code="join.address",
        )
    peer = own.peer
    if peer is not None and peer.name != newcomer.name:
        raise OperatorFault(
            f"The pair is complete: {own.me} and {peer.name}.",
            hint=f"To put a machine in place of {peer.name}, join it under that name.",
            code="join.complete",
        )
    if peer is not None and (peer.service, peer.heartbeat) != (newcomer.service, newcomer.heartbeat):
        raise OperatorFault(
            f"{peer.name} joined before with the addresses {peer.service} and {peer.heartbeat}.",
            hint="Use the same addresses; to change them, edit the settings of both members.",
            code="join.address",
        )
    members = [newcomer if m.name == newcomer.name else m for m in own.members]
    if peer is None:
        members.append(newcomer)
    widened = msgspec.structs.replace(own, members=members)
    return settings.parse(settings.dump(widened), where=paths.SETTINGS)


def member_holder(own: Settings, member: MemberSettings) -> authority.Holder:
    """Return what the certificate of `member` says: its name and every address it may be reached by."""
    names = (member.service, member.heartbeat, *own.pair.addresses, "localhost")
    return authority.Holder("member", member.name, own.pair.id, names)


def _placed(member: MemberSettings) -> MemberSettings:
    """Return the member with its password file where ours lie: a stranger names no paths on this machine."""
    settings.check_name(member.name, what="The newcomer's name")
    placed = [
        msgspec.structs.replace(d, password_file=str(files.fence_password_file(member.name, level)))
        if d.password_file
        else d
        for level, d in enumerate(member.fence, start=1)
    ]
    return msgspec.structs.replace(member, fence=placed)


def _check_passwords(request: Join) -> None:
    if len(request.fence_passwords) != len(request.member.fence):
        raise OperatorFault("There must be one password, or an empty one, for each fence device.", code="join.fence")


def _bundle(widened: Settings, newcomer: str, cert: bytes) -> JoinAnswer:
    theirs = msgspec.structs.replace(widened, me=newcomer)
    held = [Path(d.password_file) for m in widened.members for d in m.fence if d.password_file]
    held += [Path(where) for where in widened.third_vote.files.values()]
    return JoinAnswer(
        settings=settings.dump(theirs),
        ca_cert=paths.CA_CERT.read_text(encoding="ascii"),
        ca_key=paths.CA_KEY.read_text(encoding="ascii"),
        cert=cert.decode(),
        heartbeat_key=paths.HEARTBEAT_KEY.read_bytes().hex(),
        token_key=paths.TOKEN_KEY.read_bytes().hex(),
        fence_passwords={where.name: where.read_text(encoding="utf-8") for where in held},
        admin_token=paths.ADMIN_TOKEN.read_text(encoding="ascii") if paths.ADMIN_TOKEN.exists() else "",
    )


def _verify(word: str, purpose: token.Purpose, own: Settings) -> None:
    token.verify(word, paths.TOKEN_KEY.read_bytes(), purpose=purpose, pair_id=own.pair.id, now_utc=now_utc())


def _decode(raw: bytes) -> Request:
    if len(raw) > REQUEST_BYTES_MAX:
        raise OperatorFault("The request is too large.", code="admission.request")
    try:
        request: Request = msgspec.json.decode(raw, type=Request)
        return request
    except UNREADABLE as e:
        raise OperatorFault(
            f"The request cannot be understood: {e}.",
            hint="Install the same version on both machines.",
            code="admission.request",
        ) from e


def _address(text: str) -> str:
    import ipaddress

    try:
        return str(ipaddress.ip_address(text))
    except ValueError as e:
        raise OperatorFault(
            f"`{text[:TEXT_CHARS_MAX]}` is not an address.",
            hint="Give this host's address with --address.",
            code="enrol.address",
        ) from e


def _series(version: str) -> tuple[int, int]:
    head = version.split(".")[:2]
    if len(head) != 2 or not all(part.isdecimal() and len(part) < 6 for part in head):
        raise OperatorFault("The newcomer's version cannot be read.", code="enrol.version")
    return int(head[0]), int(head[1])


def _count(code: str) -> int:
    """Count a refusal; return how many of its code there have been. A count that cannot be kept is not worth a
    failure.
    """
    where = paths.CLUSTER / COUNTS
    try:
        with files.lock():
            counts: dict[str, int] = json.loads(where.read_text()) if where.exists() else {}
            counts[code] = counts.get(code, 0) + 1
            where.parent.mkdir(parents=True, exist_ok=True)
            where.write_text(json.dumps(counts))
            return counts[code]
    except (OSError, ValueError):
        return 0


def reload_controller() -> None:
    """Tell the controller to read its settings again."""
    subprocess.run(
        ["systemctl", "kill", "--kill-whom=main", "-s", "HUP", "futago-controller.service"], check=False, timeout=5
    )


def main() -> int:
    """Answer the one request on standard input."""
    admission = Admission(reload=reload_controller, log=Log(program="admission"))
    answer = admission.handle(sys.stdin.buffer.read(REQUEST_BYTES_MAX + 1))
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
