"""The resident program of one lab: parent of its hosts, hand on its switches. `futago lab` and the BMCs talk to it over
a unix socket, one JSON line each.

It lives in a mount namespace and a cgroup of its own: whatever happens to it, killing that cgroup removes hosts, mounts
and networks with it.
A request is answered in a thread; actions on one host are serialised by that host's lock.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import socketserver
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from futago.lab import fencing, machine, network
from futago.lab.bmc import Bmc
from futago.lab.faults import FAULTS
from futago.lab.host import Power, PoweredHost
from futago.lab.places import Places, places
from futago.lab.state import LabState, load_state
from futago.lab.topology import FLOATING_IP, MEMBERS, RELAY_ADDRESS, Network, link
from futago.lab.watchdog_power import WatchdogDevice
from futago.runtime.clock import now_at, now_utc
from futago.runtime.faults import FutagoFault, OperatorFault
from futago.runtime.log import Log

OPEN_FILES_MAX = 524_288  # of a host; what distributions set for their services
CONSOLE_BYTES_MAX = 32 << 20  # a console log that grew beyond this starts anew
RELAY = "relay"


class Consoles:
    """Writes what the hosts print on their consoles to files, so that it outlives their power."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        read, self._wake = os.pipe()
        self._selector.register(read, selectors.EVENT_READ, None)
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, master: int, path: Path) -> None:
        """Take over the master side of a console."""
        os.set_blocking(master, False)
        with self._lock:
            self._selector.register(master, selectors.EVENT_READ, path)
        os.write(self._wake, b"x")

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    os.read(key.fd, 100)
                    continue
                self._copy(key.fd, key.data)

    def _copy(self, fd: int, path: Path) -> None:
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return
        except OSError:  # the last process that held the console is gone
            data = b""
        if not data:
            with self._lock:
                self._selector.unregister(fd)
            os.close(fd)
            return
        full = path.exists() and path.stat().st_size > CONSOLE_BYTES_MAX
        with path.open("wb" if full else "ab") as f:
            f.write(data)


