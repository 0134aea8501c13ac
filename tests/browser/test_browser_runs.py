"""A run in a real browser: a net opens, stays open while its jobs end, and keeps what was opened of them; and people operate
on it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import content
from playwright.async_api import Browser, expect
from test_browser_page import _complaints, _logged_in, _shot, browser, pair, pytestmark  # noqa: F401  the fixtures

from agent_world import Keys, QuietLog, active, loopback, make_hub, pair_settings
from futago.inventory.apply import apply
from futago.inventory.definitions import parse
from futago.jobs.engine import JobsEngine
from futago.jobs.sessions import open_session
from futago.runtime.engine import EngineContext, Outward
from futago.store.commit import Connection
from web_twins import Twins

TEXT = (
    content.TEXT
    + """\
---
kind: JobNet
name: nested
jobs:
  - name: outer
    jobs:
      - {name: first, host: web1, command: "true"}
      - name: inner
        jobs:
          - {name: deep, host: web1, command: "true"}
"""
)
ASKED = """\
kind: JobNet
name: asked
jobs:
  - {name: first, wait: 1h}
  - {name: second, wait: 1h, after: [first]}
"""
_MOVE = b"UPDATE job_run SET state = %s, started_utc = now(), output = %s, ended_utc = now() WHERE job_name = %s"


async def test_a_net_that_was_opened_stays_open_while_its_states_change(
    browser: Browser,  # noqa: F811
    pair: Twins,  # noqa: F811
) -> None:
    async def make(conn: Connection) -> None:
        await apply(conn, parse(TEXT))
        await open_session(conn, "nested", trigger="test")

    async def move(state: str, output: str, job: str) -> None:
        async def work(conn: Connection) -> None:
            await conn.execute(_MOVE, (state, output, job))

        await pair.m1.store.commit(work, name="test.move")

    await pair.m1.store.commit(make, name="test.nested")
    page = await _logged_in(browser, pair)
    await page.click("#runs .row >> nth=0")
    run = page.locator("#run")
    await expect(run.locator(".counts")).to_contain_text("3 waiting")
    await expect(run).not_to_contain_text("first")
    await run.locator('.fold[aria-label="Show what is in outer"]').click()
    await expect(run).to_contain_text("first")
    await run.locator('.fold[aria-label="Show what is in inner"]').click()
    await expect(run).to_contain_text("deep")
    await move("normal", "1204 rows", "outer/inner/deep")
    deep = run.locator(".unit", has_text="deep")
    await expect(deep).to_contain_text("normal")
    await expect(deep).to_contain_text("1204 rows")
    await expect(run.locator(".counts").first).to_contain_text("1 normal")
    await move("abnormal", "x" * 1000 + " it broke", "outer/first")
    first = run.locator(".unit", has_text="first")
    await expect(first).to_contain_text("abnormal")
    await first.locator(".output button").click()
    await expect(first.locator("pre.whole")).to_contain_text("it broke")
    await move("warning", "", "outer/inner/deep")
    await expect(deep).to_contain_text("warning")
    await expect(first.locator("pre.whole")).to_contain_text("it broke")
    await expect(run.locator('.fold[aria-expanded="true"]')).to_have_count(2)
    await run.locator('.fold[aria-label="Show what is in outer"]').click()
    await expect(deep).to_be_hidden()
    await _shot(page, "run-tree")
    assert _complaints == []


async def test_a_job_is_held_and_released_and_the_run_is_stopped_on_the_page(
    browser: Browser,  # noqa: F811
    pair: Twins,  # noqa: F811
    tmp_path: Path,
) -> None:
    async def make(conn: Connection) -> None:
        await apply(conn, parse(ASKED))
        await open_session(conn, "asked", trigger="test")

    hub = make_hub(Keys(tmp_path / "keys"), loopback())
    hub.set_role(active(7))
    context = EngineContext(pair_settings(), pair.m1.store, 7, Outward(is_allowed=True), QuietLog())
    engine = asyncio.create_task(JobsEngine(context, hub).run())
    try:
        await pair.m1.store.commit(make, name="test.asked")
        page = await _logged_in(browser, pair)
        await page.click("#runs .row >> nth=0")
        run, acts = page.locator("#run"), page.locator("#run-acts")
        await expect(run.locator(".unit", has_text="first")).to_contain_text("running")
        await run.locator('.more[aria-label="Operate on second"]').click()
        await acts.locator('input[name="note"]').fill("the file is late")
        await acts.get_by_role("button", name="Hold").click()
        await expect(acts).to_contain_text("Done.")
        await _shot(page, "operate")
        await acts.get_by_role("button", name="Release").click()
        await expect(acts.get_by_role("button", name="Hold")).to_be_visible()
        await run.get_by_role("button", name="Operate…").click()
        await acts.get_by_role("button", name="Stop").click()
        await expect(run.locator(".unit", has_text="second")).to_contain_text("not run")
        await expect(acts).to_contain_text("Done.")
        assert _complaints == []
    finally:
        engine.cancel()
        await asyncio.wait({engine})
