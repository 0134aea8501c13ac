"""The verbs that speak to the API, against two listening members over TLS and a real database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

import web_twins
from futago.cli.event import follow
from futago.cli.main import main
from futago.cli.remote import Remote, Way
from futago.intake.following import Following
from futago.intake.kept import Kept
from futago.intake.kept import write as write_kept
from futago.runtime.engine import EngineContext, Outward
from futago.runtime.faults import Unknown
from futago.runtime.log import Log
from futago.setup import paths
from futago.store.commit import Connection, Store
from futago.web.model import Events, NewEvent, PostedEvent
from web_bench import SERVING, TOKEN, role, settings, until
from web_twins import Twins

TEXT = """\
kind: Host
name: h1
address: 10.0.0.1
---
kind: JobNet
name: nightly
jobs:
  - {name: one, host: h1, command: "true"}
"""

Run = Callable[..., Coroutine[None, None, int]]


@pytest.fixture
async def pair(database: str, tmp_path: Path) -> AsyncIterator[Twins]:
    async with web_twins.running(database, tmp_path, network="127.91.1") as running:
        (tmp_path / "token").write_text(TOKEN + "\n")
        yield running


@pytest.fixture
def futago(pair: Twins, tmp_path: Path) -> Run:
    """Run one command line that knows both members; return its exit code."""
    servers = [part for port in pair.ports.values() for part in ("--server", f"127.0.0.1:{port}")]
    options = [*servers, "--token-file", str(tmp_path / "token"), "--ca", str(tmp_path / "ca.crt")]

    async def run(*words: str) -> int:
        return await asyncio.to_thread(main, [*words, *options])

    return run


def _switch(pair: Twins) -> None:
    pair.m1.controller.become(role("standby", primary="m2", epoch=8))
    pair.m2.controller.become({**SERVING, "epoch": 8, "primary": "m2"})


MONITOR = """\
kind: Monitor
name: disks
check: syslog
scope: "*"
patterns: [{match: 'disk (?P<name>\\w+) full', priority: critical, suppress: {for: 10m, by: [name]}}]
"""


async def test_apply_waits_until_messages_meet_the_new_patterns(
    futago: Run, tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "monitor.yaml"
    file.write_text(MONITOR)
    following = Following(EngineContext(settings=settings(), store=store, epoch=7, outward=Outward(), log=Log()))
    await following.look()
    assert await futago("apply", "-f", str(file)) == 0
    assert "--wait waits for that" in capsys.readouterr().out
    waiting = asyncio.create_task(futago("apply", "-f", str(file), "--wait"))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    while not waiting.done():
        await following.look()
        await asyncio.sleep(0.05)
    assert await waiting == 0
    assert "at work: messages are held against these definitions" in capsys.readouterr().out
    assert following.rules["syslog"].matches("disk sda full", host="h", scopes={})


async def test_kept_messages_are_searched(futago: Run, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    now = datetime.now(UTC)

    async def keep(conn: Connection) -> None:
        kept = [Kept(int(now.timestamp() - n) * 10**9, "web1", "10.0.0.1", "syslog", 3, f"disk {n}") for n in range(5)]
        await write_kept(conn, kept, today=now.date())

    await store.commit(keep, name="test.kept")
    assert await futago("messages", "search", "DISK", "--since", "1h", "-n", "2", "--json") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["text"] for one in found] == ["disk 4", "disk 3"]
    assert await futago("messages", "search", "disk 1", "--host", "web1") == 0
    assert capsys.readouterr().out.endswith("  web1  syslog  disk 1\n")
    assert await futago("messages", "search", "--until", "1h") == 0
    assert capsys.readouterr().out == ""
    assert await futago("messages", "search", "--since", "yesterday") == 2
    assert "[messages.time]" in capsys.readouterr().err
    assert await futago("messages", "kept", "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 5


async def test_definitions_are_applied_and_a_net_is_run_and_shown(
    futago: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(TEXT)
    assert await futago("apply", "-f", str(file), "--dry-run") == 0
    assert "dry run: nothing has been changed" in capsys.readouterr().out
    assert await futago("apply", "-f", str(file)) == 0
    assert "created   JobNet nightly\n2 changed, 0 as before" in capsys.readouterr().out
    assert await futago("apply", "-f", str(file), "--json") == 0
    assert {c["change"] for c in json.loads(capsys.readouterr().out)["changes"]} == {"unchanged"}
    assert await futago("job", "run", "nightly") == 0
    assert capsys.readouterr().out == "run 1 of nightly has begun\n"
    assert await futago("job", "show", "1") == 0
    shown = capsys.readouterr().out
    assert "run 1 of nightly: starting (api admin)" in shown
    assert "one" in shown and "waiting" in shown
    assert await futago("job", "list") == 0
    assert "1 waiting" in capsys.readouterr().out
    assert await futago("job", "nets", "--json") == 0
    assert json.loads(capsys.readouterr().out)["job_nets"][0]["net_name"] == "nightly"


async def test_an_operation_waits_for_the_engine_s_word_and_is_refused_where_it_has_no_meaning(
    futago: Run, pair: Twins, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "all.yaml").write_text(TEXT)
    assert await futago("apply", "-f", str(tmp_path / "all.yaml")) == 0
    assert await futago("job", "run", "nightly") == 0
    capsys.readouterr()
    assert await futago("job", "hold", "1", "one") == 0  # no engine runs here: it is asked for, and said to be
    assert "asked for; the pair decides it when it serves again" in capsys.readouterr().out
    assert await futago("job", "stop", "999") == 2
    assert "There is no run 999" in capsys.readouterr().err
    assert await futago("job", "rerun", "1") == 2
    assert "has not ended" in capsys.readouterr().err
    assert await futago("job", "show", "1") == 0
    assert "waiting" in capsys.readouterr().out


async def test_schedules_are_listed_with_the_starts_that_they_will_make(
    futago: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    night = "---\nkind: Schedule\nname: night\njob_net: nightly\ntimezone: Asia/Tokyo\nat: ['25:30']\n"
    off = "---\nkind: Schedule\nname: never\njob_net: nightly\ncron: '* * * * *'\nenabled: false\n"
    (tmp_path / "all.yaml").write_text(TEXT + night + off)
    assert await futago("apply", "-f", str(tmp_path / "all.yaml")) == 0
    capsys.readouterr()
    assert await futago("schedule", "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["schedules"]
    assert [(s["schedule_name"], bool(s["next_utc"])) for s in listed] == [("never", False), ("night", True)]
    assert await futago("schedule", "upcoming", "--days", "3", "--json") == 0
    starts = json.loads(capsys.readouterr().out)["starts"]
    assert [s["schedule_name"] for s in starts] == ["night"] * 3
    assert starts[0]["at_utc"] == listed[1]["next_utc"]
    for start in starts:  # half past one of the day after the business date, in Tokyo
        at = datetime.fromisoformat(start["at_utc"]).astimezone(ZoneInfo("Asia/Tokyo"))
        assert (f"{at:%H:%M}", (at - timedelta(days=1)).date().isoformat()) == ("01:30", start["business_date"])
    assert await futago("schedule", "upcoming", "--limit", "2") == 0
    assert "these are the first 2" in capsys.readouterr().out


async def test_a_wrong_file_is_refused_with_the_place_and_exit_code_two(
    futago: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("kind: Host\nnaem: x\naddress: 10.0.0.1\n")
    assert await futago("apply", "-f", str(file)) == 2
    complaint = capsys.readouterr().err
    assert f"{file}:2: kind Host: field `naem` is not known; did you mean `name`?" in complaint
    assert "[apply.invalid]" in complaint
    assert await futago("apply", "-f", str(tmp_path / "absent.yaml")) == 2
    assert "absent.yaml cannot be read" in capsys.readouterr().err
    assert await futago("job", "run", "no-such-net") == 2


async def test_a_command_stays_with_its_request_through_a_switch(
    futago: Run, pair: Twins, capsys: pytest.CaptureFixture[str]
) -> None:
    pair.m1.controller.become(role("none", primary="m1"))
    await until(lambda: not pair.m1.rooms.serving.health().serving)
    posting = asyncio.create_task(futago("event", "post", "through the switch", "--priority", "warning"))
    await asyncio.sleep(1)
    assert not posting.done()
    _switch(pair)
    assert await posting == 0
    assert capsys.readouterr().out == "event 1\n"
    assert await futago("event", "count", "--priority", "warning") == 0
    assert capsys.readouterr().out == "1\n"
    assert await futago("event", "list", "--source", "api") == 0
    assert "through the switch" in capsys.readouterr().out


async def test_a_command_gives_up_when_nobody_serves(
    futago: Run, pair: Twins, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.m1.controller.become(role("none", primary=None))
    await until(lambda: not pair.m1.rooms.serving.health().serving)
    monkeypatch.setattr(Remote.__init__, "__kwdefaults__", {"patience_s": 1.0})
    assert await futago("event", "count") == 1
    assert "no member serves within 1 s" in capsys.readouterr().err


async def test_a_lost_answer_is_unknown_without_a_key_and_one_row_with_it(pair: Twins, tmp_path: Path) -> None:
    client = Remote(Way((f"127.0.0.1:{pair.address.port}",), TOKEN, tmp_path / "ca.crt"))

    async def post(message: str, *, is_keyed: bool) -> PostedEvent:
        new = NewEvent(message=message)
        return await asyncio.to_thread(client.post, "/events", PostedEvent, new, is_keyed=is_keyed)

    assert (await post("warm", is_keyed=False)).event_id == 1
    pair.address.swallow_next_answer()
    assert (await post("with a key", is_keyed=True)).repeated
    pair.address.swallow_next_answer()
    with pytest.raises(Unknown):
        await post("without", is_keyed=False)
    found = await asyncio.to_thread(client.get, "/events", Events)
    assert [e.message for e in found.events] == ["warm", "with a key", "without"]


async def test_a_run_begins_again_once_though_the_first_answer_is_lost(
    futago: Run, pair: Twins, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.yaml").write_text(TEXT)
    assert await futago("apply", "-f", str(tmp_path / "net.yaml")) == 0
    assert await futago("job", "run", "nightly") == 0

    async def end(conn: Connection) -> None:
        await conn.execute("UPDATE job_run SET state = 'abnormal', ended_utc = now()")
        await conn.execute("UPDATE job_session SET state = 'abnormal', ended_utc = now()")

    await pair.m1.store.commit(end, name="test.end")
    capsys.readouterr()
    send, lost = Remote._send, []

    def lose_first(*call: Any) -> httpx.Response:
        answer = send(*call)
        if not lost:
            lost.append(answer.status_code)
            raise httpx.ReadError("the answer is lost")
        return answer

    monkeypatch.setattr(Remote, "_send", lose_first)
    assert await futago("job", "rerun", "1") == 0
    assert lost == [200] and capsys.readouterr().out == "run 1 has begun again with one\n"

    async def attempts(conn: Connection) -> list[int]:
        found = await conn.execute("SELECT attempt FROM job_run ORDER BY attempt")
        return [int(attempt) for (attempt,) in await found.fetchall()]

    assert await pair.m1.store.read(attempts, name="test.attempts") == [1, 2]


async def test_following_shows_each_event_once_and_goes_on_after_a_switch(pair: Twins, tmp_path: Path) -> None:
    servers = tuple(f"127.0.0.1:{port}" for port in pair.ports.values())
    client = Remote(Way(servers, TOKEN, tmp_path / "ca.crt"))
    events = follow(client, {})
    first = asyncio.create_task(asyncio.to_thread(next, events))
    await asyncio.sleep(0.5)
    poster = Remote(Way(servers, TOKEN, tmp_path / "ca.crt"))
    for message in ("one", "two"):
        await asyncio.to_thread(poster.post, "/events", PostedEvent, NewEvent(message=message))
    assert (await first).message == "one"
    assert (await asyncio.to_thread(next, events)).message == "two"
    _switch(pair)
    await asyncio.to_thread(poster.post, "/events", PostedEvent, NewEvent(message="three"), is_keyed=True)
    assert (await asyncio.to_thread(next, events)).message == "three"


async def test_a_stranger_is_not_trusted_however_long_one_asks(
    pair: Twins, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    web_twins.certificate(tmp_path / "other")
    port = pair.ports["m1"]
    words = ["event", "count", "--server", f"127.0.0.1:{port}", "--token-file", str(tmp_path / "token")]
    assert await asyncio.to_thread(main, [*words, "--ca", str(tmp_path / "other/ca.crt")]) == 2
    assert "does not show a certificate of this pair" in capsys.readouterr().err


async def test_a_machine_that_is_no_member_is_told_what_to_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "SETTINGS", tmp_path / "absent.toml")
    assert await asyncio.to_thread(main, ["event", "count"]) == 2
    assert "--server" in capsys.readouterr().err
