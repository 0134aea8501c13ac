"""What others take on the same machine: `python tests/bench/intake_peers.py`, one JSON object a figure.

rsyslog, syslog-ng and Net-SNMP's snmptrapd, each if it is installed, with the sender and the search of intake_receive.py:
the highest of the rates at which nothing is lost and the last message is in the file within a second.

    peer.rsyslog.udp_file_per_s       to a file, from memory: a crash loses what is queued
    peer.rsyslog.tcp_file_per_s       the same over TCP
    peer.rsyslog.two_nodes_per_s      UDP, a file, and RELP to a second rsyslog with a queue in memory
    peer.rsyslog.two_nodes_durable_per_s   the same with a queue on disk that is synced: what is nearest to two journals
    peer.syslog_ng.udp_file_per_s, peer.snmptrapd.log_per_s

What is not installed has the value null and says so. Debian's syslog-ng cannot be installed beside rsyslog; it is found, too,
where its packages (syslog-ng-core libivykis0 libnet1 libpcre3) were unpacked: `apt-get download`, `dpkg -x` into one folder, and
PEERS_UNPACKED=that folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "unit/intake")]

from intake_receive import CATCH_UP_S_MAX, SENDING_S, say  # noqa: E402

from free_ports import free_port  # noqa: E402
from futago.intake import ber  # noqa: E402

UNPACKED = Path(os.environ.get("PEERS_UNPACKED", "/nonexistent")).absolute()  # packages that are not installed
TRAP = "1.3.6.1.6.3.1.1.5.3"
QUIET_S = 3.0  # without a new line: what is missing by then is lost
ARRIVAL_S = 60.0  # in all
ENTRIES = {
    "memory": 'queue.type="LinkedList" queue.size="500000" queue.dequeueBatchSize="2000"',
    "disk": 'queue.type="Disk" queue.filename="q" queue.checkpointInterval="1" queue.syncQueueFiles="on"'
    ' queue.dequeueBatchSize="2000"',
}


@dataclass
class Peer:
    """One program under test.

    Attributes:
        figure: its name in the output.
        needs: programs that must be installed.
        make: writes its configuration into a folder; returns the commands to start, the file it writes, what marks a
            message in it.
        rates: to try, upwards.
    """

    figure: str
    needs: tuple[str, ...]
    make: Callable[[Path, int], tuple[list[list[str]], Path, bytes]]
    rates: tuple[int, ...]
    kind: str = "udp"


def _rsyslogd(folder: Path, name: str, text: str) -> list[str]:
    path = folder / f"{name}.conf"
    (folder / f"spool-{name}").mkdir(exist_ok=True)
    path.write_text(f'global(workDirectory="{folder}/spool-{name}")\n{text}')
    return ["rsyslogd", "-n", "-f", str(path), "-i", str(folder / f"{name}.pid")]


def rsyslog_file(folder: Path, port: int) -> tuple[list[list[str]], Path, bytes]:
    out = folder / "out.log"
    text = f"""
module(load="imudp" threads="2" timeRequery="8" batchSize="128")
module(load="imptcp" threads="2")
ruleset(name="w" queue.type="FixedArray" queue.size="250000" queue.dequeueBatchSize="4096" queue.workerThreads="2") {{
  action(type="omfile" file="{out}" ioBufferSize="64k" flushOnTXEnd="on") }}
input(type="imudp" port="{port}" address="127.0.0.1" ruleset="w" rcvbufSize="16m")
input(type="imptcp" port="{port}" address="127.0.0.1" ruleset="w" SupportOctetCountedFraming="on")
"""
    return [_rsyslogd(folder, "one", text)], out, b"SEQ="


def rsyslog_two_nodes(queue: str) -> Callable[[Path, int], tuple[list[list[str]], Path, bytes]]:
    def make(folder: Path, port: int) -> tuple[list[list[str]], Path, bytes]:
        relp, out = free_port(), folder / "second.log"
        first = f"""
module(load="imudp" threads="1" batchSize="128")
module(load="omrelp")
ruleset(name="w") {{
  action(type="omfile" file="{folder}/first.log")
  action(type="omrelp" target="127.0.0.1" port="{relp}" windowSize="1000" {ENTRIES[queue]}) }}
