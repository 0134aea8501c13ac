"""One lab host as a machine with a power switch. Runs inside the daemon; the rest of the lab sees it through the daemon
only.

Power on: namespaces, cables, disks, real systemd. Power cut, in this order and no other: freeze (nothing runs any
more), unplug (nothing leaves), drop
what was not synced (nothing is saved late), kill, remove the network namespace (the kernel's sockets die unsent),
unmount.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import threading
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from futago.lab import machine, network
from futago.lab.disks import Disks
from futago.lab.machine import Cgroup
from futago.lab.topology import Link, Node
from futago.lab.watchdog_power import WatchdogDevice
from futago.runtime.clock import now_at
from futago.runtime.faults import FutagoFault, Refused
from futago.runtime.log import Log

REBOOT_PAUSE_S = 1.0  # what a firmware would take
_BOOT_DEADLINE_S = 20.0
_SIGHUP, _SIGINT = 1, 2  # how the kernel ends the init of a pid namespace: reboot, power off


class Power(Enum):
    """What the power lamp shows."""

    ON = "on"
    OFF = "off"


_BOOT = """set -e
R=$1; H=$2; CONSOLE=$3; SYSRQ=$4
mount -t proc -o nosuid,noexec,nodev proc $R/proc
mount --bind $R/proc/sys $R/proc/sys
mount --bind $R/proc/sys/net $R/proc/sys/net
mount -o remount,bind,ro $R/proc/sys
[ ! -e $R/proc/sysrq-trigger ] || mount --bind $SYSRQ $R/proc/sysrq-trigger
mount -t sysfs -o ro,nosuid,noexec,nodev sysfs $R/sys
mount -t cgroup2 -o nosuid,noexec,nodev cgroup2 $R/sys/fs/cgroup
mount -t tmpfs -o mode=755,nosuid tmpfs $R/dev
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs $R/run
for d in null zero random urandom full tty; do : > $R/dev/$d; mount --bind /dev/$d $R/dev/$d; done
mkdir $R/dev/shm $R/dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs $R/dev/shm
[ -z "$5" ] || { : > $R/dev/watchdog; mount --bind "$5" $R/dev/watchdog; }
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts $R/dev/pts
ln -s pts/ptmx $R/dev/ptmx; ln -s /proc/self/fd $R/dev/fd
ln -s /proc/self/fd/0 $R/dev/stdin; ln -s /proc/self/fd/1 $R/dev/stdout; ln -s /proc/self/fd/2 $R/dev/stderr
: > $R/dev/console; mount --bind $CONSOLE $R/dev/console
hostname $H
mkdir -p $R/.old; cd $R; pivot_root . .old; umount -l /.old
echo up
exec env -i container=lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin /lib/systemd/systemd --system \
  --show-status=0 >/dev/console 2>&1 </dev/null
