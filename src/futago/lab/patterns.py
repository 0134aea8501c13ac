"""The failure patterns that every release is measured against, as steps of faults. Data only.

`futago lab fault F04` does the steps of F04. A pattern that has several forms has one row for each: the plain name is
the plainest form.
"""

from __future__ import annotations

Step = tuple[str, str, tuple[str, ...]]  # fault, target, words


def _one(fault: str, target: str, *words: str) -> tuple[Step, ...]:
    return ((fault, target, words),)


PATTERNS: dict[str, tuple[Step, ...]] = {
    "F01": _one("power-cut", "primary"),
    "F02": _one("shutdown", "primary"),
    "F03": _one("reboot", "primary"),
    "F04": _one("freeze", "primary"),
    "F04-kernel": _one("kernel-hang", "primary"),
    # Nobody can power it off: it comes back to life when it is thawed.
    "F04-unfenced": (("bmc-dead", "primary", ()), ("freeze", "primary", ())),
    "F04-kernel-unfenced": (("bmc-dead", "primary", ()), ("kernel-hang", "primary", ())),
    "F05": _one("isolate", "primary"),
    "F05-unfenced": (("bmc-dead", "primary", ()), ("isolate", "primary", ())),
    "F05-out": _one("mute", "primary"),
    "F05-in": _one("deaf", "primary"),
    "F05-svc-out": _one("oneway", "primary", "standby", "svc"),
    "F05-svc-in": _one("oneway", "standby", "primary", "svc"),
    "F05-hb-out": _one("oneway", "primary", "standby", "hb"),
    "F05-hb-in": _one("oneway", "standby", "primary", "hb"),
    "F05-nic-out": _one("nic-out-lost", "primary", "svc"),
    "F05-nic-in": _one("nic-in-lost", "primary", "svc"),
    "F05-bmc-out": _one("nic-out-lost", "primary", "bmc"),
    "F05-bmc-in": _one("nic-in-lost", "primary", "bmc"),
    "F06": _one("nic-down", "primary", "svc"),
    "F07": _one("nic-deaf", "primary", "svc"),
    "F08": _one("address-gone", "primary"),
    "F09": _one("stop", "primary", "manager"),
    "F09-web": _one("stop", "primary", "web"),
    "F10": _one("kill", "primary", "controller"),
    "F10-stop": _one("stop", "primary", "controller"),
    "F10-again": _one("kill-again", "primary", "controller"),
    "F11": _one("kill-for-good", "primary", "controller"),
    "F12": _one("power-cut", "standby"),
    "F13": _one("shutdown", "standby"),
    "F14": _one("reboot", "standby"),
    "F15": _one("freeze", "standby"),
    "F15-kernel": _one("kernel-hang", "standby"),
    "F16": _one("isolate", "standby"),
    "F16-out": _one("mute", "standby"),
    "F16-in": _one("deaf", "standby"),
    "F17": _one("nic-deaf", "standby", "svc"),
    "F18": _one("kill", "standby", "controller"),
    "F18-stop": _one("stop", "standby", "controller"),
    "F18-again": _one("kill-again", "standby", "controller"),
    "F19": _one("stop", "primary", "postgres"),
    "F19-main": _one("stop-main", "primary", "postgres"),
    # Its settings take no effect: commits go on waiting for a member that is gone.
    "F19-checkpointer": (("stop-checkpointer", "primary", ()), ("power-cut", "standby", ())),
    "F19-killed": _one("kill", "primary", "postgres"),
    "F19-postmaster": _one("kill-main", "primary", "postgres"),
    "F20": _one("disk-hang", "primary"),
    "F20-errors": _one("disk-detach", "primary"),
    "F21": _one("device-gone", "primary"),
    "F21-hang": _one("device-hang", "primary"),
    "F22": _one("replication-cut", "standby"),
    "F22-full": _one("disk-full", "standby"),
    "F22-hang": _one("disk-hang", "standby"),
    "F23": _one("disk-full", "primary"),
    "F23-root": _one("root-full", "primary"),
    "F23-root-standby": _one("root-full", "standby"),
    "F24": _one("zone-lost", "primary"),
    "F24-standby": _one("zone-lost", "standby"),
    "F25": _one("power-cut", "both"),
    "F26": _one("clock-jump", "primary", "3600"),
    "F26-back": _one("clock-jump", "primary", "-3600"),
    "F26-standby": _one("clock-jump", "standby", "3600"),
    "F26-standby-back": _one("clock-jump", "standby", "-3600"),
    "F27": _one("link-down", "primary", "hb"),
    "F27-svc": _one("link-down", "primary", "svc"),
    "F27-standby-hb": _one("link-down", "standby", "hb"),
}
