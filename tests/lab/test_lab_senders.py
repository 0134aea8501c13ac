"""The senders and oracles are themselves honest: shown against plain listeners, without the product."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from oracles import JobStarts, SmtpSink, compare
from senders import RATES, Senders, Write, end, first_write_after, longest_gap_s

from futago.lab.lab import HostProcess, Lab, LabHost

LISTENER = """
import selectors, socket, sys, threading
out = open('/var/log/listened', 'ab', buffering=0)
lock = threading.Lock()
def put(kind, data):
    with lock: out.write(kind + b' ' + data.replace(b'\\n', b' ') + b'\\n')
def udp(port, kind):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(1, 33, 8 << 20); s.bind(('0.0.0.0', port))
    while True: put(kind, s.recv(65535))
def one(c):
    with c.makefile('rb') as f:
        for line in f: put(b'tcp', line.rstrip(b'\\n'))
def tcp():
    s = socket.create_server(('0.0.0.0', 514))
    while True: threading.Thread(target=one, args=(s.accept()[0],), daemon=True).start()
for f, a in ((udp, (514, b'udp')), (udp, (162, b'trap')), (tcp, ())): threading.Thread(target=f, args=a).start()
"""


@pytest.fixture
def listeners(lab: Lab) -> Iterator[list[LabHost]]:
    """Plain listeners on both members that keep what they hear; the product's receivers, if any, are stopped."""
    members = lab.members
    started: list[HostProcess[bytes]] = []
    for m in members:
        if m.run(["systemctl", "is-active", "futago-receiver"], check=False).returncode == 0:
            pytest.skip("the product listens here already")
        m.write("/opt/lab/listener.py", LISTENER)
        m.run(["rm", "-f", "/var/log/listened"])
        started.append(m.start(["python3", "/opt/lab/listener.py"]))
    for m in members:
        while ":514" not in m.run(["ss", "-ltn"]).stdout:
            time.sleep(0.05)
    yield members
    for process in started:
        end(process)


def heard(member: LabHost) -> list[tuple[str, str, str]]:
    """Return (protocol, key, whole message) of everything that a listener heard."""
    found = []
    done = member.run(["cat", "/var/log/listened"])
    for line in done.stdout.split("\n"):
        kind, _, rest = line.partition(" ")
        key = re.search(r"SEQ=([a-z0-9]+-\d+)", rest)
        if key:
            found.append((kind, key.group(1), rest))
    return found


def test_every_number_reaches_both_members_with_the_same_bytes(lab: Lab, listeners: list[LabHost]) -> None:
    senders = Senders(lab)
    senders.start()
    time.sleep(5)
    senders.stop()
    sent = senders.sent()
    time.sleep(1)
    senders.close()
    arrived = [heard(m) for m in listeners]
    for member in arrived:
        assert compare(sent, [k for _, k, _ in member]).is_none, compare(sent, [k for _, k, _ in member]).examples
    rate = len(sent) / 5
    assert rate > 1500, f"only {rate:.0f} messages a second"
    streams = Counter(k.split("-")[0] for k in sent)
    assert set(streams) == set(RATES)
    first, second = ({k: text for kind, k, text in m if kind != "trap"} for m in arrived)
    assert first == second


def test_a_member_that_loses_its_power_holds_nothing_up_for_the_other(healed: Lab, listeners: list[LabHost]) -> None:
    senders = Senders(healed)
    senders.start()
    time.sleep(2)
    healed.fault("power-cut", "m1")
    time.sleep(4)
    senders.stop()
    sent = senders.sent()
    time.sleep(1.5)
    senders.close()
    difference = compare(sent, [k for _, k, _ in heard(listeners[1])])
    assert difference.is_none, difference
    assert len(sent) / 6 > 1500


def test_the_smtp_server_keeps_what_it_accepted(lab: Lab) -> None:
    sink = SmtpSink(lab)
    sink.start()
    code = (
        "import smtplib; s=smtplib.SMTP('10.91.1.50',25,timeout=5)\n"
        "for i in range(3): s.sendmail('a@lab.test',['b@lab.test'],f'Subject: n{i}\\n\\ntext {i}')"
    )
    lab.host("host1").run(["python3", "-c", code])
    mails = sink.mails()
    sink.stop()
    assert [m.subject for m in mails] == ["n0", "n1", "n2"]
    assert mails[0].rcpt_tos == ("b@lab.test",)
    assert mails[2].text.strip() == "text 2"


def test_a_noted_job_start_survives_the_power_cut_of_its_host(healed: Lab) -> None:
    record = JobStarts(healed)
    record.install()
    host = healed.host("host1")
    host.run(["sh", "-c", record.command("extract", "echo done")], env={"FUTAGO_RUN_ID": "r1"})
    host.power_cut()
    host.power_on()
    host.wait_booted()
    host.run(["sh", "-c", record.command("load", "true")], env={"FUTAGO_RUN_ID": "r2"})
    starts = record.starts()
    assert [(s.host, s.run_id, s.name) for s in starts] == [("host1", "r1", "extract"), ("host1", "r2", "load")]
    assert starts[0].boot != starts[1].boot


def test_compare_finds_what_is_lost_twice_and_invented() -> None:
    found = compare(["a-1", "a-2", "a-3"], ["a-1", "a-1", "a-3", "a-9"])
    assert (found.lost, found.twice, found.unknown) == (1, 1, 1)
    assert found.examples == ("lost a-2", "2 times a-1", "never sent a-9")


def test_an_outage_ends_with_a_write_that_was_begun_after_the_fault() -> None:
    def write(sent: int, acked: int, status: int = 201) -> Write:
        return Write(f"k{sent}", sent, sent, acked, 1, status)

    writes = [write(1, 2), write(3, 11), write(12, 19, status=0), write(13, 20), write(14, 30)]
    found = first_write_after(writes, 10)
    assert found is not None
    assert found.acked_at == 20
    assert first_write_after(writes, 15) is None
    assert longest_gap_s(writes) == pytest.approx(10e-9)
