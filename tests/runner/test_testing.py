"""Effect: real servers, started and stopped as a user's test does it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import runner
from runner import AsyncClient, JobFailed, handler
from runner.client import DoneEvent, OutputEvent, ProgressEvent
from runner.errors import RefusedStart, RunnerError, ValidationFailed
from runner.testing import ServedClient, Server, running, source_of
from tests.runner.served_handlers import Report, Steps, Walk, boom, echo, spell


@pytest.fixture(scope="module")
def client() -> Iterator[ServedClient]:
    with running(handlers=[echo, Walk, spell, boom]) as client:
        yield client


def test_a_typed_job_runs_and_tells_its_progress(client: ServedClient) -> None:
    heard: list[float | None] = []
    handle = client.submit(Walk, Steps(count=4))
    handle.on_progress(lambda event: heard.append(event.fraction))
    assert handle.result(timeout=20) == Report(steps=4)
    assert heard[0] == 0.25 and heard[-1] == 1.0


def test_events_come_in_order_and_end_with_done(client: ServedClient) -> None:
    events = list(client.submit(spell, {"word": "abc"}).events())
    assert [event.chunk for event in events if isinstance(event, OutputEvent)] == ["a", "b", "c"]
    seqs = [event.seq for event in events if event.seq is not None]
    assert seqs == list(range(1, len(seqs) + 1))
    last = events[-1]
    assert isinstance(last, DoneEvent) and last.output == ["a", "b", "c"]


def test_a_failure_and_a_cancel_are_raised(client: ServedClient) -> None:
    with pytest.raises(JobFailed, match="no luck") as caught:
        client.submit(boom, {}).result(timeout=20)
    assert caught.value.error["code"] == "handler_error"
    handle = client.submit(Walk, Steps(count=1000, pause_s=0.05))
    next(event for event in handle.events() if isinstance(event, ProgressEvent))
    handle.cancel("enough")
    with pytest.raises(runner.JobCancelled, match="enough"):
        handle.result(timeout=20)


def test_wrong_input_is_refused_with_its_place(client: ServedClient) -> None:
    with pytest.raises(ValidationFailed, match="/input/count"):
        client.submit("walk", {"count": 0})


def test_a_thousand_inputs_come_back_in_their_order(client: ServedClient) -> None:
    assert client.map(echo, range(1000), result_timeout=30) == list(range(1000))


def test_an_ended_job_can_be_run_again_and_removed(client: ServedClient) -> None:
    handle = client.submit(echo, {"a": 1})
    handle.result(timeout=20)
    handle.retry()
    assert handle.result(timeout=20) == {"a": 1}
    assert [entry["attempt"] for entry in client.attempts(handle.id)] == [1, 2]
    client.delete(handle.id)
    with pytest.raises(RunnerError, match=handle.id):
        handle.status()


def test_a_paused_queue_holds_its_jobs(client: ServedClient) -> None:
    assert client.pause("held", create=True)["paused"]
    handle = client.submit(echo, 1, queue="held")
    assert handle.status().reason == "paused"
    with pytest.raises(TimeoutError):
        handle.result(timeout=0.2)
    client.resume("held")
    assert handle.result(timeout=20) == 1


def test_the_async_client_speaks_to_it_too(client: ServedClient) -> None:
    async def use() -> None:
        async with AsyncClient(client.url) as other:
            assert await other.run(echo, {"a": 1}, result_timeout=20) == {"a": 1}
            assert await other.map(echo, [1, 2, 3]) == [1, 2, 3]

    asyncio.run(use())


@pytest.mark.slow
def test_a_waiting_client_outlives_a_killed_server_on_the_same_port_and_data(tmp_path: Path) -> None:
    with Server([echo], data_dir=tmp_path) as first:
        port = int(first.url.rpartition(":")[2])
        with first.client() as client:
            client.pause("held", create=True)
            handle = client.submit(echo, "kept", queue="held")
            first.kill()
            first.settings["port"] = port
            first.start()
            client.resume("held")
            assert handle.result(timeout=20) == "kept"


def test_a_server_that_ends_by_itself_fails_the_test() -> None:
    with pytest.raises(RunnerError, match="exited with -9"), Server([echo]) as server:
        server.process.kill()
        server.process.wait()


def test_a_refused_start_tells_why() -> None:
    with pytest.raises(RefusedStart, match="set a token"), running(host="0.0.0.0"):
        pytest.fail("it must not start")


def test_settings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(TypeError, match="prot"):
        Server([], prot=1)


def test_its_data_folder_is_gone_afterwards_unless_it_was_given(tmp_path: Path) -> None:
    with running(handlers=[echo], store="memory:") as client:
        folder = client.server.data_dir
        pid = client.server.process.pid
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_handlers_are_found_again_by_module_and_name_or_by_file() -> None:
    assert source_of(echo) == "tests.runner.served_handlers:echo"
    assert source_of("package.module:name") == "package.module:name"
    assert source_of("folder/handlers.py") == str(Path("folder/handlers.py").absolute())

    @handler("inner")
    def inner() -> None: ...

    with pytest.raises(TypeError, match="inside a function"):
        source_of(inner)
    with pytest.raises(TypeError, match="decorate it"):
        source_of(Steps)
