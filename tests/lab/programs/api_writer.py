"""Runs on the client host: posts events through the floating IP all the time, from several threads, and records each.

Standard library only. Settings come as one JSON object in argv[1]: url, token, ca (file), threads, rate (events a
second
of all threads together), record (file), prefix, connect_s, answer_s, retry_s (pause before a repetition).
Each event has an Idempotency-Key and is repeated with it until it is acknowledged. One JSON line an event, written at
its acknowledgement: key, first_at (its first request was begun), sent_at (the acknowledged request was begun),
acked_at,
attempts, status. Instants are nanoseconds of CLOCK_BOOTTIME, which all hosts of a lab share with the machine.
On SIGTERM no new event begins; those under way get `drain_s` seconds, then are written with status 0: unknown.
"""

import http.client
import json
import signal
import socket
import ssl
import sys
import threading
import time
from urllib.parse import urlsplit

ended = threading.Event()
lock = threading.Lock()


def now():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Writer:
    def __init__(self, settings, name, out):
        self._s = settings
        self._name = name
        self._out = out
        self._url = urlsplit(settings["url"])
        self._tls = ssl.create_default_context(cafile=settings["ca"])
        self._tls.check_hostname = False  # the certificate names the members; the floating IP is either of them
        self._connection = None

    def run(self):
        period = self._s["threads"] / self._s["rate"]
        due = time.monotonic()
        number = 0
        while not ended.is_set():
            due = max(due + period, time.monotonic() - period)
            ended.wait(max(0.0, due - time.monotonic()))
            if ended.is_set():
                return
            number += 1
            self._write(f"{self._s['prefix']}-{self._name}-{number}")

    def _write(self, key):
        first = now()
        attempts = 0
        status, sent = 0, first
        limit = None
        while status not in (200, 201):
            if ended.is_set():
                limit = limit or time.monotonic() + self._s["drain_s"]
                if time.monotonic() > limit:
                    break
            attempts += 1
            sent = now()
            status = self._attempt(key)
            if status not in (200, 201):
                time.sleep(self._s["retry_s"])
        line = {"key": key, "first_at": first, "sent_at": sent, "acked_at": now(), "attempts": attempts}
        with lock:
            self._out.write(json.dumps({**line, "status": status if status in (200, 201) else 0}) + "\n")
            self._out.flush()

    def _attempt(self, key):
        """Return the HTTP status, or 0."""
        headers = {
            "Authorization": f"Bearer {self._s['token']}",
            "Idempotency-Key": key,
            "Content-Type": "application/json",
        }
        body = json.dumps({"message": f"written {key}", "priority": "info"})
        try:
            c = self._connection or self._connect()
            self._connection = None
            c.request("POST", self._url.path, body=body, headers=headers)
            answer = c.getresponse()
            answer.read()
            if answer.status in (200, 201) and not answer.will_close:
                self._connection = c
            else:
                c.close()
            return answer.status
        except (OSError, http.client.HTTPException):
            return 0

    def _connect(self):
        port = self._url.port or 443
        raw = socket.create_connection((self._url.hostname, port), timeout=self._s["connect_s"])
        raw.settimeout(self._s["answer_s"])
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        c = http.client.HTTPSConnection(self._url.hostname, port, context=self._tls)
        c.sock = self._tls.wrap_socket(raw, server_hostname=self._url.hostname)
        return c


def main():
    settings = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with open(settings["record"], "a") as out:
        writers = [Writer(settings, f"w{i}", out) for i in range(settings["threads"])]
        threads = [threading.Thread(target=w.run) for w in writers]
        for t in threads:
            t.start()
        print("ready", flush=True)
        while not ended.is_set():
            ended.wait(1)
        for t in threads:
            t.join()


main()
