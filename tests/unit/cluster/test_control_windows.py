"""The controller's two windows: who may ask what, and that nobody's nonsense closes them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from free_ports import free_port
from futago.cluster import control
from futago.cluster.control import LocalWindow, Message, NetworkWindow, OperatorRefused, PeerLine, Say
from futago.link import tls
from futago.link.frames import FrameStream
from futago.runtime.faults import OperatorFault, Refused, Unknown
from futago.runtime.log import Log
from futago.setup import paths
from futago.setup.settings import MemberSettings, PairSettings, Settings
from pair_keys import Keys


class ToyDesk:
    """A desk that answers for the test."""

    def __init__(self) -> None:
        self.beats: list[str] = []
        self.now: Message = {"role": "standby", "epoch": 1}
        self.bell = asyncio.Event()

    def status(self) -> Message:
        return {"state": "paired"}

    def role(self) -> Message:
        return self.now

    async def role_changed(self, known: Message) -> None:
        while self.now == known:
            await self.bell.wait()
            self.bell.clear()

    def beat(self, program: str) -> None:
        self.beats.append(program)

    async def operate(self, request: Message, say: Say) -> Message:
        await say("half way")
        if request["op"] == "switchover":
            raise OperatorFault("m2 is not fit.", hint="Repair it.", code="pair.switchover")
        return {"ok": True, "text": "done"}

    async def serve_peer(self, request: Message, say: Say) -> Message:
        if request["op"] == "slow":
            await say("working")
            await asyncio.sleep(30)
        if request["op"] == "unclear":
            raise Unknown("it may have happened")
        if request["op"] == "no":
            raise OperatorFault("No.", hint="Ask later.", code="x")
        return {"ok": True, "echo": request.get("word")}


@contextlib.asynccontextmanager
async def running(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def local(tmp_path: Path) -> AsyncIterator[tuple[ToyDesk, Path]]:
    desk, path = ToyDesk(), tmp_path / "controller.sock"
    async with running(LocalWindow(desk, path=path, log=Log()).run()):
        async with asyncio.timeout(30):
            while not path.exists():
                await asyncio.sleep(0.01)
        yield desk, path


async def talk(path: Path, *lines: bytes, answers: int) -> list[Any]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    for line in lines:
        writer.write(line + b"\n")
    async with asyncio.timeout(30):
        found = [json.loads(await reader.readline()) for _ in range(answers)]
    writer.close()
    return found


async def test_status_beat_and_operations_are_answered_in_order(tmp_path: Path) -> None:
    async with local(tmp_path) as (desk, path):
        found = await talk(
            path, b'{"op":"status"}', b'{"op":"beat","program":"web"}', b'{"op":"recover"}', b'{"op":"switchover"}', answers=6
        )  # fmt: skip
        assert found[0] == {"ok": True, "status": {"state": "paired"}}
        assert found[1] == {"ok": True} and desk.beats == ["web"]
        assert found[2:4] == [{"progress": "half way"}, {"ok": True, "text": "done"}]
        assert found[5]["ok"] is False and found[5]["hint"] == "Repair it."


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"op":"fly"}', b'{"no":"op"}', b"\xff\xfe"])
async def test_nonsense_is_answered_with_a_refusal_and_the_window_stays_open(tmp_path: Path, line: bytes) -> None:
    async with local(tmp_path) as (_, path):
        found = await talk(path, line, b'{"op":"status"}', answers=2)
        assert found[0]["ok"] is False and found[0]["error"] and found[1]["ok"] is True


async def test_role_stream_tells_a_change_at_once_and_repeats_itself(tmp_path: Path) -> None:
    async with local(tmp_path) as (desk, path):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b'{"op":"role"}\n')
        async with asyncio.timeout(30):
            assert json.loads(await reader.readline())["role"] == "standby"
            desk.now = {"role": "primary", "epoch": 2}
            desk.bell.set()
            assert json.loads(await reader.readline())["role"] == "primary"
            assert json.loads(await reader.readline())["role"] == "primary"  # nothing changed: told again
        writer.close()


async def test_endless_line_ends_only_its_own_conversation(tmp_path: Path) -> None:
    async with local(tmp_path) as (_, path):
        _reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"x" * (control.LINE_BYTES_MAX * 3))
        assert (await talk(path, b'{"op":"status"}', answers=1))[0]["ok"]
        writer.close()


def _settings(me: str) -> Settings:
    members = [
        MemberSettings("m1", "127.0.0.1", "127.0.0.1", "lo"),
        MemberSettings("m2", "127.0.0.1", "127.0.0.1", "lo"),
    ]
    return Settings(me=me, pair=PairSettings("p", "pair-1", "127.0.0.9/32"), members=members)


@contextlib.asynccontextmanager
async def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Keys, PeerLine]]:
    port = free_port()
    monkeypatch.setattr(paths, "PORT_CONTROL", port)
    keys = Keys(tmp_path)
    cert, key, ca = keys.issue("member", "m2")
    server = tls.server_context(cert=cert, key=key, ca=ca, anonymous_allowed=True)
    window = NetworkWindow(ToyDesk(), _settings("m2"), context=server, log=Log())
    cert, key, ca = keys.issue("member", "m1")
    line = PeerLine(_settings("m1"), context=tls.client_context(cert=cert, key=key, ca=ca))
    async with running(window.run(port)):
        async with asyncio.timeout(30):
            while True:
                try:
                    await line.ask("echo", deadline_s=30)
                    break
                except Refused:
                    await asyncio.sleep(0.02)
        yield keys, line


async def test_members_ask_each_other_and_get_answers_refusals_and_doubts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with network(tmp_path, monkeypatch) as (_, line):
        assert (await line.ask("echo", deadline_s=2, word="hello"))["echo"] == "hello"
        with pytest.raises(OperatorRefused) as refused:
            await line.ask("no", deadline_s=2)
        assert refused.value.hint == "Ask later."
        with pytest.raises(Unknown):
            await line.ask("unclear", deadline_s=2)
        said: list[str] = []

        async def say(text: str) -> None:
            said.append(text)

        with pytest.raises(Unknown):
            await line.ask("slow", deadline_s=3, say=say)
        assert said == ["working"]


async def test_agent_is_not_served_what_members_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with network(tmp_path, monkeypatch) as (keys, _):
        cert, key, ca = keys.issue("agent", "host1")
        impostor = PeerLine(_settings("m1"), context=tls.client_context(cert=cert, key=key, ca=ca))
        with pytest.raises(Unknown):  # cut off without an answer
            await impostor.ask("echo", deadline_s=2)


async def test_somebody_else_who_answers_for_the_peer_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with network(tmp_path, monkeypatch) as (keys, _):
        cert, key, ca = keys.issue("member", "m2")
        confused = PeerLine(_settings("m2"), context=tls.client_context(cert=cert, key=key, ca=ca))
        with pytest.raises(Refused):  # its peer is m1, and who answers is m2
            await confused.ask("echo", deadline_s=2)


async def test_stranger_without_a_certificate_gets_admission_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    async def admission(command: Any, *, deadline_s: float, stdin: bytes) -> Any:
        asked.append(stdin)

        class Ended:
            out = '{"ok":false,"error":"no such token","hint":"","code":"token"}'

        return Ended

    monkeypatch.setattr("futago.cluster.control.process.run", admission)
    async with network(tmp_path, monkeypatch) as (keys, _):
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(keys.home / "ca.crt")
        reader, writer = await asyncio.open_connection("127.0.0.1", paths.PORT_CONTROL, ssl=context)
        stream: FrameStream[Message] = FrameStream(reader, writer, dict[str, Any])
        await stream.send({"op": "echo", "word": "let me in"})
        answer = await stream.receive()
        assert answer["error"] == "no such token" and json.loads(asked[0])["op"] == "echo"
        writer.transport.abort()
