"""A job net started in a real browser: its form, what is wrong in it, a double click, and an answer that was lost."""

from __future__ import annotations

from playwright.async_api import Browser, Page, Route, expect
from test_browser_page import _complaints, _logged_in, _shot, browser, pair, pytestmark  # noqa: F401  the fixtures

from futago.inventory.apply import apply
from futago.inventory.definitions import parse
from futago.store.commit import Connection
from web_twins import Twins

NET = """\
kind: JobNet
name: monthly
parameters:
  DAY: {type: date, about: the business day}
  COUNT: {type: integer, default: "3", min: 1, max: 9}
  MODE: {type: choice, of: [full, delta], default: delta}
jobs: [{name: first, wait: 1h}]
"""


async def _form(browser: Browser, pair: Twins) -> Page:  # noqa: F811
    async def make(conn: Connection) -> None:
        await apply(conn, parse(NET))

    await pair.m1.store.commit(make, name="test.net")
    page = await _logged_in(browser, pair)
    await page.get_by_role("button", name="Start a net…").click()
    await expect(page.locator("#nets")).to_contain_text("nightly")
    await page.locator('#run input[name="text"]').fill("month")
    await expect(page.locator("#nets .row")).to_have_count(1)
    await page.locator("#nets .row", has_text="monthly").click()
    await expect(page.locator("#net-start")).to_be_visible()
    return page


async def _variables(pair: Twins) -> list[dict[str, str]]:  # noqa: F811
    async def work(conn: Connection) -> list[dict[str, str]]:
        query = "SELECT variables FROM job_session WHERE net_name = 'monthly' ORDER BY session_id"
        return [row[0] for row in await (await conn.execute(query)).fetchall()]

    return await pair.m1.store.read(work, name="test.sessions")


async def test_a_net_is_started_with_its_parameters_and_a_double_click_starts_it_once(
    browser: Browser,  # noqa: F811
    pair: Twins,  # noqa: F811
) -> None:
    page = await _form(browser, pair)
    form = page.locator("#net-start")
    await expect(form.get_by_label("COUNT")).to_have_value("3")
    await expect(form.get_by_label("MODE")).to_have_value("delta")
    await form.get_by_label("COUNT").fill("10")
    await form.get_by_role("button", name="Start").click()
    await expect(form.locator(".field", has_text="COUNT")).to_contain_text("`10` is more than 9")
    await expect(form.locator(".field", has_text="DAY")).to_contain_text("a value is needed")
    await _shot(page, "start-form")
    assert await _variables(pair) == []
    await form.get_by_label("COUNT").fill("4")
    await form.get_by_label("DAY").fill("2026-11-22")
    await form.get_by_role("button", name="Start").dblclick()
    await expect(page.locator("#run h2")).to_contain_text("of monthly")
    await expect(page.locator("#run .unit", has_text="first")).to_be_visible()
    assert await _variables(pair) == [{"DAY": "2026-11-22", "COUNT": "4", "MODE": "delta"}]
    assert _complaints == []


async def test_a_start_whose_answer_was_lost_is_pressed_again_and_is_one_run(
    browser: Browser,  # noqa: F811
    pair: Twins,  # noqa: F811
) -> None:
    page = await _form(browser, pair)
    form = page.locator("#net-start")
    await form.get_by_label("DAY").fill("2026-11-22")

    async def lose(route: Route) -> None:
        await route.fetch()
        await route.abort()

    await page.route("**/parts/job-nets/monthly/start", lose, times=1)
    await form.get_by_role("button", name="Start").click()
    await expect(form.locator("[data-unanswered]")).to_be_visible()
    assert len(await _variables(pair)) == 1
    await form.get_by_role("button", name="Start").click()
    await expect(page.locator("#run-acts")).to_contain_text("had started this run before")
    assert len(await _variables(pair)) == 1
    assert _complaints == []
