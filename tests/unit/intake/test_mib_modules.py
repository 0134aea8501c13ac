"""MIB modules: compiled apart, named in what traps say, refused with words, and no text can hurt."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import Journal, add_monitor, all_rows, engine, eventually, execute
from test_snmp_decoder import encoded, v2c

from futago.intake import mib_store
from futago.intake.ber import INTEGER, OID, STRING
from futago.intake.consume import Places
from futago.intake.mib_compile import compile_files
from futago.intake.mib_names import MibNames, Module, Node, hinted
from futago.intake.mib_program import Task, compiled, module_names
from futago.intake.model import Protocol, Record
from futago.intake.options import Snmp
from futago.intake.snmp import Varbind
from futago.intake.traps import TrapCounters, TrapReader
from futago.intake.watch import Watch
from futago.runtime.faults import OperatorFault
from futago.store.commit import Connection, Store

TEXTS = {path.name: path.read_text() for path in sorted((Path(__file__).parent / "mibs").iterdir())}
LINK_DOWN = "1.3.6.1.6.3.1.1.5.3"
NET_SNMP = Path("/usr/share/snmp/mibs")


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    """Those of the files beside this one, compiled in this process."""
    result = compiled(Task(TEXTS, {}))
    assert (result.missing, result.faults) == ({}, [])
    return [one.module for one in result.made]


@pytest.fixture
def names(modules: list[Module]) -> MibNames:
    return MibNames(modules)


def record(data: bytes) -> Record:
    return Record(1, time.time_ns(), Protocol.SNMP_UDP, 0, bytes(16), 162, data)


def reader(names: MibNames) -> TrapReader:
    made = TrapReader(Snmp(), TrapCounters())
    made.names = names
    return made


def test_notifications_objects_enumerations_and_hints_are_named(names: MibNames) -> None:
    trap = encoded(
        [
            ("1.3.6.1.2.1.2.2.1.1.7", v2c.Integer32(7)),
            ("1.3.6.1.2.1.2.2.1.7.7", v2c.Integer32(1)),
            ("1.3.6.1.2.1.2.2.1.8.7", v2c.Integer32(99)),
            ("1.3.6.1.4.1.55555.11.0", v2c.OctetString(bytes.fromhex("00a0b1c2d3ff"))),
            ("1.3.6.1.4.1.55555.12.0", v2c.OctetString(bytes.fromhex("07ea0102030405062b0900"))),
            ("1.3.6.1.4.1.55555.13.0", v2c.Integer32(2)),
            ("1.3.6.1.4.1.55555.14.0", v2c.OctetString(bytes.fromhex("c040"))),
            ("1.3.6.1.4.1.55555.15.0", v2c.Integer32(-5)),
            ("1.3.6.1.2.1.1.2.0", v2c.ObjectIdentifier("1.3.6.1.4.1.55555.9")),
            ("1.3.6.1.9.9.9", v2c.Integer32(3)),
        ],
        trap_oid=LINK_DOWN,
    )
    plain = reader(MibNames()).read(record(trap))
    read = reader(names).read(record(trap))
    assert plain.named is None
    assert read.text.startswith(plain.text + " "), "what patterns on numbers see stays as it is"
    assert read.text.removeprefix(plain.text) == (
        " trap=IF-MIB::linkDown ifIndex.7=7 ifAdminStatus.7=up(1) ifOperStatus.7=99 station.0=00:a0:b1:c2:d3:ff"
        " since.0=2026-1-2,3:4:5.6,+9:0 isHot.0=false(2) alarms.0=smoke(0) water(1) door(9) warmth.0=-0.5"
        " sysObjectID.0=ACME-V1-MIB::acme.9"
    )
    assert read.named is not None
    assert read.named.fields["ifAdminStatus"] == "up(1)"


def test_nothing_is_named_without_modules_and_unknown_traps_stay_numbers(names: MibNames) -> None:
    trap = record(encoded([("1.3.6.1.9.1", v2c.Integer32(1))], trap_oid="1.3.6.1.9.2"))
    assert reader(MibNames()).text(trap) == reader(names).text(trap) == "trapOID=1.3.6.1.9.2 1.3.6.1.9.1=1"


def test_a_v1_trap_has_the_name_of_its_trap_type(names: MibNames) -> None:
    """The macro of SNMPv1 gives the OID that RFC 3584 maps its trap to."""
    found = names.named(
        "1.3.6.1.4.1.55555.0.7",
        [Varbind("1.3.6.1.4.1.55555.1.0", STRING, "fan 3", b"fan 3"), Varbind("1.3.6.1.4.1.55555.2.0", INTEGER, "2")],
    )
    assert found is not None
    assert found.text == "trap=ACME-V1-MIB::fanBroke what.0=fan 3 fanState.0=broken(2)"


@settings(max_examples=40)
@given(st.text(max_size=30), st.binary(max_size=300))
def test_any_hint_shows_any_octets_or_says_nothing(hint: str, data: bytes) -> None:
    assert isinstance(hinted(hint, data), str | None)  # it ends, and raises nothing


@settings(max_examples=40)
@given(st.from_regex(r"(\*?[0-9]{1,3}[xdoat][:;,]?){1,4}", fullmatch=True), st.binary(max_size=40))
def test_a_hint_of_the_right_form_ends(hint: str, data: bytes) -> None:
    node = Node("1.3.6.1.9", "x", hint=hint)
    assert isinstance(MibNames().shown(node, Varbind("1.3.6.1.9.0", STRING, "text", data)), str)


@settings(max_examples=40)
@given(st.integers(), st.sampled_from([INTEGER, STRING, OID]), st.binary(max_size=9))
def test_a_value_of_another_type_than_its_object_is_shown_plainly(number: int, tag: int, data: bytes) -> None:
    node = Node("1.3.6.1.9", "x", values={1: "one"}, hint="d-2")
    assert MibNames().shown(node, Varbind("1.3.6.1.9.0", tag, str(number), data))


async def test_a_missing_import_is_named_with_the_module_that_needs_it() -> None:
    with pytest.raises(OperatorFault, match=r"IANAifType-MIB, imported by IF-MIB") as fault:
        await compile_files({"IF-MIB.txt": TEXTS["IF-MIB.txt"]}, {})
    assert fault.value.code == "mib.missing"
    assert "IANAifType-MIB" in fault.value.hint
    made = await compile_files({"f": TEXTS["IF-MIB.txt"]}, {"IANAifType-MIB": TEXTS["IANAifType-MIB.txt"]})
    assert [(one.module.name, one.module.imports) for one in made] == [("IF-MIB", ["IANAifType-MIB"])]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("just some text", "there is no MIB module in it"),
        ("A-MIB DEFINITIONS ::= BEGIN x OBJECT IDENTIFIER ::= { nowhere 1 } END", "A-MIB"),
        ("A-MIB DEFINITIONS ::= BEGIN x OBJECT-TYPE SYNTAX ??? END", "A-MIB"),
        ("A-MIB DEFINITIONS ::= BEGIN " + "x OBJECT IDENTIFIER ::= {" * 3000 + " END", "A-MIB"),
    ],
)
def test_what_is_wrong_is_said(text: str, says: str) -> None:
    (fault,) = compiled(Task({"a.txt": text}, {})).faults
    assert says in fault


async def test_names_that_refer_to_each_other_in_a_circle_are_refused_as_a_fault_of_the_file() -> None:
    with pytest.raises(OperatorFault, match="in a circle") as fault:
        await compile_files({"a.txt": "A-MIB DEFINITIONS ::= BEGIN x OBJECT IDENTIFIER ::= { x 1 } END"}, {})
    assert fault.value.code == "mib.invalid"


async def test_a_text_that_takes_for_ever_ends_at_the_deadline() -> None:
    many = "\n".join(f"n{n} OBJECT IDENTIFIER ::= {{ enterprises {n} }}" for n in range(60_000))
    text = f"A-MIB DEFINITIONS ::= BEGIN IMPORTS enterprises FROM SNMPv2-SMI;\n{many}\nEND"
    began = time.monotonic()
    with pytest.raises(OperatorFault, match=r"did not end within 1\.5 s"):
        await compile_files({"a.txt": text}, {}, deadline_s=1.5)
    assert time.monotonic() - began < 10


def test_the_program_cannot_take_more_memory_than_it_set_itself() -> None:
    code = "from futago.intake.mib_program import confine; confine(); bytearray(2 << 30)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MemoryError" in ended.stderr
    code = "from futago.intake.mib_program import confine; confine(); open('/tmp/mib-escape', 'w').write('x' * 9999)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode != 0


def test_a_hint_that_a_database_would_not_take_is_left_out() -> None:
    text = (
        TEXTS["ACME-MIB.txt"]
        .replace('"d-1"', '"1d\x00"')
        .replace("MacAddress MAX", "Odd MAX")
        .replace(
            "Celsius ::=",
            'Odd ::= TEXTUAL-CONVENTION DISPLAY-HINT "1x\x01" STATUS current DESCRIPTION "x" SYNTAX OCTET STRING\nCelsius ::=',
        )
    )
    result = compiled(Task({"a": text}, {}))
    assert all(node.hint.isprintable() for one in result.made for node in one.module.nodes)
    if result.made:
        odd = MibNames(one.module for one in result.made).named(
            "1.3.6.1.9", [Varbind("1.3.6.1.4.1.55555.11.0", STRING, "0x0102", b"\1\2")]
        )
        assert odd is not None
        assert odd.text.isprintable()


def test_comments_and_strings_hold_no_modules() -> None:
    text = '-- X-MIB DEFINITIONS ::= BEGIN\nA-MIB DEFINITIONS ::= BEGIN d ::= "B-MIB DEFINITIONS ::= BEGIN" END'
    assert module_names(text) == ["A-MIB"]


def test_modules_that_come_with_net_snmp_are_compiled() -> None:
    files = [NET_SNMP / f"{name}.txt" for name in ("NET-SNMP-MIB", "NET-SNMP-AGENT-MIB")]
    if not all(file.exists() for file in files):
        pytest.skip("the MIBs of net-snmp are not installed")
    result = compiled(Task({file.name: file.read_text() for file in files}, {}))
    assert (result.missing, result.faults) == ({}, [])
    found = MibNames(one.module for one in result.made).named("1.3.6.1.4.1.8072.4.0.2", [])
    assert found is not None
    assert found.trap == "NET-SNMP-AGENT-MIB::nsNotifyShutdown"


async def test_loaded_names_are_in_events_and_templates_of_a_real_traps_and_in_the_tail(
    database: str, store: Store, tmp_path: Path, modules: list[Module]
) -> None:
    if not shutil.which("snmptrap"):
        pytest.skip("snmptrap is not installed")
    places = Places(tmp_path / "own", tmp_path / "copy", tmp_path / "sock", tmp_path / "intake.toml")
    journal = Journal(places.own)
    rule = {
        "match": "trap=IF-MIB::linkDown",
        "priority": "critical",
        "message": "{trap}: {ifIndex} is {ifOperStatus}{no}",
    }
    fan = {"match": r"fanState\.\d+=broken", "priority": "warning", "message": "{what} broke: {fanState}"}
    await add_monitor(database, "links", "snmptrap", rule)
    await add_monitor(database, "fans", "snmptrap", fan)
    traps = [
        *("-v2c", "-c", "public", "", LINK_DOWN, "1.3.6.1.2.1.2.2.1.1.2", "i", "2", "1.3.6.1.2.1.2.2.1.8.2", "i", "2"),
    ]
    v1 = ["-v1", "-c", "public", "1.3.6.1.4.1.55555", "10.0.0.1", "6", "7", "55", "1.3.6.1.4.1.55555.1.0", "s", "fan 3"]
    sent = [captured(traps), captured([*v1, "1.3.6.1.4.1.55555.2.0", "i", "2"])]
    try:
        async with engine(store, places):
            await load(store, modules)
            journal.mark()
            # The names are read once a second, like the rules.
            await eventually(database, "SELECT version > 0 FROM mib LIMIT 1", True)
            for n in range(100):
                journal.add(
                    sent[0] + b"", sent[1], protocol=Protocol.SNMP_UDP, time_ns=time.time_ns() + n * 20_000_000_000
                )
                if await all_rows(database, "SELECT 1 FROM event"):
                    break
                time.sleep(0.05)
            await eventually(database, "SELECT count(DISTINCT monitor_name) FROM event", 2)
        found = await all_rows(
            database, "SELECT DISTINCT message, detail->>'trap', detail->'names'->>'ifOperStatus' FROM event ORDER BY 1"
        )
        assert found == [
            ("IF-MIB::linkDown: 2 is down(2)", "IF-MIB::linkDown", "down(2)"),
            ("fan 3 broke: broken(2)", "ACME-V1-MIB::fanBroke", None),
        ]
        shown = Watch({"m1": places.own}, Snmp(), await mib_store.names_here(database)).poll()
        assert shown[0].text.endswith(" trap=IF-MIB::linkDown ifIndex.2=2 ifOperStatus.2=down(2)")
    finally:
        journal.close()


async def load(store: Store, modules: list[Module]) -> None:
    from futago.intake.mib_program import Made

    async def work(conn: Connection) -> None:
        await mib_store.save(conn, [Made(one, "f") for one in modules], {"f": "text"}, who="me")

    await store.commit(work, name="test")


async def test_a_module_that_others_import_is_not_removed(database: str, store: Store, modules: list[Module]) -> None:
    await load(store, modules)

    async def remove(conn: Connection) -> bool:
        return await mib_store.remove(conn, "IANAifType-MIB")

    with pytest.raises(OperatorFault, match="IF-MIB") as fault:
        await store.commit(remove, name="test")
    assert fault.value.code == "mib.needed"
    before = await all_rows(database, "SELECT count(*), max(version) FROM mib")
    await load(store, modules)
    assert await all_rows(database, "SELECT count(*), max(version) FROM mib") != before
    await execute(database, "DELETE FROM mib WHERE mib_name = 'IF-MIB'")
    assert await store.commit(remove, name="test") is True


def captured(arguments: list[str]) -> bytes:
    """Return what snmptrap sends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        s.settimeout(5)
        at = next((i for i, one in enumerate(arguments) if one == "public"), 0) + 1
        command = ["snmptrap", "-m", "", *arguments[:at], f"127.0.0.1:{s.getsockname()[1]}", *arguments[at:]]
        subprocess.run(command, check=True, capture_output=True)
        return s.recv(65536)


def test_compiled_modules_survive_their_row(modules: list[Module]) -> None:
    text = msgspec.json.encode(modules[0])
    assert msgspec.convert(msgspec.json.decode(text), Module, str_keys=True) == modules[0]
