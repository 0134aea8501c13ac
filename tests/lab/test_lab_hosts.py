"""The lab's hosts behave like machines: real systemd, real power, real losses. Other lab tests stand on this."""

from __future__ import annotations

import json
import resource
import time

import pytest

from futago.lab.faults import FAULTS
from futago.lab.lab import Lab, LabHost
from futago.lab.patterns import PATTERNS
from futago.runtime.faults import OperatorFault, Refused

PROBE = "/var/lib/probe"


def unit(host: LabHost, name: str, service: str) -> None:
    """Install and start a unit of a multi-user machine."""
    text = f"[Unit]\nDescription=probe\n[Service]\n{service}\n[Install]\nWantedBy=multi-user.target\n"
    host.write(f"/etc/systemd/system/{name}.service", text)
    host.run(["systemctl", "daemon-reload"])
    host.run(["systemctl", "enable", "--now", name])


def show(host: LabHost, name: str, *properties: str) -> dict[str, str]:
    args = [x for p in properties for x in ("-p", p)]
    lines = host.run(["systemctl", "show", name, *args]).stdout.splitlines()
    return dict(line.split("=", 1) for line in lines)


def wait_for(what: str, true: object, *, deadline_s: float = 10) -> None:
    end = time.monotonic() + deadline_s
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, f"did not happen within {deadline_s} s: {what}"
        time.sleep(0.05)


def reaches(host: LabHost, address: str) -> bool:
    return host.run(["ping", "-c1", "-W1", "-q", address], check=False).returncode == 0


def test_every_host_boots_with_real_systemd_and_no_failed_unit(lab: Lab) -> None:
    status = lab.status()
    assert len(status["hosts"]) == 8
    assert {h["systemd"] for h in status["hosts"].values()} == {"running"}
    assert status["pair"] is None or isinstance(status["pair"], dict)


def test_multi_user_units_with_user_and_sandbox_run(lab: Lab) -> None:
    host = lab.host("host1")
    host.run(["install", "-d", "-o", "postgres", PROBE])
    sandbox = "User=postgres\nNoNewPrivileges=yes\nProtectSystem=strict\nPrivateTmp=yes\nProtectHome=yes\n"
    sandbox += "ProtectKernelTunables=yes\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n"
    sandbox += "LimitNOFILE=65536\nLimitMEMLOCK=infinity\nLimitRTPRIO=99\nOOMScoreAdjust=-900\n"
    sandbox += f"ReadWritePaths={PROBE}\n"
    code = (
        "import os,time,socket; s=socket.socket(); s.bind(('0.0.0.0',81)); r=[os.getuid(), os.listdir('/tmp')];"
        "w=lambda p: (open(p,'w').write('x'), True)[1]\n"
        "def t(p):\n  try: return w(p)\n  except OSError as e: return e.errno\n"
        f"r+=[t('/etc/x'), t('{PROBE}/x')]; open('{PROBE}/result','w').write(repr(r)); time.sleep(1000)"
    )
    host.write("/usr/local/bin/probe.py", code)
    unit(
        host,
        "sandboxed",
        f"{sandbox}ExecStart=/usr/bin/python3 /usr/local/bin/probe.py",
    )
    wait_for("the unit's report", lambda: host.run(["test", "-s", f"{PROBE}/result"], check=False).returncode == 0)
    uid = int(host.run(["id", "-u", "postgres"]).stdout)
    assert host.read(f"{PROBE}/result") == repr([uid, [], 30, True])  # 30: read-only file system
    assert show(host, "sandboxed", "ActiveState") == {"ActiveState": "active"}
    pid = show(host, "sandboxed", "MainPID")["MainPID"]
    files = next(
        line.split() for line in host.read(f"/proc/{pid}/limits").splitlines() if line.startswith("Max open files")
    )
    # A machine that is itself confined may not raise limits; systemd then takes what it can get, and starts the unit.
    assert int(files[3]) == min(65536, max(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 0) or 65536)


