"""Runs on a sending host of the lab: feeds numbered messages to real senders at a steady rate, and keeps the sent log.

Standard library only. Settings come as one JSON object in argv[1]:
    mode     "rsyslog": into a real rsyslogd's local socket, which has a queue for each target;
             "logger": into one real `logger` a target (udp or tcp), each behind a queue of its own;
             "trap": one net-snmp `snmptrap` process a target and number.
    stream   name of the stream; a message holds SEQ=<stream>-<number>
    rate     messages a second
    targets  addresses of the members
    log      the sent log: one number a line, written when the number was handed over
    socket   (rsyslog) its local socket        protocol  (logger) "udp" or "tcp"
Ends on SIGTERM: what stands in a queue is handed over first, for a bounded time.
"""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time

DRAIN_S = 5.0
QUEUE_MAX = 1_000_000  # of one target; hours of one stream
TRAPS_AT_ONCE = 16
TICK_S = 0.005

TRAP_OID = "1.3.6.1.4.1.55555.1"
SEQ_OID = "1.3.6.1.4.1.55555.1.1"

ended = threading.Event()


class Rsyslog:
    """Hands over to rsyslogd through its socket; waits when that is full, so nothing is lost on the way."""

    def __init__(self, settings):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.connect(settings["socket"])
        self._stream = settings["stream"]

    def send(self, number):
        stamp = time.strftime("%b %e %H:%M:%S")
        self._socket.send(f"<134>{stamp} night[{os.getpid()}]: order SEQ={self._stream}-{number} done".encode())

    def drain(self):
        pass


class Logger:
    """Hands over to `logger`. No time in the message: two loggers would write two times, so two messages."""

    def __init__(self, settings):
        self._stream = settings["stream"]
        self._queues = []
        for target in settings["targets"]:
            q = queue.Queue(QUEUE_MAX)
            self._queues.append(q)
            threading.Thread(target=self._pump, args=(q, target, settings["protocol"]), daemon=True).start()

    def send(self, number):
        line = f"order SEQ={self._stream}-{number} done\n".encode()
        for q in self._queues:
            q.put(line)

    def _pump(self, q, target, protocol):
        logger = None
        line = None
        while True:
            line = line or q.get()
            if logger is None or logger.poll() is not None:
                logger = self._start(target, protocol)
            try:
                logger.stdin.write(line)
                if q.empty():
                    logger.stdin.flush()
                line = None
            except (BrokenPipeError, OSError):
                logger = None
                time.sleep(0.2)

    @staticmethod
    def _start(target, protocol):
        args = ["logger", "-n", target, "-P", "514", "--udp" if protocol == "udp" else "--tcp"]
        args += ["--rfc5424=notime,nohost,notq", "-t", "night", "-p", "local0.info"]
        return subprocess.Popen(args, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=65536)

    def drain(self):
        end = time.monotonic() + DRAIN_S
        while any(not q.empty() for q in self._queues) and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.3)


class Trap:
    """Starts `snmptrap`, one process a target. The up-time is given, so that both copies are the same trap."""

    def __init__(self, settings):
        self._stream = settings["stream"]
        self._targets = settings["targets"]
        self._slots = threading.Semaphore(TRAPS_AT_ONCE)

    def send(self, number):
        children = []
        for target in self._targets:
            args = ["snmptrap", "-m", "", "-v", "2c", "-c", "public", f"{target}:162", str(number), TRAP_OID]
            args += [SEQ_OID, "s", f"SEQ={self._stream}-{number}"]
            self._slots.acquire()
            children.append(subprocess.Popen(args, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        for child in children:
            threading.Thread(target=self._reap, args=(child,), daemon=True).start()

    def _reap(self, child):
        child.wait()
        self._slots.release()

    def drain(self):
        for _ in range(TRAPS_AT_ONCE):
            self._slots.acquire(timeout=DRAIN_S)


def main():
    settings = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    sender = {"rsyslog": Rsyslog, "logger": Logger, "trap": Trap}[settings["mode"]](settings)
    number, began = 0, time.monotonic()
    with open(settings["log"], "a", buffering=1 << 16) as log:
        while not ended.is_set():
            due = int((time.monotonic() - began) * settings["rate"])
            if number >= due:
                log.flush()
                ended.wait(TICK_S)
                continue
            while number < due and not ended.is_set():
                number += 1
                sender.send(number)
                log.write(f"{number}\n")
        sender.drain()
    print(number, flush=True)


main()
