"""Admission: real certificates, real TLS over loopback, the real answers of a first member."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from futago import __version__
from futago.link import tls
from futago.link.frames import FrameStream
from futago.runtime.clock import now_utc
from futago.runtime.faults import OperatorFault, Refused, RemoteProtocolFault
from futago.runtime.log import Log
from futago.setup import authority, conversation, files, join, lines, paths, settings, token
from futago.setup.admission import Admission
from futago.setup.model import CaAnswer, Enroll, EnrollAnswer, Hello, HelloAnswer, Join, JoinAnswer, Refusal
from futago.setup.settings import FenceDevice, MemberSettings, Settings
from futago.setup.thirdvote import ThirdVote
from futago.setup.token import Purpose

SECOND = MemberSettings(
    "m2", "192.0.2.12", "198.51.100.12", "eth0", [FenceDevice("ipmi", "192.0.2.202", "admin", "/etc/shadow")]
)


class Door:
    """A first member: its admission, and the words a newcomer needs."""

    def __init__(self, own: Settings) -> None:
        self.own = own
        self.reloads = 0
        self.admission = Admission(reload=self._reload, log=Log(program="test"))
        made = lines.lines(own)
        self.join_word, self.enroll_word = made.join_token, made.enroll_token

    def _reload(self) -> None:
        self.reloads += 1

    def join(self, member: MemberSettings = SECOND, *, word: str = "", **changes: object) -> object:
        request = Join(word or self.join_word, csr(), __version__, member, ["secret2"])
        return self.handle(msgspec.structs.replace(request, **changes))

    def enroll(
        self, name: str = "h1", *, word: str = "", version: str = __version__, address: str = "192.0.2.21"
    ) -> object:
        return self.handle(Enroll(word or self.enroll_word, csr(), version, name, address))

    def handle(self, request: object) -> object:
        return self.admission.handle(msgspec.json.encode(request))

    def refusals(self) -> dict[str, int]:
        found: dict[str, int] = json.loads((paths.CLUSTER / "admission.json").read_text())
        return found


def csr() -> str:
    return authority.make_request(authority.make_key()).decode()


@pytest.fixture
def door(first_member: Settings) -> Door:
    return Door(first_member)


def test_joining_hands_over_everything_shared_and_writes_the_newcomer_down(door: Door) -> None:
    answer = door.join()
    assert isinstance(answer, JoinAnswer)
    theirs = settings.parse(answer.settings, where=Path("theirs"))
    ours = settings.load()
    assert (theirs.me, ours.me) == ("m2", "m1")
    assert msgspec.structs.replace(theirs, me="m1") == ours
    assert answer.ca_key == paths.CA_KEY.read_text()
    assert bytes.fromhex(answer.heartbeat_key) == paths.HEARTBEAT_KEY.read_bytes()
    assert bytes.fromhex(answer.token_key) == paths.TOKEN_KEY.read_bytes()
    assert answer.admin_token == paths.ADMIN_TOKEN.read_text()
    assert answer.fence_passwords == {"fence-m1.password": "calvin", "fence-m2.password": "secret2"}
    assert door.reloads == 1


def test_the_newcomer_gets_the_files_of_the_third_vote(door: Door) -> None:
    secret = paths.SECRETS / "vote-1a2b.password"
    files.write(secret, "etcd's", mode=0o600)
    vote = ThirdVote(kind="etcd", endpoints=["https://e1:2379"], user="futago", password_file=str(secret), seat="s1")
    settled = msgspec.structs.replace(door.own, third_vote=vote, roster=3)
    files.write(paths.SETTINGS, settings.dump(settled), mode=0o644)
    answer = door.join()
    assert isinstance(answer, JoinAnswer)
    assert answer.fence_passwords["vote-1a2b.password"] == "etcd's"
    theirs = settings.parse(answer.settings, where=paths.SETTINGS)
    assert (theirs.third_vote, theirs.roster) == (vote, 3)
    secret.unlink()
    join.put_down(answer, authority.make_key())
    assert secret.read_text() == "etcd's" and secret.stat().st_mode & 0o777 == 0o600


def test_the_newcomer_chooses_no_path_on_this_machine(door: Door) -> None:
    door.join()
    peer = settings.load().peer
    assert peer is not None
    where = Path(peer.fence[0].password_file)
    assert where == files.fence_password_file("m2")
    assert (where.read_text(), where.stat().st_mode & 0o777) == ("secret2", 0o600)


def test_the_same_member_may_join_again_with_a_new_key_and_nothing_changes(door: Door) -> None:
    first = door.join()
    before = paths.SETTINGS.read_bytes()
    again = door.join()
    assert isinstance(first, JoinAnswer) and isinstance(again, JoinAnswer)
    assert again.cert != first.cert
    assert again.settings == first.settings
    assert paths.SETTINGS.read_bytes() == before
    assert door.reloads == 1


@pytest.mark.parametrize(
    ("member", "code"),
    [
        (MemberSettings("m1", "192.0.2.12", "198.51.100.12", "eth0"), "join.name"),
        (MemberSettings("m2", "192.0.2.11", "198.51.100.12", "eth0"), "join.address"),
        (MemberSettings("m2", "192.0.2.12", "198.51.100.11", "eth0"), "join.address"),
        (MemberSettings("M2", "192.0.2.12", "198.51.100.12", "eth0"), "settings.name"),
        (MemberSettings("../x", "192.0.2.12", "198.51.100.12", "eth0"), "settings.name"),
        (MemberSettings("m2", "nowhere", "198.51.100.12", "eth0"), "settings.invalid"),
    ],
)
def test_a_newcomer_that_cannot_be_the_second_member_is_refused_and_changes_nothing(
    door: Door, member: MemberSettings, code: str
) -> None:
    before = tree(paths.ETC)
    answer = door.join(member)
    assert isinstance(answer, Refusal)
    assert (answer.code, answer.ok) == (code, False)
    assert tree(paths.ETC) == before
    assert door.refusals() == {code: 1}
    assert door.reloads == 0


def test_a_third_member_is_refused(door: Door) -> None:
    door.join()
    answer = door.join(MemberSettings("m3", "192.0.2.13", "198.51.100.13", "eth0"))
    assert isinstance(answer, Refusal)
    assert answer.code == "join.complete"
    assert [m.name for m in settings.load().members] == ["m1", "m2"]


def test_the_second_member_does_not_come_back_under_another_address(door: Door) -> None:
    door.join()
    answer = door.join(msgspec.structs.replace(SECOND, service="192.0.2.99"))
    assert isinstance(answer, Refusal)
    assert answer.code == "join.address"


def test_another_version_is_refused_with_both_versions_named(door: Door) -> None:
    answer = door.join(version="0.0.9")
    assert isinstance(answer, Refusal)
    assert __version__ in answer.error and "0.0.9" in answer.error


@pytest.mark.parametrize(
    "csr_text", ["", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"]
)
def test_a_broken_certificate_request_is_refused(door: Door, csr_text: str) -> None:
    answer = door.join(csr=csr_text)
    assert isinstance(answer, Refusal)
    assert answer.code == "enrol.request"
    assert settings.load().peer is None


def test_wrong_tokens_are_refused_for_their_own_reason_and_counted(door: Door) -> None:
    own = door.own
    late = lines.fresh_token(own, Purpose.JOIN, life=timedelta(seconds=-1))
    other = token.seal(token.read(door.join_word), b"x" * 32)
    for word, code in (
        (late, "token.expired"),
        (other, "token.forged"),
        (door.enroll_word, "token.purpose"),
        ("x", "token.malformed"),
    ):
        answer = door.join(word=word)
        assert isinstance(answer, Refusal)
        assert answer.code == code
        assert answer.hint
    door.join(word="x")
    assert door.refusals() == {"token.expired": 1, "token.forged": 1, "token.purpose": 1, "token.malformed": 2}


def test_a_join_token_enrolls_nobody_and_a_members_name_is_not_an_agents(door: Door) -> None:
    assert isinstance(door.enroll(word=door.join_word), Refusal)
    answer = door.enroll("m1")
    assert isinstance(answer, Refusal)
    assert answer.code == "enrol.name"


@pytest.mark.parametrize(
    ("version", "is_taken"), [(__version__, True), ("0.0.1", True), ("0.2.0", False), ("1.0", False), ("new", False)]
)
def test_an_agent_may_be_older_than_the_pair_but_not_newer(door: Door, version: str, is_taken: bool) -> None:
    assert isinstance(door.enroll(version=version), EnrollAnswer) is is_taken


def test_an_address_that_is_none_is_refused(door: Door) -> None:
    answer = door.enroll(address="h1.example")
    assert isinstance(answer, Refusal)
    assert answer.code == "enrol.address"


@pytest.mark.parametrize(
    "raw", [b"", b"{", b'{"op":"format"}', b'{"op":"enroll"}', b'{"op":"ca","x":1}', b"x" * 70_000]
)
def test_a_request_that_is_none_is_refused(door: Door, raw: bytes) -> None:
    answer = door.admission.handle(raw)
    assert isinstance(answer, Refusal)
    assert answer.code == "admission.request"


def test_the_helper_program_answers_on_standard_output_and_logs_no_secret(door: Door, machine_root: Path) -> None:
    request = msgspec.json.encode(Enroll(door.enroll_word, csr(), __version__, "h1", "192.0.2.21"))
    env = {**os.environ, "FUTAGO_ROOT": str(machine_root)}
    helper = [sys.executable, "-m", "futago.setup.admission"]
    done = subprocess.run(helper, input=request, capture_output=True, timeout=120, env=env, check=True)
    answer = msgspec.json.decode(done.stdout, type=EnrollAnswer)
    assert (answer.ok, answer.members) == (True, ["192.0.2.11"])
    assert b"admission.enrolled" in done.stderr
    assert door.enroll_word.encode() not in done.stderr


def tree(root: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file() and p.name != ".lock"}


# --- over the wire ---


@contextlib.asynccontextmanager
async def serving(door: Door) -> AsyncIterator[int]:
    """Serve admission over TLS as the controller does; yield the port."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream: FrameStream[dict[str, object]] = FrameStream(reader, writer, dict)
        with contextlib.suppress(EOFError, OSError):
            while True:
                request = await stream.receive()
                answer = door.admission.handle(json.dumps(request).encode())
                await stream.send(json.loads(msgspec.json.encode(answer)))

    context = tls.server_context(cert=paths.OWN_CERT, key=paths.OWN_KEY, ca=paths.CA_CERT, anonymous_allowed=True)
    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_a_newcomer_with_nothing_but_the_token_gets_a_certificate_it_can_use(door: Door, tmp_path: Path) -> None:
    ticket = token.read(door.enroll_word)
    key = authority.make_key()
    async with serving(door) as port:
        ca = await conversation.fetch_authority("127.0.0.1", ticket, port=port)
        hello = Hello(door.enroll_word, "enroll")
        said = await conversation.ask("127.0.0.1", hello, HelloAnswer, ca_cert=ca, pair_id=ticket.pair, port=port)
        request = Enroll(door.enroll_word, authority.make_request(key).decode(), __version__, "h1", "192.0.2.21")
        answer = await conversation.ask("127.0.0.1", request, EnrollAnswer, ca_cert=ca, pair_id=ticket.pair, port=port)
    assert (said.member.name, said.taken, said.version) == ("m1", ["m1"], __version__)
    assert said.utc.tzinfo is not None
    agent = tmp_path / "agent"
    agent.mkdir()
    (agent / "own.key").write_bytes(key)
    (agent / "own.crt").write_text(answer.cert)
    (agent / "ca.crt").write_text(answer.ca_cert)
    assert await identities_after_handshake(agent) == (
        tls.Identity("agent", "h1", door.own.pair.id),
        tls.Identity("member", "m1", door.own.pair.id),
    )


