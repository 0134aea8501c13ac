"""The receiver's questions about SNMPv3 and what the engine remembers of datagrams: bounded in bytes; a program that
died is no fault of the port, and what it was asked about is given back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from test_snmp_decoder import encoded, v2c

from futago.intake import traps, usm_desk
from futago.intake.options import OptionsWatch, Snmp
from futago.intake.traps import TrapCounters, TrapReader
from futago.intake.usm_desk import Answer, UsmDesk
from futago.runtime.log import Log


def options(tmp: Path) -> OptionsWatch:
    path = tmp / "intake.toml"
    path.touch(0o600)
    path.write_text('[[snmp.users]]\nname = "plain"\n')
    watch = OptionsWatch(path)
    watch.look()
    return watch


@contextlib.asynccontextmanager
async def begun(desk: UsmDesk) -> AsyncIterator[None]:
    running = asyncio.create_task(desk.run())
    async with asyncio.timeout(30):
        while desk._stdin is None:
            await asyncio.sleep(0.01)
    yield
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_pending_questions_are_bounded_in_bytes_and_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usm_desk, "PENDING_BYTES_MAX", 100_000)
    desk = UsmDesk(options(tmp_path), "a-pair", log=Log())
    answers: list[Answer | None] = []
    for _ in range(20):
        desk.ask(bytes(10_000), answers.append, is_recorded=True)
    assert (len(answers), desk.lost) == (10, 10), "those that wait for the program are bounded, too"
    async with begun(desk), asyncio.timeout(30):
        for _ in range(20):
            desk.ask(bytes(10_000), answers.append)
        assert answers.count(None) == 30
        while len(answers) < 40:
            await asyncio.sleep(0.01)
    assert [one for one in answers if one is not None and not one.is_foreign] == []
    assert desk._pending_bytes == 0


async def test_asking_a_program_that_has_died_raises_nothing(tmp_path: Path) -> None:
    desk = UsmDesk(options(tmp_path), "a-pair", log=Log())
    answers: list[Answer | None] = []
    async with begun(desk), asyncio.timeout(30):
        assert desk._stdin is not None
        desk._stdin.transport.abort()
        for _ in range(100):
            desk.ask(b"\x30\x00", answers.append)
            await asyncio.sleep(0)
        while len(answers) < 100:
            await asyncio.sleep(0.01)
    assert set(answers) == {None}


def test_what_is_remembered_of_looked_into_datagrams_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traps, "LOOKED_BYTES_MAX", 100_000)
    reader = TrapReader(Snmp(), TrapCounters())
    most = 0
    for n in range(100):
        reader.look(encoded([("1.3.6.1.9.1", v2c.OctetString("x" * 8000 + str(n)))]))
        assert sum(len(data) for data in reader._looked) <= 100_000
        most = max(most, len(reader._looked))
    assert most > 5
