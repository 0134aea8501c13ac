"""How much two receivers take: `python tests/bench/intake_receive.py`, one JSON object a figure.

Messages go to one member, as to the floating IP, and count when they are durable in both members' journals: written and
synced in its own and in the copy on the other. The highest rate is sought at which nothing is lost, the kernel drops
nothing, and the copy is whole within a second after the last message. Both receivers and the sender share this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "unit/intake")]

from receivers import ReceiverProcess, make_pair, make_pki  # noqa: E402

from free_ports import free_port  # noqa: E402
from futago.intake.reader import JournalReader  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
CATCH_UP_S_MAX = 1.0
START_S = 60.0
SENDING_S = 60.0  # beyond ten times of what it is to take: the rate is too high


def say(figure: str, value: float, **more: object) -> None:
    print(json.dumps({"figure": figure, "value": round(value, 3), **more}), flush=True)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def counted(root: Path) -> int:
    """Return how many numbered messages a journal holds."""
    reader, found = JournalReader(root, {}), 0
    while (read := reader.read()) is not None:
        found += read.raw.count(b"SEQ=")
    reader.close()
    return found


class Trial:
    """Two fresh receivers, and one rate."""

    def __init__(self, tmp: Path, pki: Path) -> None:
        self.one, self.two = make_pair(tmp, pki)
        self.tls = free_port()
        self.one.write_options(f"[syslog_tls]\nport = {self.tls}\n")

    def __enter__(self) -> Trial:
        try:
            for each in (self.one, self.two):
                each.start()
            for each in (self.one, self.two):
                each.wait(lambda status: status["complete"], limit_s=START_S)
        except BaseException:  # then __exit__ is not called
            self.__exit__()
            raise
        return self

    def __exit__(self, *why: object) -> None:
        self.one.stop()
        self.two.stop()

    def run(self, kind: str, rate: int, seconds: float) -> dict[str, object]:
        """Send, wait until both journals have it, and say how it went."""
        port = {"udp": self.one.syslog_udp, "tcp": self.one.syslog_tcp, "tls": self.tls}[kind]
        program = [sys.executable, str(HERE / "intake_senders.py"), kind, f"127.0.0.1:{port}", str(rate), str(seconds)]
        before = [cpu_s(each.process.pid) for each in (self.one, self.two) if each.process]
        out = subprocess.run(
            program, check=True, capture_output=True, text=True, timeout=10 * seconds + SENDING_S
        ).stdout.split()
        sent, took = int(out[0]), float(out[1])
        ended = time.monotonic()
        late = settled(self.one) - ended
        after = [cpu_s(each.process.pid) for each in (self.one, self.two) if each.process]
        status = self.one.status()["counters"]
        return {
            "sent": sent,
            "per_s": sent / took,
            "took": took,
            "late_s": round(late, 3),
            "drops": status["kernel_drops"],
            "worst_sync_ms": status["worst_sync_ms"],
            "cpu_us": [round((b - a) / sent * 1e6, 2) for a, b in zip(before, after, strict=True)],
        }


def settled(receiver: ReceiverProcess) -> float:
    """Wait until the copy has everything; return when that was."""
    until = time.monotonic() + 20
    last = 0
    while time.monotonic() < until:
        status = receiver.status()
        own = status["own"]["last"]
        if own - status["sync"]["peer_has"] <= 1 and own - last <= 1:
            return time.monotonic()
        last = own
        time.sleep(0.02)
    raise AssertionError("the copy is not whole after 20 s")


def tried(kind: str, rate: int, seconds: float, pki: Path) -> tuple[bool, dict[str, object]]:
    """Try one rate; return whether all went well. What does not come to its end in time did not."""
    with tempfile.TemporaryDirectory() as tmp:
        try:
            with Trial(Path(tmp), pki) as trial:
                found = trial.run(kind, rate, seconds)
        except (AssertionError, OSError, subprocess.SubprocessError) as e:
            return False, {"why": f"{type(e).__name__}: {e}"[:300]}
        own, copy = counted(trial.one.root / "own"), counted(trial.two.root / "peer")
        found |= {"own": own, "copy": copy}
    is_good = own == copy == found["sent"] and not found["drops"] and float(str(found["late_s"])) <= CATCH_UP_S_MAX
    return is_good and float(str(found["per_s"])) > 0.97 * rate, found


def search(kind: str, rates: list[int], seconds: float, pki: Path, *, verbose: bool) -> None:
    """Say the highest of the rates that goes well, upwards until one does not."""
    best, how, failed = 0.0, dict[str, object](), dict[str, object]()
    for rate in rates:
        is_good, found = tried(kind, rate, seconds, pki)
        if verbose:
            print(rate, is_good, found, file=sys.stderr)
        if not is_good:
            failed = {"rate": rate, **found}
            break
        best, how = float(str(found["per_s"])), found
    say(f"intake.receive.{kind}_per_s", best, cpu_us=how.get("cpu_us"), next_failed=failed or None)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kinds", default="udp,tcp,tls")
    parser.add_argument("--rates", default="20000,30000,40000,50000,60000,75000,90000,110000")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        pki = make_pki(Path(tmp) / "pki", "m1", "m2")
        for kind in args.kinds.split(","):
            search(kind, [int(r) for r in args.rates.split(",")], args.seconds, pki, verbose=args.verbose)


if __name__ == "__main__":
    main()
