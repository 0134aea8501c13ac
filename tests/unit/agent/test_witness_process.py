"""A real witness process: it votes over mutual TLS, keeps its votes through a crash, and shares its file with nobody."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent_world import WAIT_S, AgentProcess, Keys, until
from futago.link.frames import FrameStream
from futago.link.jurors import Identified, Identify, JurorReply, JurorRequest
from futago.register.model import Accept, Accepted, Address, Ballot, Held, Prepare, Promise, Query, Value
from futago.setup import paths

VALUE = Value(epoch=7, primary="m1", insync=("m1", "m2"))
BALLOT = Ballot(3, "m1", 3)


class WitnessProcess(AgentProcess):
    """A real `futago run witness`."""

    def start(self) -> WitnessProcess:
        with (self.root / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "import sys; from futago.cli.run import start; sys.exit(start('witness'))"],
                env={**os.environ, "FUTAGO_ROOT": str(self.root)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self


async def ask(keys: Keys, address: str, *requests: JurorRequest) -> list[JurorReply]:
    """Return the answers, however long the program needs to come up."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                reader, writer = await asyncio.open_connection(
                    address, paths.PORT_JUROR, ssl=keys.client("member", "m1")
                )
            except OSError:
                await asyncio.sleep(0.05)
                continue
            stream: FrameStream[JurorReply] = FrameStream(reader, writer, JurorReply)
            answers = []
            for request in requests:
                await stream.send(request)
                answers.append(await stream.receive())
            await stream.close()
            return answers


async def test_witness_keeps_its_vote_through_a_crash(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    witness = WitnessProcess(tmp_path / "w", keys, name="nas", members=["127.0.0.1"]).start()
    try:
        [who] = await ask(keys, witness.address, Identify(1))
        assert isinstance(who, Identified) and who.acceptor_id
        to = Address(keys.pair_id, who.acceptor_id, 1)
        promised, accepted = await ask(keys, witness.address, Prepare(to, 1, BALLOT), Accept(to, 2, BALLOT, VALUE))
        assert isinstance(promised, Promise) and accepted == Accepted(2, BALLOT)
        witness.kill()
        witness.start()
        assert await ask(keys, witness.address, Query(to, 3)) == [Held(3, BALLOT, BALLOT, VALUE)]
    finally:
        witness.kill()


async def test_second_process_on_the_same_file_does_not_vote_until_the_first_has_ended(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    witness = WitnessProcess(tmp_path / "w", keys, name="nas", members=["127.0.0.1"]).start()
    agent: AgentProcess | None = None
    try:
        [who] = await ask(keys, witness.address, Identify(1))
        assert isinstance(who, Identified)
        to = Address(keys.pair_id, who.acceptor_id, 1)
        # with an address of its own, so that only the file keeps the two apart
        agent = second = AgentProcess(tmp_path / "w", keys, name="nas", members=["127.0.0.1"]).start()
        await until(lambda: "juror.file_in_use" in second.log_text(), what="the second one has noticed the first")
        with pytest.raises(OSError):
            await asyncio.open_connection(agent.address, paths.PORT_JUROR, ssl=keys.client("member", "m1"))
        await ask(keys, witness.address, Prepare(to, 1, BALLOT))
        witness.kill()
        assert await ask(keys, agent.address, Query(to, 2)) == [Held(2, BALLOT, Ballot(), None)]
    finally:
        witness.kill()
        if agent is not None:
            agent.destroy()


def test_witness_loads_nothing_heavy() -> None:
    code = (
        "import sys, futago.agent.witness; print([m for m in ('psycopg', 'cryptography', 'typer') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.strip() == "[]"
