"""Kinds of jobs, conditions and control on a real PostgreSQL, with real agents, processes and requests."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from test_jobs_engine import World, operate, site, store, until_state, world

from agent_world import lines, until
from futago.jobs import sessions
from futago.jobs.upkeep import prune_round
from futago.runtime.engine import EngineContext
from futago.runtime.faults import OperatorFault

__all__ = ["site", "store", "world"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_night_with_nets_groups_retries_variables_and_places(world: World) -> None:
    o = world.oracle
    await world.define(
        f"""
kind: JobQueue
name: one
limit: 1
---
kind: JobNet
name: part
jobs:
  - {{name: p, host: h2, command: 'echo part-$WHO >>{o}'}}
---
kind: JobNet
name: n
parameters:
  WHO: {{type: choice, of: [alice, "$(touch /tmp/never); '"], default: alice}}
exclusive: [[many, few]]
jobs:
  - {{name: count, host: h1, command: 'echo ROWS=120', sets: {{ROWS: "ROWS="}}}}
  - {{name: many, host: h1, command: 'echo many >>{o}', after: [count, {{variable: ROWS, more: 100}}]}}
  - {{name: few, host: h1, command: 'echo few >>{o}', after: [count]}}
  - name: load
    after: [many]
    queue: one
    jobs:
      - {{name: l1, host: h1, command: 'mkdir {o}.lock && sleep 0.1 && rmdir {o}.lock && echo l1 >>{o}'}}
      - {{name: l2, host: h2, command: 'mkdir {o}.lock && sleep 0.1 && rmdir {o}.lock && echo l2 >>{o}', priority: 9}}
      - {{name: l3, host: h2, command: 'mkdir {o}.lock && sleep 0.1 && rmdir {o}.lock && echo l3 >>{o}', priority: 5}}
  - {{name: sub, net: part, after: [load]}}
  - {{name: pause, wait: 200ms, after: [load]}}
  - name: flaky
    host: h1
    command: 'echo try >>{o}; test $(grep -c try {o}) -ge 3'
    retry: {{count: 5, interval: 50ms}}
    after: [{{any: [few, sub]}}, pause]
  - {{name: last, script: "#!/bin/sh\\necho last $1 >>{o}\\n", arguments: "$WHO", host: h2, after: [{{job: flaky, value: 0}}]}}
"""
    )
    async with world.engine():
        opened = await world.store.commit(
            lambda c: sessions.open_session(c, "n", trigger="manual", parameters={"WHO": "$(touch /tmp/never); '"}),
            name="test.open",
        )
        assert await world.end_of(opened.session_id) == "normal", await world.states(opened.session_id)
    said = lines(o)
    assert said[0] == "many" and Counter(said)["try"] == 3 and "few" not in said
    assert sorted(said[1:4]) == ["l1", "l2", "l3"]
    assert "part-$(touch /tmp/never); '" in said
    found = await world.rows("SELECT job_name, attempt, state FROM job_run WHERE job_name = 'flaky' ORDER BY attempt")
    assert found == [("flaky", 1, "abnormal"), ("flaky", 2, "abnormal"), ("flaky", 3, "normal")]
    [(variables,)] = await world.rows("SELECT variables FROM job_session WHERE net_name = 'n'")
    assert variables["ROWS"] == "120"


async def test_parameter_that_is_none_is_refused_before_anything_starts(world: World) -> None:
    await world.define(
        "kind: JobNet\nname: n\nparameters: {DAY: {type: date}}\njobs: [{name: a, host: h1, command: 'true'}]\n"
    )
    for given, why in (
        ({}, "`DAY` has no value"),
        ({"DAY": "soon"}, "is not a date"),
        ({"X": "1"}, "no parameter `X`"),
    ):
        with pytest.raises(OperatorFault, match=why):
            await world.store.commit(
                lambda c, given=given: sessions.open_session(c, "n", trigger="manual", parameters=given),
                name="test.open",
            )
    assert await world.rows("SELECT 1 FROM job_session") == []


async def test_approval_suspension_and_a_corrected_end_go_through_a_switch(world: World) -> None:
    o = world.oracle
    await world.define(
        f"""
kind: JobNet
name: n
jobs:
  - {{name: ask, approval: {{text: go on?, by: [admin]}}}}
  - {{name: bad, host: h1, command: 'exit 7', after: [ask]}}
  - {{name: next, host: h1, command: 'echo next >>{o}', after: [bad], if_unmet: wait}}
  - {{name: then, host: h1, command: 'echo then >>{o}', after: [next]}}
