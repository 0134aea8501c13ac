"""The address that a user's program moves, and how both halves make one: real programs, real outcomes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from pathlib import Path

import pytest
from test_floating_address import IP, in_namespace, until

from futago.cluster.address import Where, carried, netlink
from futago.cluster.address.carried import CarriedAddress
from futago.cluster.address.command import CommandMover
from futago.cluster.address.floating import FloatingAddress
from futago.runtime.faults import Refused, Unknown
from futago.runtime.log import Log

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace")

SCRIPT = """#!/bin/sh
# The "cloud": one file that says who has the address.
cd {folder}
echo "$*" >> calls
case $1 in
    acquire) test -e broken && {{ echo "no quota" >&2; exit 1; }}
             test -e slow && exec sleep 30
             echo $2 > holder ;;
    release) test -e stuck && exit 7
             test "$(cat holder 2>/dev/null)" = $2 && rm holder; exit 0 ;;
    status)  test -e mute && exit 9
             test "$(cat holder 2>/dev/null)" = $2 || exit 1 ;;
esac
"""


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    program = tmp_path / "move"
    program.write_text(SCRIPT.format(folder=tmp_path))
    program.chmod(0o755)
    return tmp_path


def mover(cloud: Path, member: str = "m1", deadline_s: float = 5) -> CommandMover:
    return CommandMover(str(cloud / "move"), words=(member, "eth0", IP), deadline_s=deadline_s)


async def test_program_is_told_verb_member_interface_and_addresses(cloud: Path) -> None:
    one, other = mover(cloud, "m1"), mover(cloud, "m2")
    await one.acquire()
    assert (await one.where(), await other.where()) == (Where.HERE, Where.ELSEWHERE)
    await other.acquire()
    assert (await one.where(), await other.where()) == (Where.ELSEWHERE, Where.HERE)
    await one.release()  # what it has not got
    assert await other.where() is Where.HERE
    assert (cloud / "calls").read_text().splitlines()[0] == f"acquire m1 eth0 {IP}"


async def test_each_end_of_the_program_is_an_outcome_of_its_own(cloud: Path) -> None:
    (cloud / "broken").touch()
    with pytest.raises(Refused, match="no quota"):
        await mover(cloud).acquire()
    (cloud / "stuck").touch()
    with pytest.raises(Unknown):
        await mover(cloud).release()
    (cloud / "mute").touch()
    with pytest.raises(Unknown):
        await mover(cloud).where()
    with pytest.raises(Refused, match="cannot be run"):
        await CommandMover("/nonexistent", words=(), deadline_s=1).acquire()


async def test_program_that_does_not_end_is_killed_and_unknown(cloud: Path) -> None:
    (cloud / "slow").touch()
    began = time.monotonic()
    with pytest.raises(Unknown):
        await mover(cloud, deadline_s=0.5).acquire()
    assert time.monotonic() - began < 15


class Both:
    """A carried address in the present namespace."""

    def __init__(self, cloud: Path) -> None:
        self.changes: list[bool | None] = []
        near = FloatingAddress(interface="a0", addresses=(IP,), on_change=self._note, log=Log(), is_announced=False)
        self.address = CarriedAddress(near, mover=mover(cloud), on_change=self._note, log=Log())

    def _note(self) -> None:
        if hasattr(self, "address"):
            self.changes.append(self.address.is_held)


@needs_root
def test_address_is_held_only_when_both_halves_say_so(cloud: Path) -> None:
    async def work() -> None:
        both = Both(cloud)
        address = both.address
        assert address.is_held is None  # nobody has asked the far half yet
        await address.drop()
        assert address.is_held is False
        (cloud / "broken").touch()
        with pytest.raises(Refused):
            await address.hold()
        assert address.is_held is None and "no quota" in address.error()
        assert netlink.holds("a0", IP)
        (cloud / "broken").unlink()
        await address.hold()
        assert address.is_held is True and both.changes[-1] is True and not address.error()
        (cloud / "stuck").touch()
        with pytest.raises(Unknown):
            await address.drop()
        assert address.is_held is None  # the near half is gone, the far half unknown
        assert not netlink.holds("a0", IP)
        (cloud / "stuck").unlink()
        await address.drop()
        assert address.is_held is False and not (cloud / "holder").exists()
        await address.close()

    in_namespace(work)


@needs_root
def test_giving_up_ends_a_move_that_is_under_way(cloud: Path) -> None:
    async def work() -> None:
        address = Both(cloud).address
        (cloud / "slow").touch()
        move = asyncio.create_task(address.hold())
        await until(lambda: "acquire" in _text(cloud / "calls"))
        move.cancel()
        with pytest.raises(asyncio.CancelledError):
            await move
        await address.drop()
        assert address.is_held is False and not (cloud / "holder").exists()
        assert not netlink.holds("a0", IP)
        await address.close()

    in_namespace(work)


@needs_root
def test_address_that_another_leads_away_is_noticed_by_looking_again(
    cloud: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carried, "LOOK_AGAIN_S", 0.05)

    async def work() -> None:
        address = Both(cloud).address
        await address.hold()
        (cloud / "mute").touch()
        await until(address.error)
        assert address.is_held is True  # a far half that says nothing disturbs nobody
        (cloud / "mute").unlink()
        await until(lambda: not address.error())
        (cloud / "holder").write_text("m2\n")
        await until(lambda: address.is_held is None)
        await address.hold()
        assert address.is_held is True
        subprocess.run(["ip", "addr", "del", f"{IP}/32", "dev", "a0"], check=True)
        await until(lambda: address.is_held is None)
        await address.close()

    in_namespace(work)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
