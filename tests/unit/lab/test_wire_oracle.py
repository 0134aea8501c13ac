"""What the oracle of the wire counts: places in streams of bytes that a member's kernel acknowledged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from wire import carried, most

TAP = Path(__file__).parents[2] / "lab/programs/wire_tap.py"
M1, M2 = "10.91.1.11", "10.91.1.12"


def out(data: str, *, at: int = 1, port: int = 40, member: str = M1, is_first: bool = False) -> str:
    return json.dumps(["out", member, port, at, is_first, data])


def seen(number: int, *, port: int = 40, member: str = M1) -> str:
    return json.dumps(["in", member, port, number])


def begin(*, at: int = 0, port: int = 40, member: str = M1) -> str:
    return out("", at=at, port=port, member=member, is_first=True)


A = "<134>x SEQ=a-1 done\n"


def test_what_tcp_repeats_is_carried_once() -> None:
    assert carried([begin(), out(A), out(A), seen(1 + len(A))]) == {M1: {"a-1": 1}}


def test_what_the_sender_says_again_is_carried_twice_on_one_connection_and_on_two() -> None:
    again = [begin(), out(A), out(A, at=1 + len(A)), seen(1 + 2 * len(A))]
    assert carried(again)[M1]["a-1"] == 2
    other = [begin(), out(A), seen(1 + len(A)), begin(port=41), out(A, port=41), seen(1 + len(A), port=41)]
    assert carried(other)[M1]["a-1"] == 2


def test_what_was_not_acknowledged_does_not_count() -> None:
    assert carried([begin(), out(A + A), seen(1 + len(A))])[M1]["a-1"] == 1
    assert carried([begin(), out(A)])[M1]["a-1"] == 0


def test_a_key_is_put_together_from_two_segments_and_not_over_a_gap() -> None:
    whole = seen(1 + len(A))
    assert carried([begin(), out(A[:11]), out(A[11:], at=12), whole])[M1]["a-1"] == 1
    assert carried([begin(), out(A[:11]), out(A[12:], at=13), whole])[M1]["a-1"] == 0
    assert carried([begin(), out(A[11:], at=12), out(A[:11]), whole])[M1]["a-1"] == 1
    assert carried([begin(), out(A[:11]), out(A), whole])[M1]["a-1"] == 1  # sent again, longer


def test_numbers_that_begin_anew_are_followed() -> None:
    zero = (1 << 32) - 6
    lines = [begin(at=zero), out(A, at=zero + 1), seen((zero + 1 + len(A)) % (1 << 32))]
    assert carried(lines)[M1]["a-1"] == 1


def test_the_member_that_got_a_message_most_often_decides() -> None:
    one = [begin(), out(A), seen(1 + len(A))]
    two = [begin(member=M2), out(A + A, member=M2), seen(1 + 2 * len(A), member=M2)]
    assert most(carried([*one, *two]).values())["a-1"] == 2
    assert most(carried(one).values())["a-1"] == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own needs root")
def test_the_program_sees_what_a_real_connection_carries(tmp_path: Path) -> None:
    script = f"""
import socket, subprocess, sys, time
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
tap = subprocess.Popen([sys.executable, {str(TAP)!r}, {str(tmp_path / "wire")!r}], stdout=subprocess.PIPE)
assert tap.stdout.readline() == b"ready\\n"
server = socket.create_server(("127.0.0.1", 514))
client = socket.create_connection(("127.0.0.1", 514))
there, _ = server.accept()
client.sendall({A.encode()!r})
assert there.recv(100)
other = socket.create_server(("127.0.0.1", 515)); aside = socket.create_connection(("127.0.0.1", 515))
aside.sendall(b"SEQ=b-1 ")
end = time.monotonic() + 60
while "a-1" not in open({str(tmp_path / "wire")!r}).read() and time.monotonic() < end:
    time.sleep(0.02)
time.sleep(0.1)
tap.terminate()
"""
    done = subprocess.run(["unshare", "--net", sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert carried((tmp_path / "wire").read_text().splitlines())["127.0.0.1"] == {"a-1": 1}
