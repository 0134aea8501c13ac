"""Signed requests that start nets: only what the secret's holder signed, now, and each once."""

from __future__ import annotations

import hashlib
import hmac
import json
import time

import httpx
import pytest
from test_web_triggers import ask, variables

from futago.jobs.hook_signature import WINDOW_S, read_signature, sign
from web_bench import Bench

NET = """
kind: JobNet
name: deploy
parameters: {REF: {default: main}}
jobs: [{name: a, wait: 1h}]
---
{kind: Trigger, name: signed, job_net: deploy, webhook: {key: X-Delivery, signed: true}, set: {REF: ref}}
---
{kind: Trigger, name: plain, job_net: deploy, webhook: {key: X-Delivery}, set: {REF: ref}}
"""
HERE = "/api/v1/hooks/signed"
BODY = json.dumps({"ref": "4e1d"}).encode()


@pytest.fixture
async def secret(api: httpx.AsyncClient) -> str:
    """The secret of the trigger `signed`."""
    answer = await ask(api, "POST", "/api/v1/apply", content=NET, headers={"Content-Type": "text/yaml"})
    assert answer.status_code == 200, answer.text
    return str((await ask(api, "POST", "/api/v1/triggers/signed/secret")).json()["secret"])


def signed(
    secret: str, *, at_s: float | None = None, key: str = "", body: bytes = BODY, path: str = HERE
) -> dict[str, str]:
    """Return the headers as the reference tells senders to make them, by other means than the product's."""
    t = int(time.time() if at_s is None else at_s)
    text = f"v1\n{t}\n{path}\n{key}\n".encode() + body
    mac = hmac.new(hashlib.sha256(secret.encode()).digest(), text, hashlib.sha256).hexdigest()
    return {"Futago-Signature": f"t={t},v1={mac}", **({"X-Delivery": key} if key else {})}


async def test_a_signed_request_starts_its_net_and_a_copy_of_it_starts_nothing(
    stranger: httpx.AsyncClient, bench: Bench, secret: str
) -> None:
    for key in ("7c1f", ""):
        headers = signed(secret, key=key)
        first = await ask(stranger, "POST", HERE, content=BODY, headers=headers)
        copy = await ask(stranger, "POST", HERE, content=BODY, headers=headers)
        assert (first.status_code, copy.status_code) == (201, 200), first.text + copy.text
        assert copy.json() == {"session_id": first.json()["session_id"], "repeated": True}
    later = signed(secret, key="7c1f", at_s=time.time() - 1)
    assert (await ask(stranger, "POST", HERE, content=BODY, headers=later)).status_code == 200
    assert await variables(bench) == ["4e1d", "4e1d"]


async def test_what_is_changed_or_old_or_not_signed_is_refused_and_starts_nothing(
    stranger: httpx.AsyncClient, api: httpx.AsyncClient, bench: Bench, secret: str
) -> None:
    plain = str((await ask(api, "POST", "/api/v1/triggers/plain/secret")).json()["secret"])
    genuine = signed(secret, key="7c1f")
    old = int(time.time()) - WINDOW_S - 60
    bearer = {"Authorization": f"Bearer {secret}"}
    for path, headers, body, status, code in (
        (HERE, {**genuine, "X-Delivery": "8d20"}, BODY, 401, "access.login"),
        (HERE, {k: v for k, v in genuine.items() if k != "X-Delivery"}, BODY, 401, "access.login"),
        (HERE, genuine, BODY + b" ", 401, "access.login"),
        (HERE, signed(secret, path="/api/v1/hooks/plain"), BODY, 401, "access.login"),
        (HERE, signed("another"), BODY, 401, "access.login"),
        (HERE, signed(secret, at_s=old), BODY, 401, "access.signature-time"),
        (HERE, signed(secret, at_s=old + 2 * WINDOW_S + 600), BODY, 401, "access.signature-time"),
        (HERE, {"Futago-Signature": f"t={int(time.time())}"}, BODY, 400, "access.signature"),
        (HERE, bearer, BODY, 401, "access.login"),
        (HERE, {**bearer, **signed("another")}, BODY, 401, "access.login"),
        ("/api/v1/hooks/plain", signed(plain, path="/api/v1/hooks/plain"), BODY, 401, "access.login"),
        ("/api/v1/hooks/none", signed(secret, path="/api/v1/hooks/none"), BODY, 401, "access.login"),
        (HERE, {}, BODY, 401, "access.login"),
    ):
        answer = await ask(stranger, "POST", path, content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code), (path, headers)
    assert await variables(bench) == []
    assert (await ask(api, "POST", "/api/v1/triggers/signed/secret")).status_code == 200
    assert (await ask(stranger, "POST", HERE, content=BODY, headers=genuine)).status_code == 401


def test_a_signature_is_read_as_it_is_written_and_nothing_else_is_one() -> None:
    made = sign(b"k" * 32, 1_763_859_600, path=HERE, key="7c1f", body=BODY)
    assert read_signature(made.header) == made
    assert made.is_genuine(b"k" * 32, path=HERE, key="7c1f", body=BODY)
    for text in (
        "",
        made.header + " ",
        made.header.upper(),
        "t=-1,v1=" + "0" * 64,
        "t=1,v1=" + "0" * 63,
        "t=١,v1=" + "0" * 64,
    ):
        assert read_signature(text) is None


@pytest.mark.parametrize(
    ("seconds", "is_of_now"),
    [(0, True), (WINDOW_S, True), (-WINDOW_S, True), (WINDOW_S + 1, False), (-WINDOW_S - 1, False)],
)
def test_a_signature_is_of_now_within_its_window(seconds: int, is_of_now: bool) -> None:
    assert sign(b"k" * 32, 1_000_000, path=HERE, key="", body=b"").is_of_now(1_000_000 + seconds) is is_of_now
