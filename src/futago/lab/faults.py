"""The table of faults: what can be done to a lab, and how each is healed. A new fault is a new row.

Runs inside the daemon. Every row's `begin` returns the instants worth knowing (milliseconds from the call); benches
measure from the answer's `at`.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from futago.lab import clock, machine
from futago.lab import faults_disk as disk
from futago.lab import faults_network as net
from futago.lab.faults_network import Act, Stages
from futago.lab.host import Power
from futago.runtime.clock import now_at
from futago.runtime.faults import OperatorFault, Refused

if TYPE_CHECKING:
    from futago.lab.daemon import Daemon

PROGRAMS = ("controller", "receiver", "guard", "manager", "web", "postgres", "agent")


@dataclass(frozen=True, slots=True)
class Fault:
    """One row.

    Args:
        words: what the arguments after the target mean, such as ("network",).
        text: one line for `futago lab fault --list`.
        begin: do it.
        end: heal it; None where there is nothing to heal.
    """

    words: tuple[str, ...]
    text: str
    begin: Act
    end: Act | None = None


def _power_cut(d: Daemon, host: str, _: list[str]) -> Stages:
    return d.host(host).cut()


def _power_on(d: Daemon, host: str, _: list[str]) -> Stages:
    d.host(host).power_on()
    return {}


def _power_reset(d: Daemon, host: str, _: list[str]) -> Stages:
    stages = d.host(host).cut()
    d.host(host).power_on()
    return stages


def _freeze(d: Daemon, host: str, _: list[str]) -> Stages:
    d.host(host).freeze(frozen=True)
    return {}


def _thaw(d: Daemon, host: str, _: list[str]) -> Stages:
    if d.host(host).is_frozen:
        d.host(host).freeze(frozen=False)
    return {}


def _kernel_hang(d: Daemon, host: str, _: list[str]) -> Stages:
    d.host(host).hang(hung=True)
    return {}


def _kernel_resume(d: Daemon, host: str, _: list[str]) -> Stages:
    if d.host(host).is_frozen:
        d.host(host).hang(hung=False)
    return {}


def _unit(words: list[str]) -> str:
    if words[0] not in PROGRAMS:
        raise OperatorFault(
            f"`{words[0]}` is not one of the product's programs.",
            hint=f"They are {', '.join(PROGRAMS)}.",
            code="lab.program",
        )
    return f"futago-{words[0]}.service"


def _kill(d: Daemon, host: str, words: list[str]) -> Stages:
    cgroup = d.host(host).unit_cgroup(_unit(words))
    if not cgroup.pids():
        raise Refused(f"{words[0]} does not run on {host}")
    (cgroup.path / "cgroup.kill").write_text("1", encoding="ascii")
    return {}


def _signal(d: Daemon, host: str, words: list[str], number: signal.Signals) -> Stages:
    for pid in d.host(host).unit_cgroup(_unit(words)).pids():
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
    return {}


def _main(d: Daemon, host: str, words: list[str]) -> int:
    pids = set(d.host(host).unit_cgroup(_unit(words)).pids())
    for pid in pids:
        if machine.parent(pid) not in pids:  # systemd's own child
            return pid
    raise Refused(f"{words[0]} does not run on {host}")


def _kill_main(d: Daemon, host: str, words: list[str]) -> Stages:
    os.kill(_main(d, host, words), signal.SIGKILL)
    return {}


KILLS, KILL_EVERY_S = 8, 0.4


def _kill_again(d: Daemon, host: str, words: list[str]) -> Stages:
    """As soon as it is back, again: more often than its guard forgives."""
    stages: Stages = {}
    began = now_at()
    for number in range(1, KILLS + 1):
        with suppress(Refused):  # it is not back yet
            _kill(d, host, words)
            stages[f"kill {number}"] = (now_at() - began) / 1e6
        time.sleep(KILL_EVERY_S)
    return stages


def _stop(d: Daemon, host: str, words: list[str]) -> Stages:
    return _signal(d, host, words, signal.SIGSTOP)


def _stop_main(d: Daemon, host: str, words: list[str]) -> Stages:
    os.kill(_main(d, host, words), signal.SIGSTOP)
    return {}


def _stop_checkpointer(d: Daemon, host: str, _: list[str]) -> Stages:
    """PostgreSQL names its processes by what they are, in their command line."""
    for pid in d.host(host).unit_cgroup(_unit(["postgres"])).pids():
        with suppress(FileNotFoundError, ProcessLookupError):
            if b"checkpointer" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGSTOP)
                return {}
    raise Refused(f"no checkpointer runs on {host}")


def _checkpointer_on(d: Daemon, host: str, _: list[str]) -> Stages:
    return _continue(d, host, ["postgres"])


def _continue(d: Daemon, host: str, words: list[str]) -> Stages:
    try:
        return _signal(d, host, words, signal.SIGCONT)
    except Refused:  # it is gone, or its host is off: there is nothing left to heal
        return {}


def _reboot(d: Daemon, host: str, _: list[str]) -> Stages:
    d.inside(host, "systemctl", "--no-block", "reboot")
    return {}


def _shutdown(d: Daemon, host: str, _: list[str]) -> Stages:
    d.inside(host, "systemctl", "--no-block", "poweroff")
    return {}


def _bmc_hang(d: Daemon, host: str, _: list[str]) -> Stages:
    d.bmc(host).hang(hung=True)
    return {}


def _bmc_unhang(d: Daemon, host: str, _: list[str]) -> Stages:
    d.bmc(host).hang(hung=False)
    return {}


def _bmc_service_hang(d: Daemon, host: str, words: list[str]) -> Stages:
    d.bmc(host).hang(hung=True, service=words[0])
    return {}


def _bmc_service_unhang(d: Daemon, host: str, words: list[str]) -> Stages:
    d.bmc(host).hang(hung=False, service=words[0])
    return {}


def _bmc_lie(d: Daemon, host: str, _: list[str]) -> Stages:
    d.bmc(host).lies = True
    return {}


def _bmc_truth(d: Daemon, host: str, _: list[str]) -> Stages:
    d.bmc(host).lies = False
    return {}


_bmc_dead, _bmc_undead = net.losing("bmc-dead", net.bmc)


def _zone_lost(d: Daemon, host: str, words: list[str]) -> Stages:
    _bmc_dead(d, host, words)
    return d.host(host).cut()


def _zone_back(d: Daemon, host: str, words: list[str]) -> Stages:
    _bmc_undead(d, host, words)
    return _power_on(d, host, words)


_DROP_IN = "/run/systemd/system/{unit}.d/lab-stay-dead.conf"


def _kill_for_good(d: Daemon, host: str, words: list[str]) -> Stages:
    unit = _unit(words)
    script = 'mkdir -p "${0%/*}" && printf "[Service]\\nRestart=no\\n" > "$0" && systemctl daemon-reload'
    d.inside(host, "sh", "-c", script, _DROP_IN.format(unit=unit))
    return _kill(d, host, words)


def _alive_again(d: Daemon, host: str, words: list[str]) -> Stages:
    unit = _unit(words)
    try:
        d.inside(host, "sh", "-c", 'rm -f "$0" && systemctl daemon-reload', _DROP_IN.format(unit=unit))
        d.inside(host, "systemctl", "--no-block", "start", unit)
    except (OperatorFault, Refused):  # it is off: the drop-in went with its power
        pass
    return {}


def _clock_shim(d: Daemon, host: str, _: list[str]) -> Stages:
    d.inside(host, "true")  # it must be on
    clock.install(d.host(host).disks.root)
    d.inside(host, "systemctl", "daemon-reload")
    d.inside(host, "sync")  # a power cut comes next, perhaps
    return {}


def _clock_unshim(d: Daemon, host: str, _: list[str]) -> Stages:
    found = d.host(host)
    if found.power is Power.ON:
        clock.jump(found.disks.root, 0)
        clock.remove(found.disks.root)
        d.inside(host, "systemctl", "daemon-reload")
    return {}


def _clock_jump(d: Daemon, host: str, words: list[str]) -> Stages:
    found = d.host(host)
    if not any(clock.is_read_by(pid) for pid in found.unit_cgroup("futago-controller.service").pids()):
        raise OperatorFault(
            f"The programs of {host} read the machine's own clock.",
            hint=f"Run `futago lab fault clock-shim {host}`, reboot {host}, and try again.",
            code="lab.clock",
        )
    clock.jump(found.disks.root, float(words[0]))
    return {}


def _clock_right(d: Daemon, host: str, _: list[str]) -> Stages:
    found = d.host(host)
    if found.power is Power.ON:
        clock.jump(found.disks.root, 0)
    return {}


FAULTS: dict[str, Fault] = {
    "power-cut": Fault((), "the host loses its power, and what it had not synced", _power_cut, _power_on),
    "power-on": Fault((), "press the power button of a host that is off", _power_on),
    "power-reset": Fault((), "power cut and power on at once", _power_reset),
    "reboot": Fault((), "the host's own orderly reboot", _reboot),
    "shutdown": Fault((), "the host's own orderly power-off", _shutdown, _power_on),
    "freeze": Fault((), "every process of the host stops; its kernel still answers pings", _freeze, _thaw),
    "kernel-hang": Fault((), "nothing of the host runs or answers any more", _kernel_hang, _kernel_resume),
    "link-down": Fault(("network",), "pull the cable of one network: svc, hb or bmc", net.link_down, net.link_up),
    "isolate": Fault(
        (), "every network of the host loses everything silently, both ways", *net.losing("isolate", net.everything)
    ),
    "mute": Fault(
        (), "every network of the host loses silently what the host sends", *net.losing("mute", net.what_it_sends)
    ),
    "deaf": Fault(
        (), "every network of the host loses silently what is sent to it", *net.losing("deaf", net.what_it_is_sent)
    ),
    "oneway": Fault(
        ("to", "network"),
        "frames from the host to another one are lost silently, in this direction only",
        *net.losing("oneway", net.to_another),
    ),
    "kill": Fault(("program",), "SIGKILL to every process of a program's unit", _kill),
    "kill-main": Fault(("program",), "SIGKILL to a program's first process only; its children stay", _kill_main),
    "kill-again": Fault(("program",), "SIGKILL to a program's unit, eight times within four seconds", _kill_again),
    "stop": Fault(("program",), "SIGSTOP to every process of a program's unit", _stop, _continue),
    "stop-main": Fault(
        ("program",), "SIGSTOP to a program's first process only; its children go on", _stop_main, _continue
    ),
    "stop-checkpointer": Fault(
        (),
        "SIGSTOP to PostgreSQL's checkpointer only: changed settings take no effect",
        _stop_checkpointer,
        _checkpointer_on,
    ),
    "bmc-hang": Fault((), "the host's BMC stops answering, its network stays", _bmc_hang, _bmc_unhang),
    "bmc-service-hang": Fault(
        ("service",),
        "one service of the host's BMC stops answering: ipmi, redfish",
        _bmc_service_hang,
        _bmc_service_unhang,
    ),
    "bmc-dead": Fault((), "the host's BMC cannot be reached", _bmc_dead, _bmc_undead),
    "bmc-lie": Fault((), "the host's BMC confirms power off without doing it", _bmc_lie, _bmc_truth),
    "nic-down": Fault(("network",), "an interface is taken down inside the host", net.nic_down, net.nic_up),
    "nic-deaf": Fault(
        ("network",),
        "one network of the host loses everything silently; carrier stays",
        *net.losing("nic-deaf", net.one_network),
    ),
    "nic-out-lost": Fault(
        ("network",),
        "one network of the host loses silently what the host sends",
        *net.losing("nic-out-lost", net.what_it_sends),
    ),
    "nic-in-lost": Fault(
        ("network",),
        "one network of the host loses silently what is sent to it",
        *net.losing("nic-in-lost", net.what_it_is_sent),
    ),
    "address-gone": Fault((), "the floating IP is deleted from the host's interface", net.address_gone),
    "kill-for-good": Fault(
        ("program",), "as kill, and systemd is kept from restarting it", _kill_for_good, _alive_again
    ),
    "disk-hang": Fault((), "writes to the database's volume wait for ever", disk.disk_hang, disk.disk_unhang),
    "disk-detach": Fault((), "every access to the volume fails; healed by a reboot", disk.disk_detach, disk.attach),
    "device-hang": Fault((), "the block device of a remote volume does not answer", disk.device_hang, disk.disk_unhang),
    "device-gone": Fault(
        (), "the block device of a remote volume fails; healed by a reboot", disk.device_gone, disk.attach
    ),
    "disk-full": Fault((), "the database's volume has no room left", disk.disk_full, disk.disk_roomy),
    "root-full": Fault(
        (), "the file system of everything but the database has no room left", disk.root_full, disk.root_roomy
    ),
    "clock-shim": Fault((), "from its reboot on, the host's clock can be set apart", _clock_shim, _clock_unshim),
    "clock-jump": Fault(
        ("seconds",), "the wall clock of the product's programs is so far from the truth", _clock_jump, _clock_right
    ),
    "replication-cut": Fault(
        (),
        "the database's own connections of the host are lost silently",
        *net.losing("replication-cut", net.replication),
    ),
    "zone-lost": Fault((), "the host and its BMC are gone together", _zone_lost, _zone_back),
}