class Daemon:
    """Everything of one lab that lives.

    Args:
        where: the lab's places.
        state: what the lab consists of.
    """

    def __init__(self, where: Places, state: LabState) -> None:
        self.where = where
        self.log = Log(program="lab", lab=where.name)
        self._consoles = Consoles()
        top = machine.lab_cgroup(where.name)
        lower = (Path(state.product), *map(Path, state.extra), Path(state.golden))
        self._hosts = {
            n.name: PoweredHost(
                n,
                where.host(n.name),
                lower=lower,
                cgroup=machine.Cgroup(top.path / f"host-{n.name}"),
                log=self.log,
                console=self._consoles.add,
                watchdog=self._watchdog(n.name) if state.watchdog and n.name in MEMBERS else None,
            )
            for n in state.nodes
        }
        self._bmcs = {
            m: Bmc(
                m,
                where.bmc(m),
                cgroup=machine.Cgroup(top.path / f"bmc-{m}"),
                control_socket=where.socket,
                services=fencing.services(state.fence),
            )
            for m in MEMBERS
            if m in self._hosts
        }
        self._drops: dict[tuple[str, ...], list[network.Drop]] = {}
        self._active: dict[tuple[str, str, tuple[str, ...]], str] = {}
        self._lock = threading.Lock()

    def _watchdog(self, member: str) -> WatchdogDevice:
        group = machine.Cgroup(machine.lab_cgroup(self.where.name).path / f"watchdog-{member}")
        return WatchdogDevice(member, self.where.host(member), cgroup=group, control_socket=self.where.socket)

    def build(self) -> None:
        """Make the switch, the disks and the BMCs; nothing is powered on yet."""
        network.make_switch()
        network.apply_drops([])
        names = self._hosts_file()
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(lambda h: h.disks.make(h.node, lab=self.where.name, hosts_file=names), self._hosts.values()))
        for host in self._hosts.values():
            threading.Thread(
                target=host.watch_sysrq, args=(lambda action, h=host: self._power(h, action),), daemon=True
            ).start()
        for bmc in self._bmcs.values():
            bmc.start()
        network.make_namespace(RELAY)
        network.plug_in(RELAY, [link(RELAY, Network.SERVICE, int(RELAY_ADDRESS.rsplit(".", 1)[1]))])

    def _hosts_file(self) -> str:
        lines = ["127.0.0.1 localhost", "::1 localhost", f"{FLOATING_IP.split('/')[0]} pair"]
        return "\n".join(lines + [f"{h.node.address()} {name}" for name, h in self._hosts.items()]) + "\n"

    def host(self, name: str) -> PoweredHost:
        """Return a host by name. Raises OperatorFault if there is none."""
        if name not in self._hosts:
            raise OperatorFault(
                f"The lab has no host `{name}`.", hint=f"Its hosts are {', '.join(self._hosts)}.", code="lab.host"
            )
        return self._hosts[name]

    def bmc(self, member: str) -> Bmc:
        """Return a member's BMC. Raises OperatorFault if there is none."""
        if member not in self._bmcs:
            raise OperatorFault(f"`{member}` has no BMC.", hint=f"{', '.join(self._bmcs)} have one.", code="lab.bmc")
        return self._bmcs[member]

    def drop(self, key: tuple[str, ...], drops: list[network.Drop]) -> None:
        """Set what one fault makes the switch lose; an empty list ends it."""
        with self._lock:
            self._drops[key] = drops
            network.apply_drops(d for some in self._drops.values() for d in some)

    def fill(self, file: Path) -> None:
        """Write a file until its file system has no room left."""
        with suppress(OSError), file.open("wb") as f:
            free = os.statvfs(file.parent)
            os.posix_fallocate(f.fileno(), 0, free.f_bavail * free.f_frsize)
        with suppress(OSError), file.open("ab") as f:
            while f.write(bytes(4096)):
                f.flush()

    def inside(self, host: str, *command: str) -> str:
        """Run a tool inside a host and return its output."""
        found = self.host(host)
        if found.power is Power.OFF:
            raise OperatorFault(f"{host} is off.", hint=f"Run `futago lab fault power-on {host}`.", code="lab.off")
        return machine.tool(*machine.within(found.cgroup, ["nsenter", "-t", str(found.init_pid), "-a", *command]))

    # ---- requests

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request of the socket."""
        match request.get("op"):
            case "status":
                return {"ok": True, **self.status()}
            case "fault":
                return self._fault(
                    str(request["fault"]), str(request["target"]), [str(w) for w in request.get("words", [])]
                )
            case "heal":
                return self._heal(request.get("fault"), request.get("target"))
            case "watchdog":
                member = str(request["member"])
                self.log.event("watchdog.expired", member=member)
                self._power(self.host(member), "reset")
                return {"ok": True}
            case "chassis":
                return {"ok": True, "output": self._chassis(str(request["member"]), [str(w) for w in request["words"]])}
        raise OperatorFault(f"The lab's daemon does not know `{request.get('op')}`.", code="lab.op")

    def status(self) -> dict[str, Any]:
        """Return what lives, as told by the daemon."""
        hosts = {
            name: {
                "kind": h.node.kind.value,
                "power": h.power.value,
                "boots": h.boots,
                "init_pid": h.init_pid,
                "frozen": h.is_frozen,
                "cgroup": str(h.cgroup.path),
                "addresses": {k.network.value: k.address.split("/")[0] for k in h.links},
                "unplugged": sorted(h.unplugged),
            }
            for name, h in self._hosts.items()
        }
        bmcs = {m: {"running": b.is_running(), "hung": b.is_hung, "lies": b.lies} for m, b in self._bmcs.items()}
        faults = [{"fault": f, "target": t, "words": list(w), "utc": at} for (f, t, w), at in self._active.items()]
        return {"name": self.where.name, "daemon_pid": os.getpid(), "hosts": hosts, "bmcs": bmcs, "faults": faults}

    def _fault(self, name: str, target: str, words: list[str]) -> dict[str, Any]:
        fault = FAULTS.get(name)
        if fault is None:
            raise OperatorFault(f"There is no fault `{name}`.", hint=f"Known: {', '.join(FAULTS)}.", code="lab.fault")
        if len(words) != len(fault.words):
            raise OperatorFault(
                f"`{name}` needs {' '.join(w.upper() for w in ('host', *fault.words))}.",
                hint=f"It means: {fault.text}.",
                code="lab.fault",
            )
        targets = target.split(",")
        for t in targets:
            self.host(t)
        at, utc = now_at(), now_utc().isoformat()
        with ThreadPoolExecutor(max_workers=len(targets)) as pool:
            stages = dict(zip(targets, pool.map(lambda t: fault.begin(self, t, words), targets), strict=True))
        done = now_at()
        if fault.end is not None:
            with self._lock:
                self._active.update({(name, t, tuple(words)): utc for t in targets})
        self.log.event("fault", fault=name, target=target, words=words, ms=(done - at) / 1e6)
        return {
            "ok": True,
            "fault": name,
            "target": target,
            "words": words,
            "at": at,
            "done_at": done,
            "utc": utc,
            "stages_ms": stages,
        }

    def _heal(self, name: str | None, target: str | None) -> dict[str, Any]:
        at, utc, healed = now_at(), now_utc().isoformat(), []
        for key in [k for k in self._active if name in (None, k[0]) and target in (None, k[1])]:
            end = FAULTS[key[0]].end
            assert end is not None
            end(self, key[1], list(key[2]))
            with self._lock:
                self._active.pop(key, None)
            healed.append({"fault": key[0], "target": key[1], "words": list(key[2])})
        if name is None:
            for host in self._hosts.values():
                if target in (None, host.node.name) and host.power is Power.OFF:
                    host.power_on()
                    healed.append({"fault": "off", "target": host.node.name, "words": []})
        self.log.event("heal", fault=name, target=target, healed=healed)
        return {"ok": True, "healed": healed, "at": at, "done_at": now_at(), "utc": utc}

    # ---- the BMCs' power control

    def _chassis(self, member: str, words: list[str]) -> str:
        """Answer ipmi_sim: `get P...`, `check P V...` or `set P V...`, as its chassis_control does."""
        op, rest = words[0], words[1:]
        self.log.event("chassis", member=member, words=words)
        if op == "get":
            return "".join(f"{p}:{self._parameter(member, p)}\n" for p in rest)
        if op == "set":
            for parameter, value in zip(rest[::2], rest[1::2], strict=False):
                self._set_parameter(member, parameter, value)
        return ""

    def _parameter(self, member: str, parameter: str) -> str:
        match parameter:
            case "power":
                return "0" if self._bmcs[member].lies else str(int(self.host(member).power is Power.ON))
            case "boot":
                return "default"
        return "0"

    def _set_parameter(self, member: str, parameter: str, value: str) -> None:
        host = self.host(member)
        if self._bmcs[member].lies:
            return
        match parameter, value:
            case "power", "0":
                self._power(host, "off")
            case "power", _:
                self._power(host, "on")
            case "reset", _:
                self._power(host, "reset")
            case "shutdown", _:
                if host.power is Power.ON:
                    self.inside(member, "systemctl", "--no-block", "poweroff")

    def _power(self, host: PoweredHost, action: str) -> None:
        with host.lock:
            if action in ("off", "reset"):
                host.cut()
            if action in ("on", "reset"):
                host.power_on()
        with self._lock:
            if host.power is Power.ON:
                for key in [k for k in self._active if k[0] in ("power-cut", "shutdown") and k[1] == host.node.name]:
                    del self._active[key]


class _Handler(socketserver.StreamRequestHandler):
    daemon: Daemon

    def handle(self) -> None:
        for line in self.rfile:
            try:
                answer = self.daemon.answer(json.loads(line))
            except FutagoFault as e:
                answer = {
                    "ok": False,
                    "error": getattr(e, "what", str(e)),
                    "hint": getattr(e, "hint", ""),
                    "code": getattr(e, "code", "lab.world"),
                }
            except Exception as e:  # noqa: BLE001  the one place: a defect is told to whoever asked, and the lab lives on
                self.daemon.log.error("request.defect", request=line.decode(errors="replace"), error=repr(e))
                answer = {
                    "ok": False,
                    "error": f"defect in the lab: {e!r}",
                    "hint": f"See {self.daemon.where.daemon_log}.",
                    "code": "lab.defect",
                }
            try:
                self.wfile.write(json.dumps(answer).encode() + b"\n")
            except BrokenPipeError:
                return


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


def main(name: str) -> int:
    """Run the daemon of the lab `name`; it ends by being killed with its cgroup."""
    where = places(name)
    with suppress(OSError, ValueError):  # a machine that is itself confined may not raise it
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, OPEN_FILES_MAX))
    network.NAMESPACES.mkdir(parents=True, exist_ok=True)
    machine.tool("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(network.NAMESPACES))
    daemon = Daemon(where, load_state(where))
    where.socket.unlink(missing_ok=True)
    pending = where.socket.with_suffix(".new")
    pending.unlink(missing_ok=True)
    handler = type("Handler", (_Handler,), {"daemon": daemon})
    with _Server(str(pending), handler) as server:
        os.chmod(pending, 0o600)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        daemon.build()
        pending.rename(where.socket)  # whoever sees the socket sees a lab that is ready
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
