"""A lab as a Python object: bring it up, run programs in its hosts, break it, heal it, take it down. What the CLI, the
demo and the tests use.

Everything asks the lab's daemon over its socket, except running programs inside a host, which enters the host's
namespaces directly.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from futago.lab import agents, fencing, golden, machine, prerequisites, product
from futago.lab.inside import HostProcess, LabHost
from futago.lab.patterns import Step
from futago.lab.places import LABS, SOURCE, Places, lab_lock, places
from futago.lab.progress import Say, silent, step
from futago.lab.state import LabState, is_alive, load_state, orphans, page_url, save_state
from futago.lab.topology import MEMBERS, Node, standard
from futago.runtime.clock import now_utc
from futago.runtime.faults import FutagoFault, OperatorFault, Refused, Unknown

PROGRAM = "/opt/futago/bin/futago"  # on every lab host
_REQUEST_DEADLINE_S = 90.0
_STATUS_DEADLINE_S = 4.0
HANGS = ("disk-hang", "device-hang")  # of a volume
LOGS_KEPT = 8  # folders of console logs of labs that are gone


__all__ = ["PROGRAM", "HostProcess", "Lab", "LabHost", "remove_orphans"]


class Lab:
    """A lab by name.

    Args:
        name: the lab's name.
    """

    def __init__(self, name: str = "lab") -> None:
        self.name = name
        self.places: Places = places(name)

    # ---- life

    def up(
        self,
        *,
        nodes: tuple[Node, ...] | None = None,
        owner_pid: int = 0,
        fence: tuple[str, ...] = ("ipmi",),
        watchdog: bool = False,
        say: Say = silent,
    ) -> None:
        """Bring the lab up with all hosts booted; does nothing to a lab that is up.

        Args:
            nodes: its hosts; the standard ones if None.
            owner_pid: a process whose end makes this lab an orphan that `remove_orphans` takes down.
            fence: kinds of the members' fence devices, in the order of trying: ipmi, redfish, agent, command.
            watchdog: give the members a /dev/watchdog each, which resets them.
            say: where progress goes.
        """
        machine.require_root()
        fencing.check_kinds(fence)
        if not (SOURCE / "pyproject.toml").exists():
            raise OperatorFault(
                "The lab runs from a source tree, and this is an installed package.",
                hint="Use the lab of a clone of the sources.",
                code="lab.source",
            )
        with lab_lock(self.name):
            if self.is_up():
                say(f"  ok the lab `{self.name}` is up already")
                return
            if self.places.home.exists():
                self._remove(say=say)
            prerequisites.ensure(say=say)
            if watchdog:
                prerequisites.ensure_fuse(say=say)
            prerequisites.check_kernel()
            prerequisites.ensure_limits(say=say)
            golden_root = golden.ensure(say=say)
            layer = product.ensure(golden_root, say=say)
            extra = (str(agents.ensure(say=say)),) if "agent" in fence else ()
            state = LabState(
                name=self.name,
                golden=str(golden_root),
                product=str(layer),
                nodes=nodes or standard(),
                created_utc=now_utc().isoformat(),
                owner_pid=owner_pid,
                owner_started=machine.started_ticks(owner_pid) if owner_pid else 0,
                fence=fence,
                watchdog=watchdog,
                extra=extra,
            )
            try:
                self._start(state, say=say)
            except BaseException:
                self._remove(say=silent, keep_logs=True)
                raise

    def _start(self, state: LabState, *, say: Say) -> None:
        nodes = state.nodes
        self.places.home.mkdir(parents=True, mode=0o700)
        save_state(self.places, state)
        with step(f"making the lab `{self.name}`: networks, disks, BMCs", say=say):
            self._start_daemon(state)
        with step(f"booting {', '.join(n.name for n in nodes)}", say=say):
            for node in nodes:
                self.fault("power-on", node.name)
            for node in nodes:
                word = self.host(node.name).wait_booted()
                if word != "running":
                    failed = (
                        self.host(node.name)
                        .run(["systemctl", "--failed", "--no-legend", "--plain"], check=False)
                        .stdout.strip()
                    )
                    say(f"  !! {node.name} is {word}: {failed}")

    def _start_daemon(self, state: LabState) -> None:
        cgroup = machine.Cgroup(machine.lab_cgroup(self.name).path / "daemon")
        cgroup.make()
        env = {**machine.CLEAN_ENV, "PYTHONPATH": str(SOURCE / "src"), "FUTAGO_LAB_STATE": str(LABS)}
        with self.places.daemon_log.open("ab") as log:
            process = subprocess.Popen(
                machine.within(
                    cgroup,
                    [
                        "unshare",
                        "--mount",
                        "--propagation",
                        "private",
                        sys.executable,
                        "-m",
                        "futago.lab.daemon",
                        self.name,
                    ],
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=env,
                cwd="/",
            )
        save_state(self.places, _with_daemon(state, process.pid))
        end = time.monotonic() + 60
        while not self.places.socket.exists():
            if process.poll() is not None or time.monotonic() > end:
                raise Refused(f"the lab's daemon did not start: {self._tail(self.places.daemon_log)}")
            time.sleep(0.02)

    def _tail(self, file: Path) -> str:
        try:
            return file.read_text(encoding="utf-8", errors="replace")[-2000:]
        except FileNotFoundError:
            return ""

    def down(self, *, say: Say = silent, keep_logs: bool = False) -> bool:
        """Remove everything of the lab, also after a crash or a half-done `up`. Returns whether there was anything."""
        machine.require_root()
        with lab_lock(self.name):
            return self._remove(say=say, keep_logs=keep_logs)

    def _remove(self, *, say: Say, keep_logs: bool = False) -> bool:
        cgroup = machine.lab_cgroup(self.name)
        home = self.places.home
        if not cgroup.exists() and not home.exists():
            return False
        with step(f"taking the lab `{self.name}` down", say=say):
            self._thaw()
            cgroup.kill(wait_s=20)
            cgroup.remove()
            self._free_loops(home)
            if machine.mounts_below(home):
                raise Refused(f"something is mounted below {home}; not removing it")
            if keep_logs and home.exists():
                _keep_logs(home)
            if home.exists():
                shutil.rmtree(home)
        return True

    def _thaw(self) -> None:
        """End what would keep processes from dying: those that write to a volume that hangs."""
        for fault in HANGS:
            with contextlib.suppress(FutagoFault):
                self.heal(fault)

    def _free_loops(self, home: Path) -> None:
        """The disks go with the mount namespaces of the killed processes, a moment later."""
        end = time.monotonic() + 10
        while loops := machine.loops_below(home):
            if time.monotonic() > end:
                for device in loops:
                    machine.tool("losetup", "-d", device)
                return
            time.sleep(0.02)

    def is_up(self) -> bool:
        """Return whether the lab's daemon lives and answers."""
        try:
            return is_alive(load_state(self.places)) and self.places.socket.exists()
        except OperatorFault:
            return False

    @property
    def state(self) -> LabState:
        return load_state(self.places)

    # ---- hosts

    def host(self, name: str) -> LabHost:
        """Return a host. Raises OperatorFault if the lab has no such host."""
        for node in self.state.nodes:
            if node.name == name:
                return LabHost(self, node)
        raise OperatorFault(
            f"The lab has no host `{name}`.",
            hint=f"Its hosts are {', '.join(n.name for n in self.state.nodes)}.",
            code="lab.host",
        )

    @property
    def members(self) -> list[LabHost]:
        return [self.host(m) for m in MEMBERS]

    @property
    def managed(self) -> list[LabHost]:
        """Return the managed hosts, where agents run."""
        return [self.host(n.name) for n in self.state.nodes if n.kind.value == "host"]

    # ---- requests

    def request(self, **request: object) -> dict[str, Any]:
        """Ask the daemon; return its answer.

        Raises:
            OperatorFault: the lab is not up, or the request is wrong.
            Refused: it was not done. Unknown: no answer came.
        """
        state = self.state
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(_REQUEST_DEADLINE_S)
                s.connect(str(self.places.socket))
                s.sendall(json.dumps(request).encode() + b"\n")
                with s.makefile("rb") as f:
                    line = f.readline()
        except (ConnectionError, FileNotFoundError) as e:
            hint = f"Run `futago lab down --name {self.name}`, then `up`."
            raise OperatorFault(
                f"The lab `{self.name}` is broken: its daemon {state.daemon_pid} does not answer.",
                hint=hint,
                code="lab.broken",
            ) from e
        except TimeoutError as e:
            raise Unknown(f"the lab `{self.name}` did not answer within {_REQUEST_DEADLINE_S:.0f} s") from e
        if not line:
            raise Unknown(f"the lab `{self.name}` ended in the middle of an answer")
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            if answer.get("code") in ("lab.world", "lab.defect"):
                raise Refused(answer["error"])
            raise OperatorFault(answer["error"], hint=answer.get("hint", ""), code=answer.get("code", "lab.request"))
        return answer

    def fault(self, name: str, target: str, *words: str) -> dict[str, Any]:
        """Begin a fault.

        `target`: a host, several with commas, `both`, or `primary` / `standby` (the product is asked who that is).
        """
        return self.request(op="fault", fault=name, target=self.resolve(target), words=[self.resolve(w) for w in words])

    def begin(self, steps: Iterable[Step]) -> dict[str, Any]:
        """Begin several faults, of members as they stand before the first one; return the answer to the last."""
        resolved = [(name, self.resolve(target), [self.resolve(w) for w in words]) for name, target, words in steps]
        answers = [self.request(op="fault", fault=n, target=t, words=w) for n, t, w in resolved]
        return answers[-1]

    def heal(self, name: str | None = None, target: str | None = None) -> dict[str, Any]:
        """End faults: all (then hosts that are off are powered on too), all of one kind, or those of one host."""
        return self.request(op="heal", fault=name, target=self.resolve(target) if target else None)

    def resolve(self, target: str) -> str:
        """Return the host name(s) that `primary`, `standby` or `both` stand for; other words unchanged."""
        if target == "both":
            return ",".join(MEMBERS)
        if target not in ("primary", "standby"):
            return target
        pair = self.pair_status()
        primary = (pair or {}).get("primary")
        if primary not in MEMBERS:
            raise OperatorFault(
                f"Nobody can say who is {target}: no member names a primary.",
                hint="Name the member: m1 or m2.",
                code="lab.primary",
            )
        return str(primary) if target == "primary" else next(m for m in MEMBERS if m != primary)

    def pair_status(self) -> dict[str, Any] | None:
        """Return what `futago status --json` prints on a living member, the one that knows the newest epoch.

        Asked of the controllers themselves: the start of a program takes seconds on a machine that is saturated, and whoever
        measures would measure that.

        None when none can say. Both are asked at once: one that is booting or hangs must not hold up what the other one says.
        """
        with ThreadPoolExecutor(max_workers=len(MEMBERS)) as pool:
            found = [status for status in pool.map(self._told_by, MEMBERS) if status is not None]
        return max(found, key=lambda s: (s.get("primary") is not None, s.get("epoch") or 0), default=None)

    def _told_by(self, member: str) -> dict[str, Any] | None:
        """Return what a member says; None if it is off, or too busy (booting, frozen) to say anything soon."""
        try:
            found = self.host(member).ask_controller({"op": "status"}, deadline_s=_STATUS_DEADLINE_S).get("status")
        except (Refused, Unknown):
            return None
        return found if isinstance(found, dict) and "state" in found else None

    def status(self) -> dict[str, Any]:
        """Return the daemon's status, each host's systemd state, and the pair's status under `pair`."""
        answer = self.request(op="status")
        answer.pop("ok")
        for name, host in answer["hosts"].items():
            host["systemd"] = self._systemd_state(name) if host["power"] == "on" and not host["frozen"] else None
        state = self.state
        answer.update(
            pair=self.pair_status(),
            page=page_url(self.places),
            product=state.product,
            golden=state.golden,
            created_utc=state.created_utc,
        )
        return answer

    def _systemd_state(self, name: str) -> str:
        try:
            return self.host(name).run(["systemctl", "is-system-running"], check=False, deadline_s=10).stdout.strip()
        except (Refused, Unknown):
            return "unknown"


def _with_daemon(state: LabState, pid: int) -> LabState:
    return msgspec.structs.replace(state, daemon_pid=pid, daemon_started=machine.started_ticks(pid))


def _keep_logs(home: Path) -> None:
    for old in sorted(LABS.glob("*.logs"), key=lambda p: p.stat().st_mtime, reverse=True)[LOGS_KEPT - 1 :]:
        shutil.rmtree(old, ignore_errors=True)
    kept = LABS / f"{home.name}.logs"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for log in (*home.glob("*.log"), *home.glob("hosts/*/console.log"), *home.glob("bmc/*/*.log")):
        shutil.copy(log, kept / "-".join(log.relative_to(home).parts))


def remove_orphans(*, say: Say = silent) -> list[str]:
    """Take down the labs whose owner process is gone; return the names of those that are still there.

    One that another command takes down at this moment is left to it. One that cannot be removed is told and left to
    the next run: a stranger's leftovers must not keep a new lab from being made.
    """
    left = []
    for name in orphans():
        try:
            Lab(name).down(say=say)
        except (OperatorFault, Refused, Unknown) as e:
            say(f"  !! the lab `{name}` of a process that is gone is still there: {e}")
            left.append(name)
    return left
