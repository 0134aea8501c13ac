"""Bytes that are not what they should be: whoever decodes them takes every fault that decoding raises."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import futago
from futago.agent import members
from futago.agent.juror import Acceptor
from futago.agent.records import Records
from futago.agent.slots import SlotFile
from futago.cluster import bridge, explain, orders, record, volume
from futago.cluster.fence import helper, oneself
from futago.intake.automaton import _complaint
from futago.intake.merge import Merger
from futago.register import compare
from futago.register.memory import Memory
from futago.runtime import role
from futago.runtime.faults import Corrupt, Refused, RemoteProtocolFault, Unknown
from futago.runtime.log import Log
from futago.runtime.process import Ended
from futago.runtime.unreadable import UNREADABLE

SOURCE = Path(futago.__file__).parent
# JSON and msgpack with text that is not UTF-8, nesting without end, and nothing at all.
DEEP = b"[" * 100_000
NOT_UTF8 = [
    b'{"outcome":"\xff","what":"\xff"}',
    b"\x81\xa1x\xa1\xff",
    b"\xa1\xff",
    DEEP,
    b"\x91" * 100_000,
    b"",
]


@pytest.mark.parametrize("decode", [msgspec.json.decode, msgspec.msgpack.decode])
def test_everything_that_decoding_raises_is_unreadable(decode: Callable[[bytes], Any]) -> None:
    seen = set()
    for data in NOT_UTF8:
        try:
            decode(data)
        except UNREADABLE as e:
            seen.add(type(e))
    assert {UnicodeDecodeError, RecursionError} <= seen


def catchers(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield what is caught or suppressed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            yield node.type
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "suppress":
            yield from node.args


def test_nobody_catches_only_a_part_of_what_decoding_raises() -> None:
    partly = []
    for path in sorted(SOURCE.rglob("*.py")):
        for caught in catchers(ast.parse(path.read_text(encoding="utf-8"))):
            names = {node.attr for node in ast.walk(caught) if isinstance(node, ast.Attribute)}
            if names & {"MsgspecError", "DecodeError"}:
                partly.append(f"{path.relative_to(SOURCE)}:{caught.lineno}")
    assert partly == []


@pytest.fixture(
    params=[b"\xff\xfe", b'{"run_id":"\xff","\xff":"\xff"}', b'"\xff"', DEEP], ids=["bytes", "in", "text", "deep"]
)
def nonsense(request: pytest.FixtureRequest) -> bytes:
    return bytes(request.param)


def test_files_with_nonsense_are_as_files_that_are_not_there(
    tmp_path: Path, nonsense: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(nonsense)
    monkeypatch.setattr(bridge, "LAST_SWITCH", path)
    assert oneself.read_note(path) is None
    assert orders.read_sign(path) == orders.Sign()
    assert volume._load(path) == volume._Note()
    assert bridge._load_switch() is None
    assert members._read(path, Log()) == []
    assert Memory(path).highest("m1") == Memory().highest("m1")


def test_what_other_programs_say_in_nonsense_is_a_fault_of_theirs(nonsense: bytes) -> None:
    assert compare.decode("mark", nonsense).is_strange
    with pytest.raises(RemoteProtocolFault):
        role.parse_line(nonsense.replace(b"run_id", b"role"))
    with pytest.raises(Unknown):
        helper.answer_in(Ended(0, nonsense.decode("utf-8", "replace"), ""))
    with pytest.raises(Refused):
        _complaint(nonsense)
    with pytest.raises(UNREADABLE):
        explain.unpack(nonsense)


@pytest.mark.parametrize("kind", [b"\xa1\xff", b"\x81\xa6format\xa1\xff", b"\x91" * 100_000])
def test_decisions_and_states_in_nonsense_are_corrupt(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "decisions"
    path.write_bytes(len(kind).to_bytes(4, "big") + kind)
    with pytest.raises(Corrupt):
        list(record.read(path))
    with pytest.raises(Corrupt):
        Merger(("m1", "m2"), kind.replace(b"\xa6format", b"\xa8progress"))


async def test_a_juror_with_a_state_in_nonsense_has_no_vote(tmp_path: Path) -> None:
    SlotFile(tmp_path / "juror").write(b"\x81\xa7pair_id\xa1\xff")
    acceptor = Acceptor(tmp_path / "juror", pair_id="p", log=Log())
    await acceptor.load()
    assert acceptor.acceptor_id == ""


def test_an_order_in_nonsense_is_one_that_cannot_be_read(tmp_path: Path, nonsense: bytes) -> None:
    records = Records(tmp_path, boot="b")
    records.prepare()
    for name in ("order.json", "verdict.json"):
        records.where("r1").mkdir(exist_ok=True)
        (records.where("r1") / name).write_bytes(nonsense)
    with pytest.raises(Corrupt):
        records.find("r1")
    assert not records.has_end("r1")
    assert Records(tmp_path, boot="b").prepare() == []  # the ledger has never heard of it: it goes
