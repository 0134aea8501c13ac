"""The words that name fence devices at set-up: read as meant, written again as read, refused with a way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from futago.runtime.faults import OperatorFault
from futago.setup.fences import FenceDevice, problem
from futago.setup.fencing import parse_device, parse_fences, words, written
from futago.setup.files import fence_password_file

FILE_1, FILE_2 = str(fence_password_file("m1")), str(fence_password_file("m1", 2))


@pytest.mark.parametrize(
    ("word", "device"),
    [
        ("ipmi://admin@192.0.2.1", FenceDevice("ipmi", "192.0.2.1", "admin", FILE_1)),
        (
            "ipmi://admin@[2001:db8::1]:6230?cipher=17&attempts=2&deadline=20",
            FenceDevice(
                "ipmi", "2001:db8::1", "admin", FILE_1, "", {"cipher": "17", "port": "6230"}, attempts=2, deadline_s=20
            ),
        ),
        (
            "redfish://admin@bmc.example/redfish/v1/Systems/1?fingerprint=ab12",
            FenceDevice(
                "redfish",
                "bmc.example",
                "admin",
                FILE_1,
                "",
                {"system": "/redfish/v1/Systems/1", "fingerprint": "ab12"},
            ),
        ),
        (
            "agent://root@192.0.2.9/fence_vmware_rest?plug=m1&ssl_insecure=1",
            FenceDevice("agent", "192.0.2.9", "root", FILE_1, "fence_vmware_rest", {"plug": "m1", "ssl_insecure": "1"}),
        ),
        ("agent:///opt/agents/fence_x", FenceDevice("agent", program="/opt/agents/fence_x")),
        ("command:///usr/local/sbin/power", FenceDevice("command", program="/usr/local/sbin/power")),
        ("command://pdu-1/usr/local/sbin/power", FenceDevice("command", "pdu-1", program="/usr/local/sbin/power")),
    ],
)
def test_word_is_read_as_meant_and_written_again(word: str, device: FenceDevice) -> None:
    found = parse_device(word, member="m1", level=1)
    assert found == device and problem(found) == ""
    assert parse_device(written(found), member="m1", level=1) == device


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("ipmi://192.0.2.1", "user is missing"),
        ("ipmi://admin@", "address is missing"),
        ("ipmi://admin@192.0.2.1/path", "a path has no meaning for ipmi"),
        ("ipmi://admin@192.0.2.1?cypher=3", "options.cypher is not an option of the driver ipmi"),
        ("redfish://192.0.2.1", "user is missing"),
        ("command://192.0.2.1", "program is missing"),
        ("agent://192.0.2.1", "program is missing"),
        ("ipmi://a@192.0.2.1?attempts=x", "`x` is not a number"),
        ("ipmi://a@192.0.2.1?attempts=11", "attempts is 11; it must be 1 to 10"),
        ("ipmi://a@192.0.2.1?deadline=0", "deadline_s is 0; it must be 1 to 300"),
        ("ipmi://a@192.0.2.1:port", "cannot be read"),
        ("ipmi://a@192.0.2.1#x", "a fragment"),
        ("ipmi://a@192.0.2.1;reboot", "characters that no address or user has"),
        ("telnet://192.0.2.1", "no fence driver `telnet`; there is: agent"),
    ],
)
def test_word_that_names_no_device_is_refused_with_an_example(word: str, expected: str) -> None:
    with pytest.raises(OperatorFault) as e:
        parse_device(word, member="m1", level=1)
    assert expected in e.value.what and "Write it as in" in e.value.hint


def test_levels_get_their_passwords_in_order_and_each_a_file_of_its_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"secret-{name}\n")
    plan = parse_fences(
        ["ipmi://x@192.0.2.1", "command:///sbin/power", "redfish://y@192.0.2.2"],
        [tmp_path / "a", tmp_path / "b"],
        member="m1",
    )
    assert plan.passwords == ("secret-a", "", "secret-b")
    assert [d.password_file for d in plan.devices] == [FILE_1, "", str(fence_password_file("m1", 3))]
    assert FILE_2 != FILE_1
    line = words(plan.devices)
    assert line.count("--fence ") == 3 and line.count("--fence-password-file FILE") == 2 and "secret" not in line


def test_too_few_or_too_many_password_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x\n")
    for urls, count in ((["ipmi://x@192.0.2.1", "ipmi://x@192.0.2.2"], 1), (["command:///sbin/power"], 1)):
        with pytest.raises(OperatorFault, match="password-file"):
            parse_fences(urls, [tmp_path / "a"] * count, member="m1")
    with pytest.raises(OperatorFault, match="no meaning with --fence none"):
        parse_fences(["none"], [tmp_path / "a"], member="m1")


def test_none_stands_alone_and_five_devices_are_too_many() -> None:
    assert parse_fences(["none"], [], member="m1").devices == ()
    for urls in (["none", "command:///sbin/power"], ["command:///sbin/power"] * 5, []):
        with pytest.raises(OperatorFault):
            parse_fences(urls, [], member="m1")
