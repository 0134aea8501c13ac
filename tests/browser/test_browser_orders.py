"""The orders of the pair's panel in a real browser: what a button will do is read before it is pressed."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect
from test_browser_page import _complaints, _logged_in, _shot, browser, pair, pytestmark  # noqa: F401  fixtures

from futago.cluster import explain
from futago.cluster.model import At, Config, Facts, MemberName
from web_bench import status
from web_twins import Twins


@pytest.mark.parametrize(("locale", "words"), [("en-GB", "What will be done"), ("ja-JP", "実行する手順")])
async def test_plan_is_shown_before_recovery_begins(browser: Browser, pair: Twins, locale: str, words: str) -> None:  # noqa: F811
    controller = pair.m1.controller
    controller.status = status(state="solo", protected=False, reason="m1 serves alone; m2 is silent.")
    page = await _logged_in(browser, pair, locale=locale)
    await page.click('[data-opens="recover-dialog"]')
    await expect(page.locator("#recover-plan")).to_contain_text(words)
    await expect(page.locator("#recover-plan")).to_contain_text("undo on m2 what m1 never had")
    assert controller.requests == [{"op": "recover", "plan": True}]  # reading changes nothing
    await _shot(page, f"plan-{locale}")
    await page.click("#recover-dialog .go")
    await expect(page.locator("#recover-dialog")).not_to_be_visible()
    await expect(page.locator(".progress[data-state=done]")).to_be_visible()
    assert controller.requests[-1] == {"op": "recover"} and _complaints == []


async def test_maintenance_tests_and_what_if_answer_on_the_page(browser: Browser, pair: Twins) -> None:  # noqa: F811
    controller = pair.m1.controller
    facts = Facts(
        cfg=Config(me=MemberName("m1"), peer=MemberName("m2"), h=1, k=10, bias=1, t_stall=1), started_at=At(1)
    )
    row = {"driver": "ipmi", "device": "10.92.1.12", "level": 1, "state": "on", "ok": True, "error": ""}
    controller.replies |= {
        "maintenance": {"ok": True, "text": "Maintenance is on."},
        "fence-test": {"ok": True, "passed": True, "text": "", "tests": [{"from": "m1", "member": "m2", **row}]},
        "facts": {"ok": True, "facts": explain.pack(facts, 1000).decode()},
    }
    page = await _logged_in(browser, pair)
    await page.click('[data-opens="fence-dialog"]')
    await page.click("#fence-dialog .go")
    await expect(page.locator("#fence-tests")).to_contain_text("m1 asks for m2")
    await page.click("#fence-dialog [data-closes]")
    await page.click('[data-opens="explain-dialog"]')
    await expect(page.locator("#explained li").first).to_be_visible()
    await page.select_option("#explain-dialog select", "primary-power")
    await expect(page.locator("#explained h3")).to_have_text("The primary loses its power")
    await _shot(page, "what-if")
    await page.click("#explain-dialog [data-closes]")
    await page.click('[data-opens="maintenance-dialog"]')
    await page.click("#maintenance-dialog .go")
    await expect(page.locator("#asked")).to_contain_text("Maintenance is on.")
    assert {"op": "maintenance", "on": True} in controller.requests and _complaints == []
