"""Runs on the client host: starts a job net through the floating IP at a steady rate, and records each start.

Standard library only. Settings come as one JSON object in argv[1]: host, token, ca (file), net, period_s, prefix,
record (file). Each start has an Idempotency-Key and is repeated with it until it is acknowledged, through a switch too;
what was missed meanwhile is made up for at four times the rate. One line a start, written at its acknowledgement: key, run.
On SIGTERM no new start begins; the one under way is repeated until it is acknowledged.
"""

import http.client
import json
import signal
import ssl
import sys
import threading
import time

ended = threading.Event()


def start(settings, context, key):
    headers = {"Authorization": f"Bearer {settings['token']}", "Idempotency-Key": key}
    c = http.client.HTTPSConnection(settings["host"], 443, timeout=1.0, context=context)
    try:
        c.request("POST", f"/api/v1/job-nets/{settings['net']}/runs", headers=headers)
        answer = c.getresponse()
        text = answer.read()
        return json.loads(text)["session_id"] if answer.status in (200, 201) else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        c.close()


def main():
    settings = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    context = ssl.create_default_context(cafile=settings["ca"])
    context.check_hostname = False
    number, due = 0, time.monotonic()
    with open(settings["record"], "a") as out:
        print("ready", flush=True)
        while not ended.is_set():
            number += 1
            key = f"{settings['prefix']}-{number}"
            while (run := start(settings, context, key)) is None:
                time.sleep(0.05)
            out.write(f"{key} {run}\n")
            out.flush()
            due += settings["period_s"]
            ended.wait(max(settings["period_s"] / 4, due - time.monotonic()))


main()
