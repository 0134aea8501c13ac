"""Runs on the client host with /opt/labtools/bin/python: a real SMTP server (aiosmtpd) that keeps every accepted mail.

argv: ADDRESS PORT FILE. A mail is accepted (250) only after its line is synced to FILE: one JSON object with the
envelope, the headers, the text and the instant of acceptance.
"""

import asyncio
import email
import email.policy
import json
import os
import sys
import time

from aiosmtpd.controller import Controller


class Keep:
    def __init__(self, path):
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)

    async def handle_DATA(self, server, session, envelope):
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        body = message.get_body(("plain", "html"))
        line = {
            "at": time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            "peer": session.peer[0],
            "mail_from": envelope.mail_from,
            "rcpt_tos": envelope.rcpt_tos,
            "headers": {k.lower(): str(v) for k, v in message.items()},
            "text": body.get_content() if body else "",
        }
        os.write(self._fd, (json.dumps(line) + "\n").encode())
        os.fsync(self._fd)
        return "250 kept"


async def main():
    Controller(Keep(sys.argv[3]), hostname=sys.argv[1], port=int(sys.argv[2])).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
