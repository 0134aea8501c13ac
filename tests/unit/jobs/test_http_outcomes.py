"""What a request is called that got no answer: not sent, sent and harmless to repeat, or unknown."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest

from futago.jobs import http_run
from futago.jobs.http_call import Request
from futago.link.orders import Outcome, RunEnded

asked: list[bytes] = []


@pytest.fixture
async def silent() -> AsyncIterator[int]:
    """The port of a server that takes each request and hangs up without a word."""
    asked.clear()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"once"))
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def ended(port: int, *, may_repeat: bool) -> RunEnded:
    request = Request(f"http://127.0.0.1:{port}/", "POST", {}, "once", 30.0)
    return await http_run.run("r", request, asyncio.Event(), may_repeat=may_repeat)


async def test_request_that_was_sent_and_not_answered_is_unknown_unless_it_may_be_repeated(silent: int) -> None:
    said = await ended(silent, may_repeat=False)
    assert said.outcome is Outcome.UNKNOWN and said.exit_code is None and said.detail, said
    again = await ended(silent, may_repeat=True)
    assert again.outcome is Outcome.TIMED_OUT and again.detail, again
    assert len(asked) == 2


async def test_request_that_certainly_was_not_sent_has_not_started(
    silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for may_repeat in (False, True):
        said = await ended(1, may_repeat=may_repeat)
        assert said.outcome is Outcome.NOT_STARTED and "ConnectError" in said.detail
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    said = await ended(silent, may_repeat=False)
    assert said.outcome is Outcome.NOT_STARTED and "helper process" in said.detail
    assert asked == []


async def test_request_that_is_stopped_before_it_begins_is_not_made(silent: int) -> None:
    stop = asyncio.Event()
    stop.set()
    request = Request(f"http://127.0.0.1:{silent}/", "POST", {}, "once", 30.0)
    said = await http_run.run("r", request, stop, may_repeat=False)
    assert said.outcome is Outcome.NOT_STARTED and asked == []


async def test_helper_that_dies_leaves_an_unrepeatable_request_unknown(
    silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    said = await ended(silent, may_repeat=False)
    assert said.outcome is Outcome.UNKNOWN and "helper process broke" in said.detail