def test_a_notify_unit_that_falls_silent_is_killed_by_its_watchdog_and_restarted(lab: Lab) -> None:
    host = lab.host("host2")
    host.write(
        "/usr/local/bin/silent.py",
        "import socket,os,time\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\na=os.environ['NOTIFY_SOCKET']\n"
        "s.connect(chr(0)+a[1:] if a[0]=='@' else a)\ns.send(b'READY=1')\ntime.sleep(1000)\n",
    )
    unit(
        host,
        "silent",
        "Type=notify\nWatchdogSec=1\nRestart=always\nRestartSec=50ms\n"
        "ExecStart=/usr/bin/python3 /usr/local/bin/silent.py",
    )
    wait_for("a restart", lambda: int(show(host, "silent", "NRestarts")["NRestarts"]) >= 1)
    host.run(["systemctl", "disable", "--now", "silent"])


def test_a_unit_is_killed_whole_through_its_cgroup_inside_the_host(lab: Lab) -> None:
    host = lab.host("host2")
    unit(host, "forker", "ExecStart=/bin/sh -c 'sleep 1001 & sleep 1001 & wait'")
    wait_for("three processes", lambda: host.run(["pgrep", "-fc", "sleep 1001"], check=False).stdout.strip() == "3")
    host.run(["sh", "-c", "echo 1 > /sys/fs/cgroup/system.slice/forker.service/cgroup.kill"])
    wait_for("no process", lambda: host.run(["pgrep", "-f", "sleep 1001"], check=False).returncode == 1)


def test_real_time_priority_and_locked_memory_are_allowed(lab: Lab) -> None:
    code = "import ctypes,os; assert ctypes.CDLL(None).mlockall(3)==0\n"
    code += "os.sched_setscheduler(0,os.SCHED_FIFO,os.sched_param(10)); print('ok')"
    assert lab.host("m1").run(["python3", "-c", code]).stdout == "ok\n"


def test_a_host_cannot_change_the_machine_below_it(lab: Lab) -> None:
    host = lab.host("host1")
    assert host.run(["sysctl", "-w", "kernel.panic=7"], check=False).returncode != 0
    assert host.run(["sysctl", "-w", "net.ipv4.ip_forward=1"], check=False).returncode == 0  # its own network it may
    assert host.run(["sh", "-c", "echo 1 > /sys/module/printk/parameters/time"], check=False).returncode != 0


