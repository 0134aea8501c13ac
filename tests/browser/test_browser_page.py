"""The page in a real browser: it logs in, follows a power cut by itself, and works in both languages.

Needs Chromium (Debian: chromium, fonts-ipafont-gothic). FUTAGO_SCREENSHOTS names a folder for pictures of each state.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import content
import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

import web_twins
from web_bench import PASSWORD, SERVING, role, status
from web_twins import Twins

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed")


@pytest.fixture
async def pair(database: str, tmp_path: Path) -> AsyncIterator[Twins]:
    async with web_twins.running(database, tmp_path) as running:
        await content.fill(running.m1.store)
        yield running


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield launched
        await launched.close()


async def _logged_in(browser: Browser, pair: Twins, *, locale: str = "en-GB", dark: bool = False) -> Page:
    context = await browser.new_context(
        ignore_https_errors=True,
        locale=locale,
        timezone_id="Asia/Tokyo",
        color_scheme="dark" if dark else "light",
        viewport={"width": 1440, "height": 1000},
    )
    page = await context.new_page()
    page.set_default_timeout(60_000)
    page.on("console", lambda m: _complaints.append(m.text) if "Content Security" in m.text else None)
    page.on("pageerror", lambda e: _complaints.append(str(e)))
    _complaints.clear()
    await page.goto(f"{pair.url}/")
    await page.fill("#account", "admin")
    await page.fill("#password", PASSWORD)
    await page.click("button.go")
    await expect(page.locator("#line")).to_have_attribute("data-state", "live")
    return page


_complaints: list[str] = []
# On a busy machine the page, its server and this test have one processor between them.
expect.set_options(timeout=60_000)


async def _shot(page: Page, name: str) -> None:
    if folder := os.environ.get("FUTAGO_SCREENSHOTS"):
        await page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


async def test_the_page_follows_a_power_cut_without_a_reload_or_a_login(browser: Browser, pair: Twins) -> None:
    page = await _logged_in(browser, pair)
    await expect(page.locator("#pair h1")).to_have_text("Protected")
    await expect(page.locator("#hosts")).to_contain_text("web2")
    await page.evaluate("window.isSamePage = true")
    await _shot(page, "protected")

    pair.address.cut()
    await expect(page.locator("#line")).to_have_attribute("data-state", "switching")
    await expect(page.locator("#banner")).to_be_visible()
    await _shot(page, "switching")

    pair.m2.controller.status = status(
        state="solo",
        protected=False,
        primary="m2",
        epoch=8,
        rule="S3",
        reason="m2 serves alone since m1 was powered off.",
        command="futago recover",
        not_protected=["m1 is powered off — futago recover brings it back."],
        members=_alone(),
    )
    pair.m2.controller.become({**SERVING, "epoch": 8, "primary": "m2"})
    await asyncio.sleep(0.3)
    pair.address.lead_to(pair.ports["m2"])
    await expect(page.locator("#banner")).to_contain_text("Back after")
    await expect(page.locator("#banner")).to_contain_text("m2 serves")
    await expect(page.locator("#pair h1")).to_have_text("Serving alone")
    await expect(page.locator("#command")).to_have_text("futago recover")
    assert await page.evaluate("window.isSamePage")
    await _shot(page, "solo")

    pair.m2.controller.answers = [{"progress": "m1: rewinding"}, {"ok": True}]
    pair.m2.controller.answer_pause_s = 1.5
    await page.click('button[data-opens="recover-dialog"]')
    await expect(page.locator("#recover-dialog")).to_be_visible()
    await _shot(page, "recover-dialog")
    await page.click("#recover-dialog button.go")
    await expect(page.locator("#pair .progress")).to_contain_text("m1: rewinding")
    await expect(page.locator("#pair .progress")).to_contain_text("done")
    assert pair.m2.controller.asked == ["plan", "recover"]
    assert pair.m1.controller.asked == []
    assert _complaints == []


async def test_an_event_appears_by_itself(browser: Browser, pair: Twins) -> None:
    page = await _logged_in(browser, pair)
    headers = {
        "X-CSRF-Token": str(await page.evaluate("JSON.parse(document.body.getAttribute('hx-headers'))['X-CSRF-Token']"))
    }
    answer = await page.request.post(f"{pair.url}/api/v1/events", data={"message": "it arrived"}, headers=headers)
    assert answer.status == 201
    await expect(page.locator("#events")).to_contain_text("it arrived")
    await page.select_option('select[name="source"]', "job")
    await expect(page.locator("#events")).not_to_contain_text("it arrived")
    await expect(page.locator("#events")).to_contain_text("nightly: extract ended normally")
    await page.click("#runs .row >> nth=0")
    await expect(page.locator("#run-dialog")).to_contain_text("transform-2")
    await _shot(page, "run")
    assert _complaints == []


async def test_the_page_speaks_japanese(browser: Browser, pair: Twins) -> None:
    page = await _logged_in(browser, pair, locale="ja-JP", dark=True)
    await expect(page.locator("#pair h1")).to_have_text("保護されています")
    await _shot(page, "japanese-dark")
    await page.set_viewport_size({"width": 420, "height": 900})
    await _shot(page, "narrow")
    await page.set_viewport_size({"width": 1440, "height": 1000})
    await page.click("text=English")
    await expect(page.locator("#pair h1")).to_have_text("Protected")
    await page.click("nav button")
    await expect(page.locator("h1")).to_have_text("Log in")
    await page.click("text=日本語")
    await expect(page.locator("h1")).to_have_text("ログイン")
    await _shot(page, "login-japanese")
    assert _complaints == []


async def test_a_page_of_a_member_that_became_standby_says_where_to_go(browser: Browser, pair: Twins) -> None:
    page = await _logged_in(browser, pair)
    pair.m1.controller.become(role("standby", primary="m2", epoch=8))
    await expect(page.locator("#banner")).to_contain_text("m2 serves now")
    assert await page.get_attribute("#banner-link", "href") == "https://10.91.1.100/"
    await page.goto(f"{pair.url}/")
    await expect(page.locator("h1")).to_have_text("m1 does not serve now")
    await _shot(page, "waiting")
    pair.m1.controller.become(SERVING)
    await expect(page.locator("#pair h1")).to_have_text("Protected")


def _alone() -> list[dict[str, object]]:
    gone, here = status()["members"]
    gone |= {"role": "unknown", "reachable": False, "pg": "unknown", "gate": None, "address": False, "fit": None}
    here |= {"role": "primary", "pg": "primary", "gate": "open", "address": True, "timeline": 4}
    return [gone, here]
