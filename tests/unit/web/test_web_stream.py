"""The stream of changes and the operations on the pair, over a real listening server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn

from futago.access.model import AccessRole, AccountName, Principal, Via
from futago.runtime.faults import OperatorFault
from futago.web.app import make_app
from futago.web.controller_link import Operation
from futago.web.model import OperationState
from web_bench import SERVING, STANDBY, TOKEN, Bench, status, until

ADMIN = Principal(AccountName("admin"), AccessRole.ADMIN, Via.TOKEN)


@asynccontextmanager
async def listening(bench: Bench) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a real server on loopback: a test transport would hold a stream back until its end."""
    config = uvicorn.Config(make_app(bench.rooms), lifespan="off", ws="none", log_config=None, port=0)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
        yield client
    server.should_exit = True
    await task


class Heard:
    """Server-sent events as they come."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.aiter_lines()

    async def next(self, *wanted: str) -> tuple[str, dict[str, object]]:
        """Return the next event of a wanted kind."""
        async with asyncio.timeout(60):
            name = ""
            async for line in self._lines:
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: ") and name in wanted:
                    return name, json.loads(line[6:])
        raise EOFError

    async def rest(self) -> None:
        """Read until the stream ends."""
        async with asyncio.timeout(60):
            async for _ in self._lines:
                pass


async def test_the_stream_tells_what_is_and_then_what_changes(bench: Bench) -> None:
    async with listening(bench) as client, client.stream("GET", "/api/v1/stream") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        heard = Heard(answer)
        _, pair = await heard.next("pair")
        assert (pair["state"], pair["primary"]) == ("paired", "m1")
        _, counters = await heard.next("counters")
        assert counters["last_event_id"] is None
        await client.post("/api/v1/events", json={"message": "news"})
        _, counters = await heard.next("counters")
        assert counters["last_event_id"] == 1
        restless = status()
        restless["members"][1]["replay_lag_bytes"] = 4711
        bench.controller.status = restless
        name, _ = await heard.next("tick", "pair")
        assert name == "tick", "a moving figure is no news"
        bench.controller.status = status(state="solo", protected=False)
        _, pair = await heard.next("pair")
        assert pair["state"] == "solo"


async def test_the_stream_ends_at_once_when_the_member_stops_to_serve(bench: Bench) -> None:
    took: list[float] = []
    async with listening(bench) as client:
        while not took or (min(took) >= 1 and len(took) < 5):  # the quickest counts: a busy machine holds up some
            bench.controller.become({**SERVING, "epoch": 20 + len(took)})
            await until(lambda: bench.rooms.serving.health().serving)
            async with client.stream("GET", "/api/v1/stream") as answer:
                heard = Heard(answer)
                await heard.next("pair")
                began = time.monotonic()
                bench.controller.become(STANDBY)
                await heard.rest()
                took.append(time.monotonic() - began)
            assert (await client.get("/api/v1/stream")).status_code == 503
    assert min(took) < 1


async def test_nobody_is_asked_while_nobody_listens(bench: Bench) -> None:
    async with listening(bench) as client:
        async with client.stream("GET", "/api/v1/stream") as answer:
            await Heard(answer).next("pair")
        await until(lambda: not bench.rooms.pulse._listeners)


async def test_an_operation_is_followed_to_its_end(bench: Bench) -> None:
    bench.controller.answers = [{"progress": "m2: rewinding"}, {"progress": "m2: streaming"}, {"ok": True}]
    bench.controller.answer_pause_s = 0.4
    async with listening(bench) as client, client.stream("GET", "/api/v1/stream") as answer:
        heard = Heard(answer)
        await heard.next("pair")
        asked = await client.post("/api/v1/pair/recover")
        assert (asked.status_code, asked.json()["state"], asked.json()["by"]) == (202, "running", "admin")
        second = await client.post("/api/v1/pair/switchover")
        assert (second.status_code, second.json()["code"]) == (409, "pair.operation-running")
        seen: list[object] = []
        while (told := (await heard.next("operation"))[1])["state"] == "running":
            seen = list(told["progress"])  # type: ignore[call-overload]
        assert seen == ["m2: rewinding", "m2: streaming"]
        assert told["state"] == "done"
        assert (await client.get("/api/v1/pair/operation")).json()["state"] == "done"
    assert bench.controller.asked == ["recover"]


async def test_what_the_controller_refuses_is_told_with_its_sentence_and_hint(bench: Bench) -> None:
    bench.controller.answers = [{"ok": False, "error": "m2 is not in sync.", "hint": "Run `futago recover` first."}]
    with pytest.raises(OperatorFault) as caught:
        await bench.rooms.operations.start(Operation.SWITCHOVER, ADMIN)
    assert (caught.value.what, caught.value.hint) == ("m2 is not in sync.", "Run `futago recover` first.")
    bench.controller.answers = [{"ok": True}]
    assert (await bench.rooms.operations.start(Operation.SWITCHOVER, ADMIN)).state is OperationState.DONE


async def test_an_operation_whose_controller_dies_is_unknown(bench: Bench) -> None:
    bench.controller.answers = [{"progress": "closing the gate"}, {"nonsense": 1, "ok": "perhaps"}]
    assert (await bench.rooms.operations.start(Operation.SWITCHOVER, ADMIN)).state is OperationState.UNKNOWN


async def test_an_operation_is_not_asked_for_when_its_audit_line_cannot_be_written(bench: Bench) -> None:
    bench.controller.become(STANDBY)
    await until(lambda: not bench.rooms.serving.health().serving)
    with pytest.raises(Exception, match="does not serve"):
        await bench.rooms.operations.start(Operation.SWITCHOVER, ADMIN)
    assert bench.controller.asked == []
    assert bench.rooms.operations.present is None


async def test_a_silent_controller_is_told_as_such(bench: Bench) -> None:
    bench.controller.status = {"pair": "lab", "state": "no such state"}
    async with listening(bench) as client:
        answer = await client.get("/api/v1/pair")
    assert (answer.status_code, answer.json()["code"]) == (503, "pair.controller-silent")


async def test_the_status_reaches_a_client_as_the_controller_tells_it(bench: Bench) -> None:
    bench.controller.status = status(something_new={"x": 1})
    async with listening(bench) as client:
        told = (await client.get("/api/v1/pair")).json()
    assert told["something_new"] == {"x": 1}
    assert told["last_switch"]["from"] == "m2"
    assert told["journals"]["own"] == {"last": 10, "synced": 10}
