"""The page of received messages in a real browser: search, and a live view that goes on behind a switch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from journals import Journal
from playwright.async_api import Browser, Page, expect
from test_browser_page import _complaints, _logged_in, _shot, browser, pair, pytestmark  # noqa: F401  the fixtures

from futago.intake import kept
from futago.intake.kept import Kept
from futago.setup import paths
from futago.store.commit import Connection
from web_bench import SERVING
from web_twins import Twins


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    """The journal of both members: what devices send is on each."""
    monkeypatch.setattr(paths, "JOURNAL_OWN", tmp_path / "own")
    monkeypatch.setattr(paths, "JOURNAL_PEER", tmp_path / "peer")
    made = Journal(tmp_path / "own")
    made.add(b"<13>before")
    yield made
    made.close()


async def _heard(page: Page, journal: Journal, word: bytes) -> None:
    """Let lines come until the page shows one: it shows what comes from the moment at which its stream is open."""
    for n in range(60):
        journal.add(b"<13>%s %d" % (word, n), time_ns=time.time_ns())
        with suppress(AssertionError):
            return await expect(page.locator("#live-rows")).to_contain_text(word.decode(), timeout=1000)
    raise AssertionError("the page shows nothing of what comes")


async def test_messages_are_searched_and_watched_through_a_power_cut(
    browser: Browser,  # noqa: F811
    pair: Twins,  # noqa: F811
    journal: Journal,
) -> None:
    now = datetime.now(UTC)

    async def keep(conn: Connection) -> None:
        texts = ["link 1 down", "disk full", "<script>alert(1)</script>"]
        made = [Kept(int(now.timestamp()) * 10**9, "core1", "10.0.0.1", "syslog", 3, text) for text in texts]
        await kept.write(conn, made, today=now.date())

    await pair.m1.store.commit(keep, name="test.kept")
    page = await _logged_in(browser, pair)
    await page.click('nav a[href="/messages"]')
    await expect(page.locator("#messages tbody tr")).to_have_count(3)
    await expect(page.locator("#messages")).to_contain_text("<script>alert(1)</script>")
    await page.fill('input[name="text"]', "DISK")
    await page.press('input[name="text"]', "Enter")
    await expect(page.locator("#messages tbody tr")).to_have_count(1)
    await page.fill('input[name="text"]', "")
    await page.press('input[name="text"]', "Enter")

    await page.check("#live")
    await expect(page.locator("#live-line")).to_have_attribute("data-state", "live")
    await _heard(page, journal, b"begun")
    journal.add(b"<13>link 2 down <b>", time_ns=int(now.timestamp() * 1e9))
    await expect(page.locator("#live-rows")).to_contain_text("link 2 down <b>")
    await expect(page.locator("#live-rows tr", has_text="link 2 down")).to_have_count(1)
    await page.evaluate("window.isSamePage = true")
    await _shot(page, "messages")

    pair.address.cut()
    await expect(page.locator("#live-line")).to_have_attribute("data-state", "connecting")
    pair.m2.controller.become({**SERVING, "epoch": 8, "primary": "m2"})
    pair.address.lead_to(pair.ports["m2"])
    await expect(page.locator("#live-line")).to_have_attribute("data-state", "live")
    await _heard(page, journal, b"gone on")
    journal.add(b"<13>link 3 down", time_ns=int(now.timestamp() * 1e9))
    await expect(page.locator("#live-rows")).to_contain_text("link 3 down")
    await expect(page.locator("#live-rows tr", has_text="link 2 down")).to_have_count(1)
    assert await page.evaluate("window.isSamePage")
    assert _complaints == []