"""

# The moment between "mount namespace copied" and "old root dropped" must not meet an unmount of another host: the copy
# would hold its disk.
_mounts = threading.Lock()


class PoweredHost:
    """A lab host: its power, its cables, its processes.

    Args:
        node: what it is.
        home: its folder.
        lower: the read-only layers of its root.
        cgroup: its cgroup; every process of the host is in it.
        log: where its story is told.
        console: takes over the master side of its console, and the file for it.
        watchdog: its watchdog device; None if it has none.
    """

    def __init__(
        self,
        node: Node,
        home: Path,
        *,
        lower: tuple[Path, ...],
        cgroup: Cgroup,
        log: Log,
        console: Callable[[int, Path], None],
        watchdog: WatchdogDevice | None = None,
    ) -> None:
        self.node = node
        self._watchdog = watchdog
        self.home = home
        self.disks = Disks(home, lower, node.volume_mib > 0, node.is_volume_remote)
        self.cgroup = cgroup
        self.lock = threading.RLock()
        self.power = Power.OFF
        self.init_pid = 0
        self.boots = 0
        self.is_frozen = False
        self.unplugged: set[str] = set()  # ports pulled by a fault; they stay so over power cycles
        self._log = log.bind(host=node.name)
        self._console = console
        self._generation = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._sysrq = home / "sysrq"

    @property
    def links(self) -> tuple[Link, ...]:
        return self.node.links

    @property
    def ports(self) -> list[str]:
        return [k.port for k in self.links]

    @property
    def _namespace(self) -> str:
        return network.namespace_of(self.node.name)

    def power_on(self) -> None:
        """Boot it; does nothing if it is on. Returns when its init runs."""
        with self.lock:
            if self.power is Power.ON:
                return
            began = now_at()
            self._generation += 1
            try:
                self._prepare()
                self._boot()
            except FutagoFault:
                self._clear(lost=False)
                raise
            self.power, self.is_frozen, self.boots = Power.ON, False, self.boots + 1
            threading.Thread(target=self._watch, args=(self._process, self._generation), daemon=True).start()
            self._log.event("power.on", ms=(now_at() - began) / 1e6, boots=self.boots, init_pid=self.init_pid)

    def _prepare(self) -> None:
        network.make_namespace(self._namespace)
        network.plug_in(self._namespace, self.links, down=frozenset(self.unplugged))
        self.disks.mount()
        self.cgroup.make()
        if self._watchdog is not None:
            self._watchdog.start()

    def _boot(self) -> None:
        if not self._sysrq.exists():
            os.mkfifo(self._sysrq, 0o200)
        master, slave = os.openpty()
        command = machine.within(
            self.cgroup,
            [
                "nsenter",
                f"--net={network.NAMESPACES / self._namespace}",
                "unshare",
                "--pid",
                "--fork",
                "--mount",
                "--uts",
                "--ipc",
                "--cgroup",
                "--propagation",
                "private",
                "/bin/sh",
                "-c",
                _BOOT,
                "boot",
                str(self.disks.root),
                self.node.name,
                os.ttyname(slave),
                str(self._sysrq),
                str(self._watchdog.file) if self._watchdog is not None else "",
            ],
        )
        with _mounts:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=slave,
                env=machine.CLEAN_ENV,
                start_new_session=True,
            )
            os.close(slave)
            self._console(master, self.home / "console.log")
            self._await_up(self._process)
        self.init_pid = machine.children(self._process.pid)[0]

    def _await_up(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:  # select(2) cannot look at descriptors from 1024 on
            selector.register(process.stdout, selectors.EVENT_READ)
            is_ready = bool(selector.select(_BOOT_DEADLINE_S))
        line = os.read(process.stdout.fileno(), 100) if is_ready else b""
        process.stdout.close()
        if line != b"up\n":
            self.cgroup.kill()
            raise Refused(f"{self.node.name} does not boot; see {self.home / 'console.log'}")

    def _watch(self, process: subprocess.Popen[bytes], generation: int) -> None:
        """Wait for the init to end by itself: a reboot comes back, a power-off stays off."""
        code = process.wait()
        with self.lock:
            if generation != self._generation or self.power is Power.OFF:
                return
            self._log.event("init.ended", code=code)
            self._clear(lost=False)
        if code == -_SIGHUP:
            time.sleep(REBOOT_PAUSE_S)
            with self.lock:
                if generation == self._generation:
                    self.power_on()

    def cut(self) -> dict[str, float]:
        """Cut its power. Returns the milliseconds from the call to each stage; empty if it was off."""
        with self.lock:
            self._generation += 1  # a pending reboot is off too
            if self.power is Power.OFF:
                return {}
            return self._clear(lost=True)

    def _clear(self, *, lost: bool) -> dict[str, float]:
        began = now_at()
        stages: dict[str, float] = {}

        def mark(stage: str) -> None:
            stages[stage] = (now_at() - began) / 1e6

        if lost:
            self.cgroup.freeze(frozen=True)
            mark("frozen")
            network.set_ports(self.ports, up=False)
            mark("silent")
            self.disks.lose_power()
            mark("dropped")
        self.disks.thaw()
        self.cgroup.kill()
        if self._process is not None and lost:
            self._process.wait()
        mark("dead")
        if self._watchdog is not None:
            self._watchdog.stop()
        network.remove_namespace(self._namespace)
        self.power, self.init_pid, self.is_frozen = Power.OFF, 0, False
        mark("off")
        (self.cgroup.path / "cgroup.freeze").write_text("0", encoding="ascii")
        with _mounts:
            self.disks.unmount()
        self.cgroup.remove(children_only=True)
        mark("unmounted")
        self._log.event("power.cut" if lost else "power.off", stages=stages)
        return stages

    def freeze(self, *, frozen: bool) -> None:
        """Stop every process at once (its kernel still answers pings), or let all run on."""
        with self.lock:
            self._require_on()
            self.cgroup.freeze(frozen=frozen)
            self.is_frozen = frozen

    def set_cables(self, ports: list[str], *, up: bool) -> None:
        """Pull cables, or plug them in; it stays so over power cycles."""
        with self.lock:
            self.unplugged = self.unplugged - set(ports) if up else self.unplugged | set(ports)
            if self.power is Power.ON:
                network.set_ports(ports, up=up)

    def hang(self, *, hung: bool) -> None:
        """Let nothing of it run or answer, its kernel neither, or let all go on. Its cables are in: a power cycle ends it."""
        with self.lock:
            self.freeze(frozen=hung)
            network.set_ports([p for p in self.ports if p not in self.unplugged], up=not hung)

    def set_interface(self, interface: str, *, up: bool) -> None:
        """Take a network interface down from inside, as its administrator would, or up again."""
        self._require_on()
        network.batch(self._namespace, [f"link set {interface} {'up' if up else 'down'}"])

    def unit_cgroup(self, unit: str) -> Cgroup:
        """Return the cgroup of a running unit inside it."""
        self._require_on()
        found = next(iter(sorted(self.cgroup.path.rglob(unit), key=lambda p: len(p.parts))), None)
        if found is None:
            raise Refused(f"{unit} does not run on {self.node.name}")
        return Cgroup(found)

    def _require_on(self) -> None:
        if self.power is Power.OFF:
            raise Refused(f"{self.node.name} is off")

    def watch_sysrq(self, act: Callable[[str], None]) -> None:
        """Serve /proc/sysrq-trigger of this host for ever.

        `b` resets it, `o` powers it off, and the machine below is never touched.
        """
        if not self._sysrq.exists():
            os.mkfifo(self._sysrq, 0o200)
        fd = os.open(self._sysrq, os.O_RDWR)
        while True:
            for key in os.read(fd, 1).decode(errors="replace"):
                self._log.event("sysrq", key=key)
                if key in "bo":
                    act("reset" if key == "b" else "off")
