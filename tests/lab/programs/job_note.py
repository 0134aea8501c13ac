"""Runs on a managed host as the first act of a job's command: notes the start durably, outside the product.

argv: NAME. Appends one line, synced before it returns: run id (from the environment), NAME, pid of the job's shell,
boot (start of this host's init), nanoseconds since boot of the machine.
"""

import os
import sys
import time

START_FILE = "/var/log/job-starts"

with open("/proc/1/stat") as f:
    boot = f.read().rsplit(")", 1)[1].split()[19]
at = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
line = f"{os.environ.get('FUTAGO_RUN_ID', '-')} {sys.argv[1]} {os.getppid()} {boot} {at}\n"
fd = os.open(START_FILE, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
os.write(fd, line.encode())
os.fsync(fd)
