"""A run of 10,000 jobs as a page: small at first, a net at a time on opening, and silent while nothing changes."""

from __future__ import annotations

import re
import time

import httpx
import pytest
from test_web_triggers import ask

from futago.store.commit import Connection
from web_bench import Bench

NETS, JOBS = 100, 99
DEFINED = """\
kind: Host
name: h1
address: 10.0.0.1
---
kind: JobNet
name: night
jobs:
  - {name: first, host: h1, command: "true"}
"""
# The rows that a net of 100 nets with 99 jobs each has; the last job of net n7 has failed, with much to say about it.
_GROWN = """
INSERT INTO job_run (run_id, session_id, job_name, host_name, state, attempt, started_utc, ended_utc, exit_code, output)
SELECT gen_random_uuid(), %(session)s, u.name, u.host, u.state, 1, now(), CASE WHEN u.state <> 'running' THEN now() END,
       u.code, u.output
  FROM (SELECT 'n' || n AS name, '' AS host, 'running' AS state, NULL::int AS code, NULL AS output
          FROM generate_series(1, %(nets)s) n
        UNION ALL
        SELECT 'n' || n || '/j' || j, 'h1', CASE WHEN (n, j) = (7, %(jobs)s) THEN 'abnormal' ELSE 'normal' END,
               CASE WHEN (n, j) = (7, %(jobs)s) THEN 3 ELSE 0 END,
               CASE WHEN (n, j) = (7, %(jobs)s) THEN 'begin ' || repeat('<x>', 2000) || ' end' END
          FROM generate_series(1, %(nets)s) n, generate_series(1, %(jobs)s) j) u
"""


@pytest.fixture
async def session(person: httpx.AsyncClient, bench: Bench) -> int:
    """A run of 10,000 units and one."""
    answer = await ask(person, "POST", "/api/v1/apply", content=DEFINED, headers={"Content-Type": "text/yaml"})
    assert answer.status_code == 200, answer.text
    session_id = int((await ask(person, "POST", "/api/v1/job-nets/night/runs")).json()["session_id"])

    async def grow(conn: Connection) -> None:
        await conn.execute(_GROWN, {"session": session_id, "nets": NETS, "jobs": JOBS})

    await bench.store.commit(grow, name="test.grow")
    return session_id


async def _get(person: httpx.AsyncClient, path: str) -> str:
    answer = await ask(person, "GET", path, headers={"Accept-Language": "en"})
    assert answer.status_code == 200, answer.text
    return answer.text


def _known(text: str) -> str:
    found = re.search(r'name="known" value="([0-9a-f]{16})"', text)
    assert found, text[:500]
    return found[1]


async def test_the_page_of_a_run_of_10000_jobs_is_small_and_quick_and_counts_what_is_folded(
    person: httpx.AsyncClient, session: int
) -> None:
    begun = time.monotonic()
    text = await _get(person, f"/parts/runs/{session}")
    assert time.monotonic() - begun < 10
    assert len(text) < 200_000
    assert text.count('class="unit" ') == NETS
    assert text.count("99 normal") == NETS - 1
    assert "98 normal" in text and "1 abnormal" in text
    assert "n7/j99" not in text


async def test_a_net_is_loaded_when_it_is_opened_and_shows_the_end_of_what_its_jobs_wrote(
    person: httpx.AsyncClient, session: int
) -> None:
    text = await _get(person, f"/parts/runs/{session}/level?under=n7")
    assert text.count('class="unit" ') == JOBS
    assert len(text) < 200_000
    assert "begin" not in text and "&lt;x&gt; end" in text and "<x>" not in text
    found = re.search(rf'hx-get="(/parts/runs/{session}/output/[0-9a-f-]+)"', text)
    assert found
    whole = await _get(person, found[1])
    assert "begin &lt;x&gt;" in whole and "<x>" not in whole


async def test_what_is_shown_is_not_sent_again_until_it_changes(
    person: httpx.AsyncClient, bench: Bench, session: int
) -> None:
    async def end(conn: Connection) -> None:
        await conn.execute("UPDATE job_run SET exit_code = 5, state = 'abnormal' WHERE job_name = 'n8/j1'")

    n7, n8, top = (f"/parts/runs/{session}/level?under={under}" for under in ("n7", "n8", ""))
    known = {path: _known(await _get(person, path)) for path in (n7, n8, top)}
    for path, digest in known.items():
        answer = await ask(person, "GET", f"{path}&known={digest}")
        assert (answer.status_code, answer.content) == (204, b"")
    await bench.store.commit(end, name="test.end")
    assert (await ask(person, "GET", f"{n7}&known={known[n7]}")).status_code == 204
    assert "abnormal" in await _get(person, f"{n8}&known={known[n8]}")
    assert (await _get(person, f"{top}&known={known[top]}")).count("1 abnormal") == 2


async def test_a_wide_net_is_turned_over_page_by_page(person: httpx.AsyncClient, session: int) -> None:
    first = await _get(person, f"/parts/runs/{session}/level")
    assert "page=1" in first and "page=-1" not in first
    second = await _get(person, f"/parts/runs/{session}/level?page=1")
    assert "page=0" in second and "page=2" not in second
    assert second.count('class="unit" ') == 1 and "first" in second


async def test_other_runs_and_other_jobs_outputs_are_not_found(person: httpx.AsyncClient, session: int) -> None:
    for path in ("999", "999/level", f"{session}/output/nonsense"):
        assert (await ask(person, "GET", f"/parts/runs/{path}")).status_code == 404
    assert (await ask(person, "GET", f"/parts/runs/{session}/level?page=-1")).status_code == 422