async def identities_after_handshake(agent: Path) -> tuple[tls.Identity | None, tls.Identity | None]:
    """Connect an agent to the member over mutual TLS; return whom each side saw."""
    seen: asyncio.Future[tls.Identity | None] = asyncio.get_running_loop().create_future()

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(tls.identity(writer))
        writer.close()

    member = tls.server_context(cert=paths.OWN_CERT, key=paths.OWN_KEY, ca=paths.CA_CERT)
    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=member)
    context = tls.client_context(cert=agent / "own.crt", key=agent / "own.key", ca=agent / "ca.crt")
    _, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1], ssl=context)
    with pytest.raises(RemoteProtocolFault):
        tls.require(writer, pair_id=door_pair(writer), kind="agent")
    other = tls.identity(writer)
    async with asyncio.timeout(60):
        mine = await seen
    writer.close()
    server.close()
    return mine, other


def door_pair(writer: asyncio.StreamWriter) -> str:
    who = tls.identity(writer)
    assert who is not None
    return who.pair_id


async def test_a_machine_in_between_with_an_authority_of_its_own_learns_nothing(
    door: Door, first_member: Settings
) -> None:
    ticket = token.read(door.join_word)
    true_ca = paths.CA_CERT.read_bytes()
    for stale in (paths.CA_KEY, paths.CA_CERT, paths.OWN_CERT):
        stale.unlink()
    from futago.setup import install

    install.own_authority(first_member)
    install.own_certificate(first_member)
    async with serving(door) as port:
        with pytest.raises(OperatorFault) as e:
            await conversation.fetch_authority("127.0.0.1", ticket, port=port)
        assert e.value.code == "enrol.ca"
        hello = Hello(door.join_word, "join")
        with pytest.raises(OperatorFault) as e:
            await conversation.ask("127.0.0.1", hello, HelloAnswer, ca_cert=true_ca, pair_id=ticket.pair, port=port)
        assert e.value.code == "enrol.certificate"