input(type="imudp" port="{port}" address="127.0.0.1" ruleset="w" rcvbufSize="16m")
"""
        second = f"""
module(load="imrelp")
input(type="imrelp" port="{relp}" address="127.0.0.1" ruleset="w")
ruleset(name="w") {{ action(type="omfile" file="{out}" sync="on") }}
"""
        return [_rsyslogd(folder, "second", second), _rsyslogd(folder, "first", first)], out, b"SEQ="

    return make


def found(program: str) -> str | None:
    """Return the path of a program, installed or unpacked."""
    return shutil.which(program) or shutil.which(program, path=f"{UNPACKED}/usr/sbin:{UNPACKED}/usr/bin")


def surroundings() -> dict[str, str]:
    """Return an environment in which unpacked programs find their libraries."""
    folders = sorted({str(path.parent) for path in UNPACKED.glob("**/lib*.so.*")})
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(folders)} if folders else dict(os.environ)


def syslog_ng(folder: Path, port: int) -> tuple[list[list[str]], Path, bytes]:
    out, conf, program = folder / "out.log", folder / "ng.conf", found("syslog-ng")
    assert program is not None
    said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True, env=surroundings()).stdout
    number = next(line.split()[-1] for line in said.splitlines() if line.startswith("Config version"))
    conf.write_text(f"""@version: {number}
options {{ stats-freq(0); threaded(yes); use-dns(no); flush-lines(1000); }};
source u {{ network(transport(udp) ip("127.0.0.1") port({port}) so-rcvbuf(16777216) log-fetch-limit(10000)); }};
destination f {{ file("{out}" log-fifo-size(1000000) flush-lines(1000)); }};
log {{ source(u); destination(f); }};
""")
    modules = [f"--module-path={path}" for path in UNPACKED.glob("usr/lib/syslog-ng/[0-9]*")]
    command = [program, "-F", "-f", str(conf), "-R", str(folder / "persist"), "-p", str(folder / "pid"), *modules]
    return [[*command, "-c", str(folder / "ctl"), "--no-caps"]], out, b"SEQ="


def snmptrapd(folder: Path, port: int) -> tuple[list[list[str]], Path, bytes]:
    out, conf = folder / "traps.log", folder / "traps.conf"
    conf.write_text("disableAuthorization yes\nserverRecvBuf 16777216\n")
    return [["snmptrapd", "-f", "-C", "-c", str(conf), "-On", "-Lf", str(out), f"udp:127.0.0.1:{port}"]], out, b"SEQ="


def trap(number: int) -> bytes:
    """Return a v2c trap with one numbered varbind."""

    def pair(name: str, value: bytes) -> bytes:
        return ber.value(ber.SEQUENCE, ber.value(6, _oid(name)) + value)

    said = pair("1.3.6.1.4.1.9.9.41.1.2.3.1.5", ber.value(ber.STRING, b"link down SEQ=%010d" % number))
    pairs = pair("1.3.6.1.2.1.1.3.0", ber.value(0x43, b"\x01")) + pair(
        "1.3.6.1.6.3.1.1.4.1.0", ber.value(6, _oid(TRAP))
    )
    numbers = ber.value(2, number.to_bytes(4, "big")) + ber.value(2, b"\0") * 2
    pdu = ber.value(0xA7, numbers + ber.value(ber.SEQUENCE, pairs + said))
    return ber.value(ber.SEQUENCE, ber.value(2, b"\x01") + ber.value(ber.STRING, b"public") + pdu)


def _oid(text: str) -> bytes:
    first, second, *rest = map(int, text.split("."))
    made = bytearray([40 * first + second])
    for part in rest:
        piece = [part & 0x7F]
        while part := part >> 7:
            piece.append(part & 0x7F | 0x80)
        made += bytes(reversed(piece))
    return bytes(made)


def send_traps(port: int, rate: int, seconds: float) -> tuple[int, float]:
    """Send traps evenly from here; return how many, and the seconds that it took (they are made before)."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(("127.0.0.1", port))
    total = int(rate * seconds)
    made = [trap(n) for n in range(total)]
    began = time.monotonic()
    for n, data in enumerate(made):
        while n > (time.monotonic() - began) * rate:
            time.sleep(0.0005)
        sock.send(data)
    return total, time.monotonic() - began