def test_exit_code_and_streams_of_a_program_in_a_host_are_passed_on(lab: Lab) -> None:
    done = lab.host("c1").run(["sh", "-c", "cat; echo err >&2; exit 7"], stdin="in", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("in", "err\n", 7)
    with pytest.raises(Refused, match="ended with 7"):
        lab.host("c1").run(["sh", "-c", "exit 7"])


def test_reboot_comes_back_and_poweroff_stays_off(healed: Lab) -> None:
    host = healed.host("host3")
    first = host.read("/proc/stat")
    boots = host.status()["boots"]
    host.fault("reboot")
    wait_for("the next boot", lambda: host.status()["boots"] == boots + 1)
    host.wait_booted()
    assert first
    host.fault("shutdown")
    wait_for("power off", lambda: not host.is_on())
    time.sleep(1.5)
    assert not host.is_on()
    with pytest.raises(Refused, match="is off"):
        host.run(["true"])


def test_power_cut_loses_what_was_not_synced_and_keeps_what_was(healed: Lab) -> None:
    host = healed.host("m1")
    code = (
        "import os,sys\nfor d in ('/var/lib/futago/pg','/var/lib'):\n"
        "  for name, sync in (('kept', True), ('lost', False)):\n"
        "    f=os.open(f'{d}/{name}', os.O_CREAT|os.O_WRONLY|os.O_TRUNC); os.write(f, b'data')\n"
        "    if sync: os.fsync(f)\n"
    )
    host.run(["sh", "-c", "rm -f /var/lib/futago/pg/* /var/lib/kept /var/lib/lost; sync"], check=False)
    host.run(["python3", "-c", code])
    done = host.power_cut()
    stages = done["stages_ms"]["m1"]
    assert list(stages) == ["frozen", "silent", "dropped", "dead", "off", "unmounted"]
    assert not host.is_on()
    host.power_on()
    host.wait_booted()
    for folder in ("/var/lib/futago/pg", "/var/lib"):
        assert host.read(f"{folder}/kept") == "data"
        assert host.run(["test", "-s", f"{folder}/lost"], check=False).returncode == 1, f"{folder}/lost survived"


def test_a_tcp_peer_sees_nothing_but_silence_after_a_power_cut(healed: Lab) -> None:
    server, client = healed.host("m2"), healed.host("c1")
    listener = server.start(
        [
            "python3",
            "-c",
            "import socket,time; s=socket.create_server(('0.0.0.0',9000))\n"
            "c,_=s.accept(); c.send(b'hi'); time.sleep(999)",
        ]
    )
    wait_for("the listener", lambda: ":9000" in server.run(["ss", "-ltn"]).stdout)
    code = (
        "import socket\ns=socket.create_connection(('10.91.1.12',9000),3)\n"
        "print(s.recv(2),flush=True); s.settimeout(4)\n"
        "try: print('saw', s.recv(1))\nexcept TimeoutError: print('silence')\nexcept OSError as e: print('saw', e)\n"
    )
    with client.start(["python3", "-c", code], stdout=-1) as peer:
        assert peer.stdout is not None
        assert peer.stdout.readline() == b"b'hi'\n"
        server.power_cut()
        assert peer.stdout.readline() == b"silence\n"
    assert listener.wait(5) != 0  # what ran in the host died with it


def test_a_cut_host_is_reachable_at_once_after_power_on(healed: Lab) -> None:
    host, peer = healed.host("m1"), healed.host("m2")
    assert reaches(peer, "10.91.1.11")
    host.power_cut()
    assert not reaches(peer, "10.91.1.11")
    host.power_on()
    assert reaches(peer, "10.91.1.11")
    assert reaches(peer, "10.91.2.11")


def ipmi(lab: Lab, *words: str, password: str | None = None, check: bool = True) -> str:
    secret = password or lab.places.bmc_password("m1").read_text().strip()
    args = [
        "ipmitool",
        "-I",
        "lanplus",
        "-C",
        "3",
        "-N",
        "1",
        "-R",
        "2",
        "-H",
        "10.91.3.101",
        "-U",
        "admin",
        "-E",
        "chassis",
        "power",
        *words,
    ]
    done = lab.host("m2").run(args, env={"IPMI_PASSWORD": secret}, check=check)
    return (done.stdout + done.stderr).strip()


def test_ipmitool_from_the_other_member_cuts_and_boots_the_host(healed: Lab) -> None:
    host = healed.host("m1")
    assert ipmi(healed, "status") == "Chassis Power is on"
    ipmi(healed, "off")
    assert not host.is_on()
    assert ipmi(healed, "status") == "Chassis Power is off"
    ipmi(healed, "on")
    assert host.is_on()
    host.wait_booted()
    boots = host.status()["boots"]
    ipmi(healed, "reset")
    assert host.status()["boots"] == boots + 1
    assert "Error" in ipmi(healed, "status", password="wrong", check=False)


def test_a_bmc_can_hang_be_unreachable_and_lie(healed: Lab) -> None:
    host = healed.host("m1")
    for fault in ("bmc-hang", "bmc-dead"):
        host.fault(fault)
        assert "Error" in ipmi(healed, "status", check=False)
        healed.heal(fault)
        wait_for(f"an answer after {fault}", lambda: ipmi(healed, "status", check=False) == "Chassis Power is on")
    host.fault("bmc-lie")
    assert "Down/Off" in ipmi(healed, "off")
    assert ipmi(healed, "status") == "Chassis Power is off"
    assert host.is_on()


def test_frozen_host_still_answers_pings_and_a_hung_kernel_does_not(healed: Lab) -> None:
    host, peer = healed.host("m1"), healed.host("m2")
    host.fault("freeze")
    assert reaches(peer, "10.91.1.11")
    healed.heal("freeze")
    host.run(["true"])
    host.fault("kernel-hang")
    assert not reaches(peer, "10.91.1.11")
    healed.heal("kernel-hang")
    assert reaches(peer, "10.91.1.11")


def test_a_hung_kernel_ends_with_a_power_cycle_and_pulled_cables_do_not(healed: Lab) -> None:
    host, peer = healed.host("m1"), healed.host("m2")
    host.fault("link-down", "hb")
    host.fault("kernel-hang")
    host.fault("power-reset")
    host.wait_booted()
    wait_for("an answer", lambda: reaches(peer, "10.91.1.11"))
    assert not reaches(peer, "10.91.2.11")
    healed.heal("link-down", "m1")
    wait_for("an answer", lambda: reaches(peer, "10.91.2.11"))


def test_network_faults_hit_what_they_name_and_nothing_else(healed: Lab) -> None:
    m1, m2 = healed.host("m1"), healed.host("m2")
    m1.fault("link-down", "hb")
    assert not reaches(m2, "10.91.2.11")
    assert reaches(m2, "10.91.1.11")
    assert m1.read("/sys/class/net/eth1/carrier").strip() == "0"
    healed.heal("link-down", "m1")
    assert reaches(m2, "10.91.2.11")

    receive = "import socket; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
    receive += "s.bind(('0.0.0.0',9001)); s.settimeout(1.5)\n"
    receive += "try: print(s.recv(9))\nexcept TimeoutError: print('none')"
    m1.fault("oneway", "m2", "svc")
    assert datagram(m1, m2, receive) == "none"
    assert datagram(m2, m1, receive) == "b'x'"
    healed.heal("oneway")
    m1.fault("isolate")
    assert not any(reaches(m2, a) for a in ("10.91.1.11", "10.91.2.11"))
    assert m1.read("/sys/class/net/eth1/carrier").strip() == "1"
    healed.heal("isolate")
    assert reaches(m2, "10.91.1.11")


def datagram(source: LabHost, target: LabHost, receive: str) -> str:
    """Send one datagram over the service network; return what the receiver prints."""
    with target.start(["python3", "-c", receive], stdout=-1) as receiver:
        wait_for("the receiver", lambda: ":9001" in target.run(["ss", "-lun"]).stdout)
        send = f"import socket; socket.socket(socket.AF_INET,socket.SOCK_DGRAM).sendto(b'x',('{target.address}',9001))"
        source.run(["python3", "-c", send])
        assert receiver.stdout is not None
        return receiver.stdout.read().decode().strip()


def test_an_unplugged_cable_stays_unplugged_over_a_power_cycle(healed: Lab) -> None:
    host = healed.host("m2")
    host.fault("link-down", "hb")
    host.fault("power-reset")
    assert not reaches(healed.host("m1"), "10.91.2.12")
    assert reaches(healed.host("m1"), "10.91.1.12")


def test_wrong_requests_are_refused_with_a_hint(lab: Lab) -> None:
    for words in (
        ("nonsense", "m1"),
        ("power-cut", "m9"),
        ("link-down", "m1"),
        ("link-down", "m1", "lan"),
        ("kill", "m1", "emacs"),
        ("bmc-hang", "host1"),
    ):
        with pytest.raises(OperatorFault) as refused:
            lab.fault(*words)
        assert refused.value.hint, words
    with pytest.raises(Refused, match="does not run"):
        lab.fault("kill", "host4", "controller")


def test_console_of_a_host_outlives_its_power(healed: Lab) -> None:
    host = healed.host("host4")
    host.run(["logger", "-t", "probe", "last words"])
    console = healed.places.host("host4") / "console.log"
    wait_for("the console", lambda: b"last words" in console.read_bytes())
    host.power_cut()
    assert b"last words" in console.read_bytes()


def test_status_is_one_json_object(lab: Lab) -> None:
    assert json.loads(json.dumps(lab.status()))["hosts"]["m1"]["addresses"] == {
        "svc": "10.91.1.11",
        "hb": "10.91.2.11",
        "bmc": "10.91.3.11",
    }


def test_the_databases_volume_can_hang_be_full_and_be_lost(healed: Lab) -> None:
    host = healed.host("m2")
    write = ["sh", "-c", "echo x > /var/lib/futago/pg/written && sync /var/lib/futago/pg/written"]
    host.run(write)
    host.fault("disk-hang")
    waiting = host.start(write)
    time.sleep(0.5)
    assert waiting.poll() is None
    healed.heal("disk-hang")
    assert waiting.wait(10) == 0
    host.fault("disk-full")
    assert (
        "No space left"
        in host.run(["dd", "if=/dev/zero", "of=/var/lib/futago/pg/more", "bs=64k", "count=9"], check=False).stderr
    )
    healed.heal("disk-full")
    host.run(write)
    host.fault("disk-detach")
    assert "Input/output error" in host.run(write, check=False).stderr
    host.run(["sh", "-c", "echo x > /var/lib/elsewhere"])  # the system's own disk is well
    host.fault("power-reset")
    host.wait_booted()
    host.run(write)


def test_a_host_whose_volume_hangs_can_be_cut_and_booted(healed: Lab) -> None:
    host = healed.host("m2")
    host.fault("disk-hang")
    host.start(["sh", "-c", "echo x > /var/lib/futago/pg/hanging"])
    time.sleep(0.3)
    host.power_cut()
    host.power_on()
    host.wait_booted()
    host.run(["sh", "-c", "echo x > /var/lib/futago/pg/written"])


def test_an_interface_can_go_down_or_deaf_and_come_back(healed: Lab) -> None:
    m1, m2 = healed.host("m1"), healed.host("m2")
    for fault in ("nic-down", "nic-deaf"):
        m1.fault(fault, "svc")
        assert not reaches(m2, "10.91.1.11")
        assert reaches(m2, "10.91.2.11")
        healed.heal(fault)  # a kernel takes up to a second to believe in its carrier again
        wait_for("the way back", lambda: reaches(m2, "10.91.1.11"))


def test_a_program_killed_for_good_stays_dead_until_healed(healed: Lab) -> None:
    host = healed.host("host3")
    unit(host, "futago-agent", "ExecStart=/bin/sleep 1000\nRestart=always\nRestartSec=50ms")
    host.fault("kill", "agent")
    wait_for(
        "a restart",
        lambda: show(host, "futago-agent", "ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "1"},
    )
    host.fault("kill-for-good", "agent")
    time.sleep(0.5)
    assert show(host, "futago-agent", "ActiveState")["ActiveState"] == "failed"
    healed.heal("kill-for-good")
    wait_for("its start", lambda: show(host, "futago-agent", "ActiveState")["ActiveState"] == "active")
    host.run(["systemctl", "disable", "--now", "futago-agent"])
    host.run(["rm", "/etc/systemd/system/futago-agent.service"])


def test_every_failure_pattern_names_a_fault_of_the_table() -> None:
    for pattern, steps in PATTERNS.items():
        for name, target, words in steps:
            assert len(words) == len(FAULTS[name].words), pattern
            assert target in ("primary", "standby", "both")
    assert {p.partition("-")[0] for p in PATTERNS} == {f"F{n:02}" for n in range(1, 28)}
