"""Does the pair stay calm? Both cores saturated by other programs, both members' disks written to heavily, for half an hour: nothing may switch.

    python tests/bench/calm.py [--minutes 30] [--hogs 4] [--profile default|fast]

The other programs: as many busy loops as asked for, beside the lab, and on each member a loop of large synced writes on the database's volume. The
oracles stand outside the product: the client's acknowledgements, and each member's boot id. One JSON object on standard output; exit code 1 if the
service moved, a member was restarted by force or left the view.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "lab"))

from senders import ApiWriter

from futago.lab.lab import Lab
from futago.lab.pair import form_pair, wait_protected
from futago.lab.progress import say

HOG = "while True: pass"
DISK = "while :; do dd if=/dev/zero of=/var/lib/futago/pg/noise bs=1M count=64 conv=fdatasync status=none; rm /var/lib/futago/pg/noise; done"
LOOK_S = 1.0
MINUTE_S = 60.0


def calm(lab: Lab, *, minutes: float, hogs: int, profile: str) -> dict[str, Any]:
    """Load everything for `minutes`; return the figure."""
    before = wait_protected(lab, deadline_s=180)
    boots = {m["name"]: m["boot"] for m in before["members"]}
    writer = ApiWriter(lab, rate=20, threads=4)
    loops = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(hogs)]
    noise = [member.start(["sh", "-c", DISK]) for member in lab.members]
    seen: list[dict[str, Any]] = []
    load: list[float] = []
    writer.start(prefix=f"calm-{time.time_ns()}")
    try:
        end = time.monotonic() + minutes * MINUTE_S
        said = 0.0
        while time.monotonic() < end:
            time.sleep(LOOK_S)
            seen.append(lab.pair_status() or {})
            load.append(os.getloadavg()[0])
            if time.monotonic() - said > MINUTE_S:
                said = time.monotonic()
                say(f"  {(end - said) / MINUTE_S:.0f} min left, load {load[-1]:.1f}, epoch {seen[-1].get('epoch')}")
    finally:
        for process in (*loops, *noise):
            process.kill()
            process.wait()
        for member in lab.members:
            member.run(["rm", "-f", "/var/lib/futago/pg/noise"], check=False)
        writes = writer.stop()
    after = wait_protected(lab, deadline_s=180)
    acked = sorted(w.acked_at for w in writes if w.status)
    return {
        "bench": "calm" + ("" if profile == "default" else f".{profile}"),
        "minutes": minutes,
        "hogs": hogs,
        "switches": int(after["primary"] != before["primary"]) + int(after["epoch"] != before["epoch"]),
        "epochs": after["epoch"] - before["epoch"],
        "restarted": sum(boots[m["name"]] != m["boot"] for m in after["members"]),
        "unprotected_s": round(sum(LOOK_S for s in seen if not s.get("protected")), 1),
        "reasons": sorted({r for s in seen for r in s.get("not_protected", [])})[:5],
        "writes": len(acked),
        "longest_pause_s": round(max(((b - a) / 1e9 for a, b in pairwise(acked)), default=float("nan")), 3),
        "load_max": round(max(load, default=0.0), 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--hogs", type=int, default=4)
    parser.add_argument("--profile", choices=("default", "fast"), default="default")
    wanted = parser.parse_args()
    lab = Lab(f"c{os.getpid()}")
    try:
        lab.up(owner_pid=os.getpid(), say=say)
        form_pair(lab, profile=wanted.profile, say=say)
        found = calm(lab, minutes=wanted.minutes, hogs=wanted.hogs, profile=wanted.profile)
    finally:
        lab.down(say=say)
    print(json.dumps(found), flush=True)
    return int(bool(found["epochs"] or found["restarted"]))


if __name__ == "__main__":
    sys.exit(main())
