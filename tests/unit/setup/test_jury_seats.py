"""Who may be seated in the jury: asked of real jurors over real TLS on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from free_ports import free_port
from futago.agent.juror import Juror as RealJuror
from futago.link import tls
from futago.runtime.faults import OperatorFault
from futago.runtime.log import Log
from futago.setup import authority, jury, paths
from futago.setup.settings import AgentSettings, Juror, Settings


def certificate(own: Settings, folder: Path, *, name: str, pair_id: str = "") -> Path:
    """Make the files of one agent, signed by the pair."""
    folder.mkdir(parents=True)
    key = authority.make_key()
    holder = authority.Holder("agent", name, pair_id or own.pair.id)
    ca = paths.CA_CERT.read_bytes()
    cert = authority.sign_request(authority.make_request(key), holder, ca_cert=ca, ca_key=paths.CA_KEY.read_bytes())
    (folder / "own.key").write_bytes(key)
    (folder / "own.crt").write_bytes(cert)
    return folder


@contextlib.asynccontextmanager
async def sitting(own: Settings, root: Path, *names: str, damaged: str = "") -> AsyncIterator[list[Juror]]:
    """Run jurors of these names; yield how they are reached."""
    async with asyncio.TaskGroup() as group:
        seats, tasks = [], []
        for name in names:
            files = certificate(own, root / name, name=name)
            context = tls.server_context(cert=files / "own.crt", key=files / "own.key", ca=paths.CA_CERT)
            agent = AgentSettings(name, own.pair.id, ["192.0.2.11"], listen="127.0.0.1")
            if name == damaged:
                (files / "juror.slots").write_bytes(b"x" * 9000)
            port = free_port()
            log = Log(program="test")
            tasks.append(
                group.create_task(
                    RealJuror(files / "juror.slots", own=agent, context=context, log=log, port=port).run()
                )
            )
            seats.append(Juror(name=name, address="127.0.0.1", port=port))
        for seat in seats:
            await listening(seat.port)
        try:
            yield seats
        finally:
            for task in tasks:
                task.cancel()


async def listening(port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return


@pytest.fixture(autouse=True)
def own_certificate(first_member: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the member's side use the files of this test (the defaults are bound when the module is loaded)."""
    context = tls.client_context(cert=paths.OWN_CERT, key=paths.OWN_KEY, ca=paths.CA_CERT)
    monkeypatch.setattr(tls, "client_context", lambda: context)


async def test_jurors_that_can_vote_are_accepted(first_member: Settings, tmp_path: Path) -> None:
    async with sitting(first_member, tmp_path / "jury", "h1", "h2", "h3") as seats:
        await jury.ask_each(first_member, seats)


async def test_each_juror_that_cannot_vote_is_named_with_its_reason(first_member: Settings, tmp_path: Path) -> None:
    async with sitting(first_member, tmp_path / "jury", "h1", "h2", damaged="h2") as seats:
        impostor = Juror(name="h9", address="127.0.0.1", port=seats[0].port)
        silent = Juror(name="h3", address="127.0.0.1", port=free_port())
        with pytest.raises(OperatorFault) as e:
            await jury.ask_each(first_member, [*seats, silent, impostor])
    said = e.value.what
    assert "h1 (" not in said
    assert "h2 (127.0.0.1): its vote file is damaged" in said
    assert "h3 (127.0.0.1): " in said
    assert "h9 (127.0.0.1): expected agent h9" in said
    assert "othing has been changed" in said


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["h1=192.0.2.21", "h2=192.0.2.21", "h3=192.0.2.23"], "same address"),
        (["h1=192.0.2.21", "h2=nowhere", "h3=192.0.2.23"], "`nowhere` is not an address"),
    ],
)
def test_jurors_at_impossible_addresses_are_refused(names: list[str], expected: str) -> None:
    with pytest.raises(OperatorFault, match=expected):
        jury.find(names)
