"""The application on the bench, and clients of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

import web_bench
from futago.web.app import make_app
from web_bench import Bench, NewClient

SERVES_WITHIN_S = 60.0


@pytest.fixture
async def bench(database: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """The web program of member m1, which serves."""
    async with web_bench.bench(database, tmp_path) as running:
        yield running


@pytest.fixture
async def new_client(bench: Bench) -> AsyncIterator[NewClient]:
    """Makes clients without a login; `new_client(token=...)` gives one with a token."""
    opened: list[httpx.AsyncClient] = []
    app = await asyncio.to_thread(make_app, bench.rooms)  # takes a while, and the program's loops go on beside it

    def make(token: str = "") -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, client=("192.0.2.7", 40000))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        client = httpx.AsyncClient(transport=transport, base_url="https://m1.test", headers=headers)
        opened.append(client)
        return client

    yield make
    for client in opened:
        await client.aclose()


@pytest.fixture
def stranger(new_client: NewClient) -> httpx.AsyncClient:
    """A client that has shown nothing."""
    return new_client()


@pytest.fixture
def api(new_client: NewClient) -> httpx.AsyncClient:
    """A client with the administrator's token."""
    return new_client(web_bench.TOKEN)


@pytest.fixture
async def person(new_client: NewClient) -> httpx.AsyncClient:
    """A client with a login; its changing requests carry the CSRF token."""
    client = new_client()
    end = time.monotonic() + SERVES_WITHIN_S
    while True:  # on a busy machine the member may lose its role for an instant
        answer = await client.post("/api/v1/login", json={"account": "admin", "password": web_bench.PASSWORD})
        if answer.status_code != 503 or time.monotonic() > end:
            break
        await asyncio.sleep(0.1)
    assert answer.status_code == 200, answer.text
    client.headers["X-CSRF-Token"] = answer.json()["csrf_token"]
    return client
