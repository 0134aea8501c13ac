"""The API writer measures outages honestly: shown against a plain HTTPS server that moves with the floating IP."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from senders import ApiWriter, first_write_after, longest_gap_s

from futago.lab.lab import Lab, LabHost
from futago.lab.topology import standard

SERVER = """
import http.server, json, ssl
class Take(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        good = self.headers['Authorization'] == 'Bearer token' and self.path == '/api/v1/events' and json.loads(body)['message']
        with open('/var/log/keys', 'a') as f: f.write(self.headers['Idempotency-Key'] + '\\n')
        self.send_response(201 if good else 400); self.send_header('Content-Length', '2'); self.end_headers()
        self.wfile.write(b'{}')
    def log_message(self, *a): pass
s = http.server.ThreadingHTTPServer(('10.91.1.100', 443), Take)
c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); c.load_cert_chain('/etc/futago/pki/ca.crt', '/etc/futago/pki/ca.key')
s.socket = c.wrap_socket(s.socket, server_side=True)
s.serve_forever()
"""


@pytest.fixture
def alone() -> Iterator[Lab]:
    """Two members and a client, without the product's pair."""
    made = Lab(f"w{os.getpid()}")
    try:
        made.up(nodes=standard(hosts=0, device=False), owner_pid=os.getpid())
        first, second = made.members
        new = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
        ]
        first.run(["mkdir", "-p", "/etc/futago/pki"])
        first.run([*new, "/CN=pair", "-keyout", "/etc/futago/pki/ca.key", "-out", "/etc/futago/pki/ca.crt"])
        for name in ("ca.key", "ca.crt"):
            second.write(f"/etc/futago/pki/{name}", first.read(f"/etc/futago/pki/{name}"))
        for member in made.members:
            member.write("/etc/futago/secrets/admin.token", "token\n", mode=0o600)
            member.write("/opt/server.py", SERVER)
        yield made
    finally:
        made.down()


def serve(member: LabHost) -> None:
    member.run(["ip", "addr", "add", "10.91.1.100/24", "dev", "eth0"])
    member.start(["python3", "/opt/server.py"])
    while ":443" not in member.run(["ss", "-ltn"]).stdout:
        time.sleep(0.02)
    member.run(["arping", "-q", "-U", "-c1", "-I", "eth0", "10.91.1.100"])


def test_the_writer_sees_exactly_the_outage_and_repeats_with_the_same_key(alone: Lab) -> None:
    first, second = alone.members
    serve(first)
    writer = ApiWriter(alone, rate=40, threads=4)
    writer.start()
    time.sleep(3)
    before = writer.writes()
    assert len(before) > 60
    assert all(w.attempts == 1 for w in before)
    at = int(first.power_cut()["at"])
    assert first_write_after(writer.writes(), at) is None
    time.sleep(1.5)
    serve(second)
    there = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    found = writer.wait_for_write_after(at, deadline_s=10)
    assert 1.5 < (found.acked_at - at) / 1e9 < (there - at) / 1e9 + 0.5
    time.sleep(1)
    writes = writer.stop()
    assert longest_gap_s(writes) > 1.4
    assert len({w.key for w in writes}) == len(writes)
    acked = {w.key for w in writes if w.status}
    assert acked == {w.key for w in writes}
    kept = second.read("/var/log/keys").split()
    assert acked <= set(kept) | {w.key for w in before} | {w.key for w in writes if w.acked_at < at}