"""
    )
    async with world.engine():
        session = await world.start("n")
        await until_state(world, session, "ask", "running")
    async with world.engine("m2", epoch=2):
        assert await operate(world, session, "approve", "ask") == ""
        await until_state(world, session, "bad", "abnormal")
        assert await operate(world, session, "suspend") == ""
        assert await operate(world, session, "end", "bad", status="normal", value=0) == ""
    async with world.engine("m1", epoch=3):
        await asyncio.sleep(0.5)
        assert (await world.states(session))["next"] == "waiting" and lines(o) == []
        assert "not waiting any more" in await operate(world, session, "force", "bad")
        assert await operate(world, session, "resume") == ""
        assert await world.end_of(session) == "normal"
    assert lines(o) == ["next", "then"]
    told = await world.rows("SELECT detail->>'notice' FROM event WHERE detail ? 'notice' ORDER BY event_id")
    assert told == [("approval",), ("stuck",)]


@contextmanager
def web() -> Iterator[tuple[str, list[str]]]:
    """A server that answers 204 on /good, and 503 elsewhere; and what it was asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            asked.append(f"{self.path} {body} {self.headers['Idempotency-Key'] is not None}")
            self.send_response(204 if self.path.startswith("/good") else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_requests_files_and_delays(world: World) -> None:
    o, watched = world.oracle, world.oracle.with_name("watched")
    with web() as (url, asked):
        await world.define(
            f"""
kind: JobNet
name: n
parameters: {{WHO: {{default: "a&b"}}}}
jobs:
  - {{name: good, http: {{url: "{url}/good?who={{{{WHO}}}}", method: POST, body: "hello {{{{WHO}}}}"}}}}
  - {{name: bad, http: {{url: "{url}/bad", method: POST}}, exit_codes: {{normal: 200-299, warning: "503"}}}}
  - {{name: nowhere, http: {{url: "http://127.0.0.1:1/"}}}}
  - {{name: file, file: {{host: h1, path: "{watched}", interval: 1s}}, after: [good]}}
  - {{name: slow, host: h1, command: "sleep 60", end_delay: {{after: 300ms, then: warning}}}}
  - {{name: late, host: h1, command: "echo late >>{o}", after: [file], start_delay: {{after: 200ms, then: skipped}}}}
"""
        )
        async with world.engine():
            session = await world.start("n")
            await until_state(world, session, "slow", "warning")
            await until_state(world, session, "late", "skipped")
            watched.touch()
            assert await world.end_of(session) == "abnormal", await world.states(session)
    assert await world.states(session) == {
        "good": "normal", "bad": "warning", "nowhere": "abnormal", "file": "normal", "slow": "warning", "late": "skipped",
    }  # fmt: skip
    assert sorted(asked) == ["/bad  True", "/good?who=a%26b hello a&b True"]
    assert lines(o) == []


async def test_references_and_scopes_are_written_out_when_the_session_is_made(world: World) -> None:
    o = world.oracle
    await world.define(
        f"""
kind: Scope
name: both
hosts: [h1, h2]
---
kind: JobUnit
name: bank
owner: night
---
kind: JobNet
name: n
unit: bank
jobs:
  - {{name: each, scope: both, command: 'echo each >>{o}'}}
  - {{name: turn, scope: both, run_on: in-turn, command: 'echo turn >>{o}; exit 3', after: [each]}}
  - {{name: one, scope: both, run_on: any, command: 'echo one >>{o}', after: [{{job: turn, end: abnormal}}], owner: day}}
"""
    )
    async with world.engine():
        session = await world.start("n")
        assert await world.end_of(session) == "abnormal"
        assert Counter(lines(o)) == {"each": 2, "turn": 2, "one": 1}
        owners = await world.rows("SELECT DISTINCT job_name, owner_role FROM job_run WHERE kind = 'command' ORDER BY 1")
        assert owners[0] == ("each/h1", "night") and ("one", "day") in owners
        again = await world.store.commit(lambda c: sessions.run_again(c, session, "turn/h2"), name="test.again")
        assert again == ["one", "turn/h2"]
        assert await world.end_of(session) == "abnormal"
    assert Counter(lines(o)) == {"each": 2, "turn": 3, "one": 2}
    for loop in ("{name: x, net: loop}", "{name: x, net: other}"):
        await world.define(
            f"kind: JobNet\nname: other\njobs: [{{name: y, net: loop}}]\n---\nkind: JobNet\nname: loop\njobs: [{loop}]\n"
        )
        with pytest.raises(OperatorFault, match="in a circle"):
            await world.start("loop")


async def test_condition_on_another_nets_session_waits_for_it(world: World) -> None:
    o = world.oracle
    await world.define(
        f"""
kind: JobNet
name: intake
jobs: [{{name: i, host: h2, command: 'echo intake >>{o}'}}]
---
kind: JobNet
name: n
jobs: [{{name: a, host: h1, command: 'echo a >>{o}', after: [{{session: intake}}]}}]
"""
    )
    async with world.engine():
        session = await world.start("n")
        await until_state(world, session, "a", "waiting")
        await asyncio.sleep(1.2)
        assert lines(o) == []
        await world.start("intake")
        assert await world.end_of(session) == "normal"
    assert lines(o) == ["intake", "a"]


async def test_what_is_old_goes_piece_by_piece_and_what_is_open_stays(world: World) -> None:
    await world.define("kind: JobNet\nname: n\njobs: [{name: a, host: h1, command: 'true'}]\n")
    async with world.engine() as engine:
        old, young = await world.start("n"), await world.start("n")
        for session in (old, young):
            await world.end_of(session)
        await until(lambda: engine.counters.commits > 0, what="a commit")
    await world.define("kind: JobNet\nname: n\njobs: [{name: a, host: h2, command: 'true'}]\n")
    waiting = await world.start("n")
    await world.store.commit(
        lambda c: c.execute(
            "UPDATE job_session SET ended_utc = now() - interval '500 days' WHERE session_id = %s", (old,)
        ),
        name="test.old",
    )
    context = EngineContext(settings=None, store=world.store, epoch=1, outward=world.outward, log=world.log)  # type: ignore[arg-type]
    assert await prune_round(context, kept=timedelta(days=400)) == 2
    left = await world.rows("SELECT session_id FROM job_session ORDER BY 1")
    assert left == [(young,), (waiting,)]
    assert await prune_round(context, kept=timedelta(days=400)) == 0