async def test_an_agent_that_poses_as_a_member_is_not_talked_to(door: Door) -> None:
    enrolled = door.enroll("h1")
    assert isinstance(enrolled, EnrollAnswer)
    ca = paths.CA_CERT.read_bytes()
    key = paths.OWN_KEY.read_bytes()
    cert = authority.sign_request(
        authority.make_request(key),
        authority.Holder("agent", "h1", door.own.pair.id),
        ca_cert=ca,
        ca_key=paths.CA_KEY.read_bytes(),
    )
    paths.OWN_CERT.write_bytes(cert)
    async with serving(door) as port:
        with pytest.raises(Refused, match="expected member"):
            await conversation.ask(
                "127.0.0.1", Hello(door.join_word, "join"), HelloAnswer, ca_cert=ca, pair_id=door.own.pair.id, port=port
            )


async def test_a_refusal_arrives_with_its_own_words(door: Door) -> None:
    ca = paths.CA_CERT.read_bytes()
    async with serving(door) as port:
        with pytest.raises(OperatorFault) as e:
            await conversation.ask(
                "127.0.0.1", Hello("x", "join"), HelloAnswer, ca_cert=ca, pair_id=door.own.pair.id, port=port
            )
    assert (e.value.code, "complete token" in e.value.what) == ("token.malformed", True)


