"""The helper process of an HTTP job: one request, described on standard input, answered on standard output.

A process of its own, so that a server that hangs, or answers with gigabytes, hurts nobody else: the manager kills it
when its time is over. Nothing secret is in its arguments.
"""

from __future__ import annotations

import sys

import msgspec

BODY_BYTES_MAX = 16 * 1024  # of the answer, the beginning


class Request(msgspec.Struct, frozen=True):
    """What to ask for. Redirects are not followed: their status is the answer."""

    url: str
    method: str
    headers: dict[str, str]
    body: str
    timeout_s: float


class Answer(msgspec.Struct, frozen=True):
    """What came of it. `status` 0: no answer, and `fault` says why; `was_sent` False: certainly nothing was asked."""

    status: int = 0
    body: str = ""
    body_bytes: int = 0
    fault: str = ""
    was_sent: bool = True


def call(request: Request) -> Answer:
    """Make the request."""
    import httpx  # here: the manager knows the shapes only, and is to start quickly

    content = request.body.encode() or None
    timeout = httpx.Timeout(request.timeout_s)
    try:
        with (
            httpx.Client(timeout=timeout, trust_env=False) as client,
            client.stream(request.method, request.url, headers=request.headers, content=content) as response,
        ):
            kept = b""
            size = 0
            for chunk in response.iter_bytes():
                size += len(chunk)
                kept += chunk[: BODY_BYTES_MAX - len(kept)]
                if size > (64 << 20):
                    break
            text = kept.decode(response.encoding or "utf-8", "replace").replace("\0", "\ufffd")
            return Answer(response.status_code, text, size)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL) as e:
        return Answer(fault=f"{type(e).__name__}: {e}", was_sent=False)
    except (httpx.HTTPError, LookupError) as e:
        return Answer(fault=f"{type(e).__name__}: {e}")


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(call(msgspec.json.decode(sys.stdin.buffer.read(), type=Request))))
