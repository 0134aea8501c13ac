"""Who gets in, and what a browser can be made to do on behalf of someone who is in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
from test_web_triggers import ask

from futago.access import store as rows
from futago.access.limits import FailureLimit
from futago.access.model import AccessRole, Account, AccountName
from futago.access.passwords import hash_password
from futago.access.tokens import hash_secret
from futago.store.commit import Connection
from futago.web.identity import COOKIE
from web_bench import PASSWORD, Bench, NewClient

OPEN = {"/api/v1/login", "/api/v1/health"}


async def test_nobody_gets_anything_of_the_api_without_a_login(stranger: httpx.AsyncClient) -> None:
    paths = (await stranger.get("/api/v1/openapi.json")).json()["paths"]
    routes = [(method, path) for path, methods in paths.items() for method in methods if path not in OPEN]
    assert len(routes) > 15
    for method, path in routes:
        answer = await ask(stranger, method, path.replace("{session_id}", "1"), json={"message": "x"})
        assert answer.status_code == 401, (method, path)
        assert answer.json()["code"] == "access.login"
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_page_without_a_login_leads_to_the_login(stranger: httpx.AsyncClient) -> None:
    answer = await stranger.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    part = await stranger.get("/parts/pair", headers={"HX-Request": "true"})
    assert (part.status_code, part.headers["hx-redirect"]) == (401, "/login")


async def test_a_wrong_token_opens_nothing(new_client: NewClient) -> None:
    assert (await new_client("wrong").get("/api/v1/hosts")).status_code == 401


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(stranger: httpx.AsyncClient) -> None:
    answer = await stranger.post("/login", data={"account": "admin", "password": PASSWORD})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    for attribute in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
        assert attribute in cookie
    assert "Domain" not in cookie


async def test_a_cookie_alone_changes_nothing(person: httpx.AsyncClient, bench: Bench) -> None:
    del person.headers["X-CSRF-Token"]
    assert (await person.get("/api/v1/hosts")).status_code == 200
    for path in ("/api/v1/pair/switchover", "/parts/pair/switchover", "/logout", "/api/v1/logout"):
        answer = await person.post(path)
        assert answer.status_code == 403, path
    wrong = await person.post("/api/v1/events", json={"message": "x"}, headers={"X-CSRF-Token": "0" * 64})
    assert wrong.json()["code"] == "access.csrf"
    assert bench.controller.asked == []


async def test_a_login_from_another_site_is_refused(stranger: httpx.AsyncClient) -> None:
    body = {"account": "admin", "password": PASSWORD}
    answer = await stranger.post("/login", data=body, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


async def test_logging_out_ends_the_session_for_every_holder_of_the_cookie(person: httpx.AsyncClient) -> None:
    stolen = dict(person.cookies)
    assert (await person.post("/logout")).status_code == 204
    person.cookies.update(stolen)
    assert (await person.get("/api/v1/hosts")).status_code == 401


async def test_the_answer_to_a_wrong_password_does_not_tell_whether_the_account_exists(
    stranger: httpx.AsyncClient,
) -> None:
    answers = [
        await stranger.post("/api/v1/login", json={"account": account, "password": "wrong-password"})
        for account in ("admin", "nobody")
    ]
    assert [a.status_code for a in answers] == [401, 401]
    assert answers[0].json() == answers[1].json()


async def test_an_address_that_guesses_is_made_to_wait(stranger: httpx.AsyncClient, bench: Bench) -> None:
    bench.rooms.identity._failures = FailureLimit(failures_max=2)  # each guess costs a real hash
    for _ in range(2):
        answer = await stranger.post("/api/v1/login", json={"account": "nobody", "password": "x"})
        assert answer.status_code == 401
    right = await stranger.post("/api/v1/login", json={"account": "admin", "password": PASSWORD})
    assert right.status_code == 429
    assert 0 < int(right.headers["retry-after"]) <= 300
    page = await stranger.post("/login", data={"account": "admin", "password": PASSWORD})
    assert page.status_code == 429
    assert "Too many" in page.text


async def test_a_reader_reads_and_does_nothing_else(new_client: NewClient, bench: Bench) -> None:
    async def work(conn: Connection) -> None:
        name = AccountName("eyes")
        await rows.add_account(conn, Account(name, hash_password("some-password"), AccessRole.READER, True))
        await rows.put_token(conn, token_name="eyes", secret_hash=hash_secret("eyes-token"), account_name=name)

    await bench.store.commit(work, name="test.reader")
    reader = new_client("eyes-token")
    assert (await reader.get("/api/v1/hosts")).status_code == 200
    for path in ("events", "apply", "pair/switchover", "pair/recover", "job-nets/n/runs"):
        answer = await reader.post(f"/api/v1/{path}", json={"message": "x"})
        assert answer.status_code == 403, path
        assert "reader" in answer.json()["error"]


async def test_each_change_leaves_a_line_in_the_audit_trail(api: httpx.AsyncClient, bench: Bench) -> None:
    assert (await api.post("/api/v1/pair/switchover")).status_code == 202
    host = "kind: Host\nname: web1\naddress: 10.91.1.21\n"
    answer = await api.post("/api/v1/apply?name=h.yaml", content=host, headers={"Content-Type": "text/yaml"})
    assert answer.status_code == 200, answer.text

    async def read(conn: Connection) -> list[tuple[object, ...]]:
        query = "SELECT account_name, via, host(address), action, subject FROM audit ORDER BY audit_id"
        return await (await conn.execute(query)).fetchall()

    assert await bench.store.read(read, name="test.audit") == [
        ("admin", "token", "192.0.2.7", "pair.switchover", ""),
        ("admin", "token", "192.0.2.7", "definitions.apply", "h.yaml"),
    ]


async def test_every_answer_carries_the_headers_that_browsers_obey(stranger: httpx.AsyncClient) -> None:
    for path in ("/login", "/api/v1/health", "/api/v1/hosts", "/static/futago.js", "/nowhere"):
        headers = (await stranger.get(path)).headers
        assert "script-src 'self'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


async def test_a_body_that_is_too_long_is_refused_before_it_is_read(api: httpx.AsyncClient) -> None:
    answer = await api.post("/api/v1/events", json={"message": "x" * 200_000})
    assert (answer.status_code, answer.json()["code"]) == (413, "request.too-long")

    async def drip() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 10_000

    chunked = await api.post("/api/v1/events", content=drip(), headers={"Content-Type": "application/json"})
    assert (chunked.status_code, chunked.json()["code"]) == (413, "request.too-long")
