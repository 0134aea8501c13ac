"""Mail over SMTP: what a mail says, and one conversation with the server.

The line between "certainly not sent" and "perhaps sent" is the end of DATA: what breaks before it is Refused, what
breaks while the server's answer to it is awaited is Unknown. An answer that refuses is Refused wherever it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

import aiosmtplib

from futago.inventory.model import Notification
from futago.notify.model import Entry
from futago.runtime.clock import now_utc
from futago.runtime.faults import Refused, Unknown

SUBJECT_CHARS_MAX = 160
BODY_CHARS_MAX = 100_000
POLICY = SMTP.clone(cte_type="7bit")  # any server takes it
FAREWELL_S = 0.5
DUPLICATE_HEADER = "X-Futago-Possible-Duplicate"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def compose(entry: Entry, by: Notification, *, pair_name: str, pair_id: str, epoch: int) -> bytes:
    """Return the mail that tells an event, as it goes over the line. The same entry always gives the same Message-
    ID.
    """
    event = entry.event
    mail = EmailMessage(policy=POLICY)
    mail["From"] = by.sender
    mail["To"] = ", ".join(by.to)
    mail["Subject"] = _subject(entry, pair_name)
    mail["Date"] = format_datetime(now_utc())
    mail["Message-ID"] = f"<futago.{pair_id}.{entry.outbox_id}@{by.sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Futago-Event"] = str(event.event_id)
    mail["X-Futago-Epoch"] = str(epoch)
    if entry.possible_duplicate:
        mail[DUPLICATE_HEADER] = "yes"
    mail.set_content(_body(entry, pair_name))
    return mail.as_bytes()


def _subject(entry: Entry, pair_name: str) -> str:
    event = entry.event
    what = " ".join(_CONTROL.sub(" ", event.message).split()) or " on ".join(filter(None, (event.monitor, event.host)))
    return f"[{pair_name}] {event.priority.upper()}: {what}"[:SUBJECT_CHARS_MAX]


def _body(entry: Entry, pair_name: str) -> str:
    event = entry.event
    facts = {
        "When": event.occurred_utc.isoformat(sep=" ", timespec="milliseconds"),
        "Priority": event.priority,
        "Host": event.host,
        "Monitor": event.monitor,
        "Source": event.source,
        "Event": str(event.event_id),
        "Pair": f"{pair_name}, epoch {event.epoch}",
    }
    lines = [event.message[:BODY_CHARS_MAX], "", *(f"{k + ':':<10}{v}" for k, v in facts.items() if v)]
    if entry.possible_duplicate:
        lines += ["", "This may be the second mail about this event: whether an earlier one left could not be learnt."]
    return "\n".join(lines) + "\n"


async def send(mail: bytes, by: Notification, *, own_name: str) -> str:
    """Deliver a mail; return a note for people: empty, or which receivers the server refused.

    Raises:
        Refused: it was certainly not taken.
        Unknown: it may have been taken.
    """
    client = _client(by, own_name)
    is_data_under_way = False
    try:
        async with asyncio.timeout(by.timeout.total_seconds()):
            await client.connect()
            await client.mail(by.sender)
            note = await _receivers(client, by)
            is_data_under_way = True
            await client.data(mail)
        await _farewell(client)
        return note
    except aiosmtplib.SMTPResponseException as e:
        raise Refused(f"{_server(by)} answered {e.code} {' '.join(e.message.split())}") from e
    except (OSError, TimeoutError, aiosmtplib.SMTPException) as e:
        fault = Unknown if is_data_under_way else Refused
        raise fault(f"{_server(by)}: {str(e) or f'no answer within {by.timeout.total_seconds():g} s'}") from e
    finally:
        client.close()


def _client(by: Notification, own_name: str) -> aiosmtplib.SMTP:
    start_tls: bool | None = {"never": False, "offered": None, "required": True}[by.smtp.starttls]
    context = None
    if by.smtp.starttls == "offered":  # the other choice would be no encryption at all, so any certificate will do
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return aiosmtplib.SMTP(
        hostname=by.smtp.host,
        port=by.smtp.port,
        local_hostname=own_name,
        timeout=None,  # ours is around it all; theirs is asyncio.wait_for, which on Python 3.11 can swallow a cancellation
        start_tls=start_tls,
        tls_context=context,
    )


async def _farewell(client: aiosmtplib.SMTP) -> None:
    """Say goodbye as the protocol asks; the mail has been taken whatever comes of it."""
    with contextlib.suppress(OSError, aiosmtplib.SMTPException):
        async with asyncio.timeout(FAREWELL_S):
            await client.quit()


async def _receivers(client: aiosmtplib.SMTP, by: Notification) -> str:
    refused = []
    for address in by.to:
        try:
            await client.rcpt(address)
        except aiosmtplib.SMTPRecipientRefused as e:
            refused.append(f"{address}: {e.code} {' '.join(e.message.split())}")
    note = "; ".join(refused)
    if len(refused) == len(by.to):
        raise Refused(f"{_server(by)} refused every receiver: {note}")
    return f"refused by the server: {note}" if note else ""


def _server(by: Notification) -> str:
    return f"mail server {by.smtp.host}:{by.smtp.port}"
