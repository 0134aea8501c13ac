"""Job nets started on the page: a form of typed fields, what is wrong beside its field, and one run however often it is sent."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from futago.jobs.parameters import Parameter
from futago.web.net_starts import empty_form, given_of, judged_form
from web_bench import Bench, NewClient

NETS = """
kind: JobUnit
name: billing
owner: night-shift
---
kind: JobNet
name: closing
unit: billing
parameters:
  DAY: {type: date, about: the business day}
  COUNT: {type: integer, default: "3", min: 1, max: 9}
  MODE: {type: choice, of: [full, delta], default: delta}
  DRY: {type: flag, default: "false"}
  NOTE: {type: text, default: "<b>as ever</b>"}
jobs: [{name: a, wait: 1h}]
---
kind: JobNet
name: everyday
jobs: [{name: a, wait: 1h}]
"""
FORM = "/parts/job-nets/closing/start"
WHOLE = {"p.DAY": "2026-11-22", "p.COUNT": "4", "p.MODE": "full", "p.DRY": "true", "p.NOTE": ""}


@pytest.fixture
async def nets(person: httpx.AsyncClient) -> None:
    answer = await person.post("/api/v1/apply", content=NETS, headers={"Content-Type": "text/yaml"})
    assert answer.status_code == 200, answer.text


async def _text(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.text


async def _key(client: httpx.AsyncClient, form: str = FORM) -> str:
    found = re.search(r'name="key" value="([^"]+)"', await _text(await client.get(form)))
    assert found
    return found[1]


async def _runs(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = (await client.get("/api/v1/runs")).json()["runs"]
    return runs


async def _other(
    api: httpx.AsyncClient, new_client: NewClient, name: str, role: str, *owners: str
) -> httpx.AsyncClient:
    wanted = {"role": role, "owners": list(owners), "password": "a long enough one"}
    assert (await api.post(f"/api/v1/accounts/{name}", json=wanted)).status_code == 200
    token = await api.post(f"/api/v1/accounts/{name}/tokens", json={"name": f"of-{name}"})
    return new_client(token.json()["secret"])


@pytest.mark.usefixtures("nets")
async def test_a_net_is_chosen_filled_in_and_started_with_its_values(person: httpx.AsyncClient, bench: Bench) -> None:
    assert "/parts/job-nets" in await _text(await person.get("/"))
    listed = await _text(await person.get("/parts/job-nets"))
    assert FORM in listed and "night-shift" in listed and "everyday" in listed
    assert "everyday" not in await _text(await person.get("/parts/job-nets", params={"text": "CLOS"}))
    form = await _text(await person.get(FORM))
    assert 'type="date"' in form and form.count("required</span>") == 1 and "the business day" in form
    assert 'value="3"' in form and 'value="delta" selected' in form and 'value="false" selected' in form
    assert "&lt;b&gt;as ever&lt;/b&gt;" in form and "(1 … 9)" in form
    key = await _key(person)
    text = await _text(await person.post(FORM, data={"key": key, **WHOLE}))
    (run,) = await _runs(person)
    assert f"Run {run['session_id']} of closing" in text and "had started this run" not in text
    assert run["trigger"] == "page admin"

    async def read(conn: Any) -> tuple[Any, Any]:
        kept = await (await conn.execute("SELECT variables FROM job_session")).fetchone()
        told = await (await conn.execute("SELECT subject, detail FROM audit WHERE action = 'job-net.run'")).fetchall()
        return kept[0], told

    variables, told = await bench.store.read(read, name="test.kept")
    assert variables == {"DAY": "2026-11-22", "COUNT": "4", "MODE": "full", "DRY": "true", "NOTE": ""}
    assert [subject for subject, _ in told] == ["closing"] and told[0][1]["session_id"] == run["session_id"]


@pytest.mark.usefixtures("nets")
async def test_a_form_sent_again_starts_nothing_and_shows_the_run_of_then(person: httpx.AsyncClient) -> None:
    key = await _key(person)
    await _text(await person.post(FORM, data={"key": key, **WHOLE}))
    again = await _text(await person.post(FORM, data={"key": key, **WHOLE, "p.DAY": "nonsense"}))
    (run,) = await _runs(person)
    assert f"Run {run['session_id']} of closing" in again and "had started this run before" in again
    assert await _key(person) != key
    await _text(await person.post(FORM, data={"key": await _key(person), **WHOLE}))
    assert len(await _runs(person)) == 2


@pytest.mark.usefixtures("nets")
async def test_what_is_wrong_stands_beside_its_field_and_the_form_keeps_its_key(person: httpx.AsyncClient) -> None:
    key = await _key(person)
    said = {**WHOLE, "key": key, "p.DAY": "", "p.COUNT": "10", "p.NOTE": "kept"}
    text = await _text(await person.post(FORM, data=said))
    fields = {m[1]: m[0] for m in re.finditer(r'<label for="p-(\w+)">.*?</div>', text, re.DOTALL)}
    assert "a value is needed" in fields["DAY"] and "`10` is more than 9" in fields["COUNT"]
    assert 'value="10"' in fields["COUNT"] and 'value="kept"' in fields["NOTE"] and "fault" not in fields["NOTE"]
    assert f'value="{key}"' in text and await _runs(person) == []
    unknown = await _text(await person.post(FORM, data={**WHOLE, "key": key, "p.GONE": "1"}))
    assert "there is no parameter `GONE`" in unknown.replace("&#39;", "'") and await _runs(person) == []
    assert "Run " in await _text(await person.post(FORM, data={**WHOLE, "key": key}))
    for wrong in ("", "k" * 201, "a\0b"):
        assert (await person.post(FORM, data={**WHOLE, "key": wrong})).status_code == 400
    assert (await person.get("/parts/job-nets/none/start")).status_code == 404
    gone = await _text(await person.post("/parts/job-nets/none/start", data={"key": "k"}))
    assert "There is no job net `none`" in gone and "<form" not in gone


@pytest.mark.usefixtures("nets")
async def test_only_who_may_start_jobs_and_has_a_part_in_the_net_is_offered_it(
    person: httpx.AsyncClient, api: httpx.AsyncClient, new_client: NewClient, bench: Bench
) -> None:
    reader = await _other(api, new_client, "wall", "reader", "*")
    assert "/parts/job-nets" not in await _text(await reader.get("/"))
    for answer in (
        await reader.get("/parts/job-nets"),
        await reader.get(FORM),
        await reader.post(FORM, data={"key": "k", **WHOLE}),
    ):
        assert answer.status_code == 403
    bob = await _other(api, new_client, "bob", "operator", "day-shift")
    listed = await _text(await bob.get("/parts/job-nets"))
    assert "closing" not in listed and "everyday" in listed
    for answer in (await bob.get(FORM), await bob.post(FORM, data={"key": "k", **WHOLE})):
        assert "belongs to owner role `night-shift`" in answer.text and "<form" not in answer.text
    assert await _runs(person) == []

    async def read(conn: Any) -> list[Any]:
        return list(await (await conn.execute("SELECT action FROM audit WHERE account_name = 'bob'")).fetchall())

    assert ("job-net.run.refused",) in await bench.store.read(read, name="test.audit")
    del person.headers["X-CSRF-Token"]
    assert (await person.post(FORM, data={"key": "k", **WHOLE})).status_code == 403
    assert await _runs(person) == []


def test_an_emptied_field_has_its_default_and_an_emptied_text_is_empty() -> None:
    known = {
        "TEXT": Parameter(default="as ever\nand more"),
        "NEEDED": Parameter(),
        "COUNT": Parameter(type="integer", default="3"),
        "PICK": Parameter(type="choice", of=[" a", "b"]),
    }
    assert given_of(known, {"TEXT": "", "NEEDED": "", "COUNT": "", "PICK": " a"}) == {"TEXT": "", "PICK": " a"}
    assert given_of(known, {"TEXT": "x\r\ny", "COUNT": " 4 "}) == {"TEXT": "x\ny", "COUNT": "4"}
    assert [f.has_lines for f in empty_form(known)] == [True, False, False, False]
    assert [f.name for f in judged_form(known, {"COUNT": "3"}) if f.fault] == ["NEEDED", "PICK"]


async def test_a_key_for_one_net_is_never_that_for_another_however_their_names_are_written(
    api: httpx.AsyncClient,
) -> None:
    text = "{kind: JobNet, name: n, jobs: [{name: a, wait: 1h}]}\n---\n{kind: JobNet, name: 'n:m', jobs: [{name: a, wait: 1h}]}\n"
    assert (await api.post("/api/v1/apply", content=text, headers={"Content-Type": "text/yaml"})).status_code == 200
    for net, key in (("n", "m:7"), ("n:m", "7")):
        started = await api.post(f"/api/v1/job-nets/{net}/runs", headers={"Idempotency-Key": key})
        assert started.status_code == 201, started.text
    assert {run["net_name"] for run in await _runs(api)} == {"n", "n:m"}
