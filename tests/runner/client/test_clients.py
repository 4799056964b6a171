"""Effect: both clients over real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest
from pydantic import BaseModel

from runner import AsyncClient, Client, JobFailed, handler
from runner.client import AsyncJobHandle, JobHandle, ProgressEvent
from runner.errors import BadRequest, NoServer, UnknownHandler
from tests.runner.client.fake_server import (
    ID,
    CannedReply,
    RecordedRequest,
    Script,
    fake_server,
    frame,
    job,
    problem,
    stream,
)


class Prompt(BaseModel):
    text: str


class Picture(BaseModel):
    size: int


@handler("paint")
class Paint:
    def run(self, data: Prompt) -> Picture:
        return Picture(size=len(data.text))


@handler("sketch")
async def sketch(data: Prompt) -> list[Picture]:
    return [Picture(size=len(data.text))]


class Scan(BaseModel):
    picture: Picture
    raw: bytes


@handler("scan")
def scan(data: Prompt) -> list[Scan]:
    return [Scan(picture=Picture(size=1), raw=b"")]


SUBMITTED = CannedReply(202, job("queued"), {"Location": f"/v1/jobs/{ID}"})
EVENTS = stream(
    frame("progress", 1, done=1, total=2, fraction=0.5),
    frame("progress", 2, done=2, total=2, fraction=1.0),
    frame("done", 3, state="succeeded", output=7, error=None),
)


def routes(over: dict[tuple[str, str], Script] | None = None) -> dict[tuple[str, str], Script]:
    found: dict[tuple[str, str], Script] = {
        ("POST", "/v1/jobs"): SUBMITTED,
        ("GET", f"/v1/jobs/{ID}"): CannedReply(200, job(output={"size": 3})),
        ("GET", f"/v1/jobs/{ID}/events"): EVENTS,
    }
    return found | (over or {})


def test_a_typed_submit_sends_the_model_and_gives_the_handlers_own_type() -> None:
    with fake_server(routes()) as server, Client(server.url, token="secret") as client:
        handle: JobHandle[Picture] = client.submit(Paint, Prompt(text="abc"), priority=80)
        assert handle.result() == Picture(size=3)
    asked = server.asked[0]
    assert asked.body == {"handler": "paint", "input": {"text": "abc"}, "priority": 80}
    assert asked.headers["authorization"] == "Bearer secret"


def test_a_list_of_models_is_read_too() -> None:
    answer = CannedReply(200, job(output=[{"size": 3}]))
    with (
        fake_server(routes(over={("GET", f"/v1/jobs/{ID}"): answer})) as server,
        Client(server.url) as client,
    ):
        handle: JobHandle[list[Picture]] = client.submit(sketch, Prompt(text="abc"))
        assert handle.result() == [Picture(size=3)]


def test_a_model_with_files_stays_json_as_they_are_references() -> None:
    output = [{"picture": {"size": 3}, "raw": {"$file": "f"}}]
    answer = CannedReply(200, job(output=output))
    with (
        fake_server(routes(over={("GET", f"/v1/jobs/{ID}"): answer})) as server,
        Client(server.url) as client,
    ):
        found: object = client.submit(scan, Prompt(text="abc")).result()
    assert found == output


def test_a_handler_by_name_gives_json() -> None:
    with fake_server(routes()) as server, Client(server.url) as client:
        assert client.submit("paint", {"text": "abc"}).result() == {"size": 3}


def test_what_is_no_handler_is_refused_with_advice() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(TypeError, match="decorate it with @handler"):
        client.submit(Prompt, {})


def test_run_needs_one_round_trip_for_a_short_job() -> None:
    short: dict[tuple[str, str], Script] = {("POST", "/v1/jobs"): CannedReply(200, job(output=1))}
    with fake_server(short) as server, Client(server.url) as client:
        assert client.run("echo", 1) == 1
    assert [asked.headers["prefer"] for asked in server.asked] == ["wait=60"]


def test_map_keeps_the_order() -> None:
    ids = ["b" * 36, "a" * 36]
    over: dict[tuple[str, str], Script] = {
        ("POST", "/v1/jobs/bulk"): CannedReply(202, {"jobs": [{"id": each} for each in ids]}),
        ("GET", "/v1/jobs"): CannedReply(200, {"data": [], "next_cursor": None}),
    }
    for place, each in enumerate(ids):
        over["GET", f"/v1/jobs/{each}"] = CannedReply(200, job(output=place))
    with fake_server(routes(over)) as server, Client(server.url) as client:
        assert client.map("echo", ["x", "y"]) == [0, 1]


def test_progress_is_told_from_another_thread_before_result_returns() -> None:
    heard: list[tuple[float | None, bool]] = []

    def hear(event: ProgressEvent) -> None:
        heard.append((event.fraction, threading.current_thread() is threading.main_thread()))

    with fake_server(routes()) as server, Client(server.url) as client:
        handle = client.submit("paint", {"text": "abc"})
        handle.on_progress(hear)
        handle.result()
    assert heard == [(0.5, False), (1.0, False)]


def test_a_removed_listener_hears_nothing_and_a_failing_one_stops_no_other() -> None:
    heard: list[float | None] = []
    gate = threading.Event()

    def answer_when_all_listen(_: RecordedRequest) -> CannedReply:
        assert gate.wait(10)
        return EVENTS

    over: dict[tuple[str, str], Script] = {("GET", f"/v1/jobs/{ID}/events"): answer_when_all_listen}
    with fake_server(routes(over)) as server, Client(server.url) as client:
        handle = client.submit("paint", {"text": "abc"})
        handle.on_progress(lambda _: 1 / 0)
        handle.on_progress(lambda event: heard.append(event.fraction))
        handle.on_progress(heard.clear)()  # type: ignore[arg-type]
        gate.set()
        handle.result()
    assert heard == [0.5, 1.0]


def test_events_go_on_where_a_cut_stream_was_left() -> None:
    first = stream(frame("progress", 1, done=1, total=2, fraction=0.5), cut=True)
    second = stream(frame("done", 2, state="succeeded", output=7, error=None))
    over: dict[tuple[str, str], Script] = {("GET", f"/v1/jobs/{ID}/events"): [first, second]}
    with fake_server(routes(over)) as server, Client(server.url) as client:
        found = [event.type for event in client.events(ID)]
    assert found == ["snapshot", "progress", "done"]
    assert server.asked[1].headers["last-event-id"] == "1"


def test_refusals_and_failures_are_raised() -> None:
    over: dict[tuple[str, str], Script] = {
        ("POST", "/v1/jobs"): [problem(404, "unknown_handler", "there is no handler nope"), SUBMITTED],
        ("GET", f"/v1/jobs/{ID}"): CannedReply(
            200, job("failed", error={"code": "handler_error", "message": "no luck"})
        ),
    }
    with fake_server(routes(over)) as server, Client(server.url) as client:
        with pytest.raises(UnknownHandler, match="nope"):
            client.submit("nope")
        with pytest.raises(JobFailed, match="no luck"):
            client.submit("paint").result()


def test_no_server_is_said_with_what_to_do() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with Client(url) as client, pytest.raises(NoServer, match="runner serve"):
            client.queues()


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(BadRequest, match="localhost:8484"):
        Client("localhost:8484")


def test_the_environment_names_server_and_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_server({("GET", "/v1/queues"): CannedReply(200, {"data": []})}) as server:
        monkeypatch.setenv("RUNNER_URL", server.url)
        monkeypatch.setenv("RUNNER_TOKEN", "hush")
        with Client() as client:
            assert client.queues() == []
    assert server.asked[0].headers["authorization"] == "Bearer hush"


def test_the_async_client_does_the_same() -> None:
    async def use(url: str) -> None:
        heard: list[float | None] = []
        async with AsyncClient(url) as client:
            handle: AsyncJobHandle[Picture] = await client.submit(Paint, Prompt(text="abc"))
            handle.on_progress(lambda event: heard.append(event.fraction))
            assert await handle.result() == Picture(size=3)
            assert heard == [0.5, 1.0]
            assert [event.type async for event in handle.events()][-1] == "done"
            assert (await handle.status()).state == "succeeded"

    with fake_server(routes()) as server:
        asyncio.run(use(server.url))
