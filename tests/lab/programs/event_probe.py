"""Runs on the client host: sends numbered syslog datagrams to both members without pause, and reads the events that
they make through the floating IP, so the time from a message to its event is measured outside the product.

Standard library only. Settings come as one JSON object in argv[1]: members (addresses), url (of /api/v1/events), token,
ca (file), monitor, prefix, period_s (between two messages, and between two looks), record (file).
One JSON line a message whose event was seen: number, sent_at, seen_at; instants are nanoseconds of CLOCK_BOOTTIME, which
all hosts of a lab share with the machine. A message whose event is not seen within the run has no line.
"""

import contextlib
import http.client
import json
import signal
import socket
import ssl
import sys
import threading
import time
from urllib.parse import urlencode, urlsplit

ANSWER_S = 1.0
CONNECT_S = 0.15
PAGE = 1000
AGAIN = 200  # ids are drawn before their transactions commit: what is below the newest is read again

ended = threading.Event()
sent = {}


def now():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def send(settings):
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    number = 0
    while not ended.wait(settings["period_s"]):
        number += 1
        sent[number] = now()
        for member in settings["members"]:
            with contextlib.suppress(OSError):  # its host is off: the other member has the copy
                out.sendto(f"<14>probe: SEQ={settings['prefix']}-{number}".encode(), (member, 514))


class Reader:
    def __init__(self, settings):
        self._s = settings
        self._url = urlsplit(settings["url"])
        self._tls = ssl.create_default_context(cafile=settings["ca"])
        self._tls.check_hostname = False  # the certificate names the members; the floating IP is either of them
        self._connection = None

    def page(self, **query):
        """Return the events of one page, or None: nobody answered."""
        path = f"{self._url.path}?{urlencode({'monitor': self._s['monitor'], **query})}"
        try:
            c = self._connection or self._connect()
            self._connection = None
            c.request("GET", path, headers={"Authorization": f"Bearer {self._s['token']}"})
            answer = c.getresponse()
            body = answer.read()
            if answer.status != 200:
                c.close()
                return None
            self._connection = c
            return json.loads(body)["events"]
        except (OSError, ValueError, http.client.HTTPException):
            return None

    def _connect(self):
        port = self._url.port or 443
        raw = socket.create_connection((self._url.hostname, port), timeout=CONNECT_S)
        raw.settimeout(ANSWER_S)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        c = http.client.HTTPSConnection(self._url.hostname, port, context=self._tls)
        c.sock = self._tls.wrap_socket(raw, server_hostname=self._url.hostname)
        return c


def main():
    settings = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    reader = Reader(settings)
    newest = None
    while newest is None and not ended.is_set():
        found = reader.page(order="desc", limit=1)
        newest = None if found is None else (found[0]["event_id"] if found else 0)
    seen = set()
    threading.Thread(target=send, args=[settings]).start()
    print("ready", flush=True)
    with open(settings["record"], "w") as out:
        while not ended.wait(settings["period_s"]):
            for event in reader.page(after=max(0, newest - AGAIN), limit=PAGE) or ():
                newest = max(newest, event["event_id"])
                prefix, _, number = event["message"].rpartition("-")
                if prefix == settings["prefix"] and int(number) not in seen:
                    seen.add(int(number))
                    line = {"number": int(number), "sent_at": sent[int(number)], "seen_at": now()}
                    out.write(json.dumps(line) + "\n")
                    out.flush()


main()