def counted(path: Path, mark: bytes) -> int:
    return path.read_bytes().count(mark) if path.exists() else 0


def tried(peer: Peer, rate: int, seconds: float) -> tuple[bool, float, dict[str, object]]:
    """Try one rate with fresh programs; return whether all arrived in time, and the rate that was sent."""
    with tempfile.TemporaryDirectory() as tmp:
        folder, port = Path(tmp), free_port()
        commands, out, mark = peer.make(folder, port)
        programs = []
        try:
            for command in commands:
                errors = (folder / "err").open("wb")
                programs.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=surroundings()))
                time.sleep(1)
            if peer.kind == "trap":
                sent, took = send_traps(port, rate, seconds)
            else:
                sender = [sys.executable, str(HERE / "intake_senders.py"), peer.kind, f"127.0.0.1:{port}"]
                said = subprocess.run(
                    [*sender, str(rate), str(seconds)],
                    check=True,
                    capture_output=True,
                    text=True,
                    timeout=10 * seconds + SENDING_S,
                )
                sent, took = int(said.stdout.split()[0]), float(said.stdout.split()[1])
            ended, seen, at = time.monotonic(), -1, time.monotonic()
            while seen < sent and time.monotonic() < min(at + QUIET_S, ended + ARRIVAL_S):
                so_far = counted(out, mark)
                if so_far != seen:
                    seen, at = so_far, time.monotonic()
                time.sleep(0.02)
            late = at - ended
        finally:
            for program in programs:
                program.kill()
                program.wait()
        per_s = sent / took
        is_good = seen >= sent and late <= CATCH_UP_S_MAX and per_s > 0.97 * rate
        return (
            is_good,
            per_s,
            {
                "rate": rate,
                "sent": sent,
                "sent_per_s": round(per_s),
                "arrived": seen,
                "late_s": round(late, 2),
            },
        )


FAST = (10_000, 20_000, 30_000, 40_000, 50_000, 75_000, 100_000, 150_000)
PEERS = (
    Peer("rsyslog.udp_file_per_s", ("rsyslogd",), rsyslog_file, FAST),
    Peer("rsyslog.tcp_file_per_s", ("rsyslogd",), rsyslog_file, FAST, "tcp"),
    Peer("rsyslog.two_nodes_per_s", ("rsyslogd",), rsyslog_two_nodes("memory"), FAST),
    Peer(
        "rsyslog.two_nodes_durable_per_s",
        ("rsyslogd",),
        rsyslog_two_nodes("disk"),
        (250, 500, 1000, 2000, 5000, 10_000),
    ),
    Peer("syslog_ng.udp_file_per_s", ("syslog-ng",), syslog_ng, FAST),
    Peer("snmptrapd.log_per_s", ("snmptrapd",), snmptrapd, (1000, 2000, 4000, 6000, 8000, 12_000), "trap"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=3)
    args = parser.parse_args()
    for peer in PEERS:
        if args.only and peer.figure not in args.only.split(","):
            continue
        missing = [name for name in peer.needs if found(name) is None]
        if missing:
            line = {"figure": f"peer.{peer.figure}", "value": None, "why": f"{missing[0]} is not installed"}
            print(json.dumps(line), flush=True)
            continue
        best, failed = 0.0, dict[str, object]()
        for rate in peer.rates:
            try:
                is_good, per_s, how = tried(peer, rate, args.seconds)
            except (OSError, subprocess.SubprocessError) as e:
                is_good, per_s, how = False, 0.0, {"rate": rate, "why": f"{type(e).__name__}: {e}"[:300]}
            if not is_good:
                failed = how
                break
            best = per_s
        say(f"peer.{peer.figure}", best, next_failed=failed or None)


if __name__ == "__main__":
    main()
