"""What the process table says of a run's shim, and what it does not say."""

from __future__ import annotations

import subprocess
import sys

# In a process of its own: it uses up its descriptors.
AT_THE_LIMIT = """
import os, resource
from futago.agent import processes
me = processes.keeper_of(os.getpid())
soft = max(map(int, os.listdir("/proc/self/fd"))) + 8
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
try:
    print("said", processes.is_alive(me))
except OSError:
    print("not known")
os.close(held.pop())
print("watched", processes.watch(me) is not None, len(held) == len(set(held)))
os.close(held.pop())
print("said", processes.is_alive(me))
"""


def test_process_is_not_called_dead_because_no_descriptor_is_left_to_look() -> None:
    done = subprocess.run([sys.executable, "-c", AT_THE_LIMIT], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["not known", "watched False True", "said True"]