async def test_nobody_at_the_address_is_a_refusal_that_names_it() -> None:
    ticket = token.make(Purpose.JOIN, pair_id="p", ca_sha256="", members=("127.0.0.1",), now_utc=now_utc())
    with pytest.raises(Refused, match=r"127\.0\.0\.1 port 1:"):
        await conversation.fetch_authority("127.0.0.1", ticket, port=1)


async def test_https_and_postgres_clients_that_know_only_an_address_can_verify_a_member(door: Door) -> None:
    async with serving(door) as port:
        context = ssl.create_default_context(cafile=str(paths.CA_CERT))
        for name in ("192.0.2.11", "198.51.100.11", "192.0.2.100", "m1", "localhost"):
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
            writer.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="192.0.2.77")


def test_the_authoritys_answer_gives_its_certificate_and_nothing_else(door: Door) -> None:
    answer = door.admission.handle(b'{"op":"ca"}')
    assert isinstance(answer, CaAnswer)
    assert answer.ca_cert == paths.CA_CERT.read_text()
    assert b"PRIVATE" not in msgspec.json.encode(answer)


def test_a_good_certificate_is_kept_and_one_for_another_address_is_replaced(door: Door) -> None:
    from futago.setup import install

    key, kept = paths.OWN_KEY.read_bytes(), paths.OWN_CERT.read_bytes()
    install.adopt_certificate(signed(door.own, key, "192.0.2.11"), key)
    again = paths.OWN_CERT.read_bytes()
    assert again != kept  # the first member's has more addresses
    install.adopt_certificate(signed(door.own, key, "192.0.2.11"), key)
    assert paths.OWN_CERT.read_bytes() == again
    moved = signed(door.own, key, "192.0.2.99")
    install.adopt_certificate(moved, key)
    assert paths.OWN_CERT.read_bytes() == moved
    other = authority.make_key()
    renewed = signed(door.own, other, "192.0.2.99")
    install.adopt_certificate(renewed, other)
    assert paths.OWN_CERT.read_bytes() == renewed


def signed(own: Settings, key: bytes, address: str) -> bytes:
    ca, ca_key = paths.CA_CERT.read_bytes(), paths.CA_KEY.read_bytes()
    holder = authority.Holder("member", "m1", own.pair.id, (address,))
    return authority.sign_request(authority.make_request(key), holder, ca_cert=ca, ca_key=ca_key)
