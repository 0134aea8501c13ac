"""The pages say what is so, in both languages, and escape what strangers wrote."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from test_web_triggers import ask

from futago.runtime.clock import now_utc
from futago.web import render
from futago.web.job_model import Session
from futago.web.pages.overview import strip
from futago.web.texts import TEXTS, Language
from web_bench import Bench, status

TEMPLATES = Path(render.__file__).parent / "templates"


async def _page(client: httpx.AsyncClient, path: str = "/", language: str = "en") -> str:
    answer = await ask(client, "GET", path, headers={"Accept-Language": language})
    assert answer.status_code == 200, answer.text
    return answer.text


async def test_a_protected_pair_is_shown_as_protected(person: httpx.AsyncClient) -> None:
    text = await _page(person)
    assert "Protected" in text
    assert "10.91.1.100" in text
    assert "2,012 ms".replace(",", "\u202f") in text
    assert "m2 → m1" in text
    japanese = await _page(person, language="ja,en;q=0.5")
    assert '<html lang="ja">' in japanese
    assert "保護されています" in japanese
    assert "障害による系切替" in japanese


async def test_what_is_not_protected_is_shown_with_the_one_command(person: httpx.AsyncClient, bench: Bench) -> None:
    bench.controller.status = status(
        state="solo",
        protected=False,
        reason="m1 serves alone since m2 was fenced.",
        rule="S3",
        command="futago recover",
        not_protected=["m2 is powered off — futago recover brings it back"],
    )
    text = await _page(person)
    for part in ("Serving alone", "m1 serves alone since m2 was fenced.", "futago recover", "m2 is powered off"):
        assert part in text
    assert re.search(r'data-opens="switchover-dialog"\s+disabled', text)
    assert not re.search(r'data-opens="recover-dialog"\s+disabled', text)


async def test_what_is_wrong_with_the_journals_is_shown_and_escaped(person: httpx.AsyncClient, bench: Bench) -> None:
    bench.controller.status = status(journals={"complete": True, "troubles": ["2 damaged places on this disk", "<b>"]})
    text = await _page(person)
    assert "2 damaged places on this disk" in text and "&lt;b&gt;" in text and "<b>" not in text


async def test_a_pair_that_serves_nobody_says_so(person: httpx.AsyncClient, bench: Bench) -> None:
    bench.controller.status = status(state="blocked", protected=False, primary=None, members=[], last_switch=None)
    assert "Not serving" in await _page(person, "/parts/pair")


async def test_the_page_goes_on_while_the_controller_is_silent(person: httpx.AsyncClient, bench: Bench) -> None:
    bench.controller.status = {}
    assert "The controller does not answer" in await _page(person)


async def test_what_strangers_write_is_text_and_never_markup(person: httpx.AsyncClient, bench: Bench) -> None:
    evil = "<img src=x onerror=alert(1)>"
    answer = await person.post("/api/v1/events", json={"message": evil, "host": evil})
    assert answer.status_code == 201
    bench.controller.status = status(reason=evil, state="solo", protected=False, command=evil)
    for path in ("/", "/parts/events", "/parts/pair"):
        text = await _page(person, path)
        assert evil not in text
        assert "&lt;img src=x" in text


async def test_no_page_holds_inline_script_or_style(person: httpx.AsyncClient) -> None:
    for file in TEMPLATES.rglob("*.html"):
        text = file.read_text()
        assert not re.search(r"\son\w+=|\sstyle=|<style|javascript:|hx-on", text), file
        assert not re.search(r"<script(?![^>]*\ssrc=)", text), file


async def test_the_chosen_language_wins_over_the_browsers(person: httpx.AsyncClient) -> None:
    answer = await person.get("/language/ja")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "保護されています" in await _page(person, language="en")


async def test_events_can_be_chosen_by_source(person: httpx.AsyncClient) -> None:
    await person.post("/api/v1/events", json={"message": "from outside"})
    assert "from outside" in await _page(person, "/parts/events?source=api")
    assert "from outside" not in await _page(person, "/parts/events?source=message&priority=nonsense")


async def test_a_run_opens_with_its_jobs(person: httpx.AsyncClient) -> None:
    net = 'kind: Host\nname: h1\naddress: 10.0.0.1\n---\nkind: JobNet\nname: n\njobs:\n  - {name: j, host: h1, command: "true"}\n'
    answer = await person.post("/api/v1/apply", content=net, headers={"Content-Type": "text/yaml"})
    assert answer.status_code == 200, answer.text
    started = (await person.post("/api/v1/job-nets/n/runs")).json()["session_id"]
    assert f"#{started}" in await _page(person, "/parts/runs")
    assert "waiting" in await _page(person, f"/parts/runs/{started}")
    assert (await person.get("/parts/runs/999")).status_code == 404


async def test_a_refused_operation_is_shown_on_the_page(person: httpx.AsyncClient, bench: Bench) -> None:
    bench.controller.answers = [{"ok": False, "error": "m2 is not in sync.", "hint": "Recover first."}]
    answer = await person.post("/parts/pair/switchover")
    assert "m2 is not in sync. Recover first." in answer.text
    assert "m2 is not in sync." in await _page(person, "/parts/pair")


def test_every_text_has_both_languages_and_the_same_values() -> None:
    for key, (english, japanese) in TEXTS.items():
        assert english and japanese, key
        assert set(re.findall(r"{(\w+)}", english)) == set(re.findall(r"{(\w+)}", japanese)), key


def test_every_text_that_a_template_names_exists_and_no_other_does() -> None:
    templates = "".join(file.read_text() for file in TEMPLATES.rglob("*.html"))
    named = set(re.findall(r"""\bt\(['"]([\w.-]+)['"]""", templates))
    families = set(re.findall(r"""\bt\.word\(['"]([\w.]+)['"]""", templates))
    assert named <= set(TEXTS), named - set(TEXTS)
    computed = {key for key in TEXTS if key.rpartition(".")[0] in families or key.startswith("headline.")}
    assert set(TEXTS) == named | computed, set(TEXTS) - named - computed


@pytest.mark.parametrize(
    ("accept", "language"),
    [
        ("", "en"),
        ("ja", "ja"),
        ("ja-JP,ja;q=0.9,en;q=0.8", "ja"),
        ("fr,en;q=0.4,ja;q=0.7", "ja"),
        ("en-GB,ja;q=0.5", "en"),
        ("de", "en"),
        ("ja;q=nonsense,en;q=0.1", "en"),
    ],
)
def test_the_browsers_preference_is_followed_by_weight(accept: str, language: str) -> None:
    assert Language.preferred(accept) is Language(language)


def test_the_bar_of_a_run_is_as_long_as_its_jobs_are_many() -> None:
    states = {"waiting": 3, "normal": 5, "running": 2}
    session = Session(
        session_id=1,
        net_name="n",
        state="running",
        trigger="t",
        created_utc=now_utc(),
        started_utc=None,
        ended_utc=None,
        job_states=states,
    )
    assert strip(session).pieces == (("normal", 0, 500), ("running", 500, 200), ("waiting", 700, 300))
