"""The running server: executors are made ready without a job, go by hand, and are there ahead of time."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.testing import Server as Process
from runner.worker.processes import process_tree
from tests.faults.server_fixture import Document, LiveServer, until
from tests.runner.coordinator.server_client import (
    connect_to,
    devices,
    executors,
    post,
    wait_for_reason,
    wait_until_running,
)

HANDLERS = Path(__file__).with_name("prewarm_handlers.py")
Serve = Callable[..., LiveServer]


@pytest.fixture
def start(serve: Serve, tmp_path: Path) -> Serve:
    """A server of one simulated device, unless told otherwise; loads look into `tmp_path`."""

    def started(**options: Any) -> LiveServer:
        options.setdefault("gpus", "sim:1x24GiB")
        return serve(handlers=[HANDLERS], env={"LOADS_FOLDER": str(tmp_path)}, **options)

    return started


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Such a server for tests that load nothing."""
    env = {"LOADS_FOLDER": str(tmp_path_factory.mktemp("loads"))}
    with Process([HANDLERS], gpus="sim:1x24GiB", env=env, grace_s="0s") as process:
        server = connect_to(process)
        yield server
        server.http.close()


def ask(server: LiveServer, handler: str, status: int = 200, wait_s: int = 10, **body: str) -> Document:
    """The answer to a load, which has to come with this status."""
    path = f"/v1/handlers/{handler}/load"
    answer = server.http.post(path, json=body, headers={"Prefer": f"wait={wait_s}"}, timeout=30)
    assert answer.status_code == status, answer.text
    return dict(answer.json())


def handler(server: LiveServer, name: str) -> Document:
    return dict(server.http.get(f"/v1/handlers/{name}").json())


def loads(folder: Path, name: str) -> list[int]:
    """The processes in which a handler began to load."""
    path = folder / f"{name}.loads"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def idle(server: LiveServer, name: str, within_s: float = 8.0) -> Document:
    """Its one executor, as soon as it idles."""

    def look() -> Document | None:
        found = executors(server, name)
        return found[0] if [one["state"] for one in found] == ["idle"] else None

    return until(look, f"{name} idles", within_s=within_s)


def test_a_job_finds_loaded_what_was_loaded_without_one(start: Serve, tmp_path: Path) -> None:
    server = start()
    loaded = ask(server, "small")
    assert (loaded["state"], loaded["executor"]["devices"]) == ("loaded", ["sim0"])
    assert loaded["executor"]["jobs_done"] == 0
    assert handler(server, "small")["executors"] == [idle(server, "small")]
    job = server.wait_for_end(server.submit("small", {}))
    assert job["output"] == loads(tmp_path, "small")[0]
    # Again is no second one.
    assert ask(server, "small")["executor"]["id"] == loaded["executor"]["id"]
    assert len(loads(tmp_path, "small")) == 1


@pytest.mark.slow
def test_a_load_is_told_of_before_it_is_done_and_a_second_one_joins_it(start: Serve, tmp_path: Path) -> None:
    server = start()
    (tmp_path / "small.gate").touch()
    first = post(server, "/handlers/small/load")
    assert (first["state"], first["executor"]["devices"]) == ("loading", ["sim0"])
    second = ask(server, "small", 202, wait_s=1)
    assert second["executor"]["id"] == first["executor"]["id"]
    (tmp_path / "small.gate").unlink()
    assert ask(server, "small")["executor"]["id"] == first["executor"]["id"]
    assert len(loads(tmp_path, "small")) == 1


@pytest.mark.slow
def test_idle_executors_go_for_a_load_and_jobs_that_run_do_not(start: Serve, tmp_path: Path) -> None:
    server = start()
    gate = tmp_path / "gate"
    running = server.submit("large", {"gate": str(gate)})
    wait_until_running(server, running)
    waiting = post(server, "/handlers/pinned/load")
    assert (waiting["state"], waiting["reason"]) == ("waiting", "waiting_for_memory")
    assert "sim0 has 8 GiB free of 16 GiB needed" in waiting["message"]
    (shown,) = handler(server, "pinned")["waiting"]
    assert (shown["device"], shown["preload"], shown["message"]) == (None, False, waiting["message"])
    gate.touch()
    server.wait_for_end(running)
    assert ask(server, "pinned")["executor"]["devices"] == ["sim0"]
    assert executors(server, "large") == []
    # What is pinned makes room for nobody.
    assert ask(server, "large", 202, wait_s=1)["state"] == "waiting"
    assert [one["handler"] for one in devices(server)["sim0"]["executors"]] == ["pinned"]


@pytest.mark.slow
def test_a_load_goes_to_the_device_that_is_named(start: Serve) -> None:
    server = start(gpus="sim:2x24GiB")
    assert ask(server, "small", device="sim1")["executor"]["devices"] == ["sim1"]
    assert ask(server, "small")["executor"]["devices"] == ["sim1"]
    assert ask(server, "small", device="sim0")["executor"]["devices"] == ["sim0"]
    assert ask(server, "plain", device="cpu")["executor"]["devices"] == ["cpu"]
    assert post(server, "/handlers/small/unload", {"device": "sim0"})["executors"][0]["devices"] == ["sim0"]
    until(lambda: [one["devices"] for one in executors(server, "small")] == [["sim1"]], "one is left")


@pytest.mark.parametrize(
    ("name", "body", "status", "code", "says"),
    [
        ("nobody", {}, 404, "unknown_handler", "no handler 'nobody'"),
        ("small", {"device": "gpu7"}, 404, "not_found", "no device 'gpu7'"),
        ("small", {"device": "cpu"}, 422, "unsatisfiable", "does not run on cpu"),
        ("gang", {}, 422, "unsatisfiable", "on each of 2 devices"),
        ("models", {}, 422, "validation_error", "'model.name'"),
        ("small", {"model": "m"}, 422, "validation_error", "has no models"),
    ],
)
def test_what_can_not_be_loaded_is_refused(
    shared: LiveServer, name: str, body: Document, status: int, code: str, says: str
) -> None:
    problem = ask(shared, name, status, **body)
    assert problem["code"] == code and says in problem["detail"], problem
    assert executors(shared, name) == []


@pytest.mark.slow
def test_each_model_is_loaded_for_itself(start: Serve) -> None:
    server = start()
    first, second = (ask(server, "models", model=name)["executor"] for name in ("a", "b"))
    assert (first["model"], second["model"]) == ("a", "b") and first["id"] != second["id"]
    job = server.wait_for_end(server.submit("models", {"model": {"name": "b"}}))
    assert job["output"][0] == "b"
    gone = post(server, "/handlers/models/unload", {"model": "a"})["executors"]
    assert [one["model"] for one in gone] == ["a"]
    until(lambda: [one["model"] for one in executors(server, "models")] == ["b"], "b is left")


@pytest.mark.slow
def test_a_load_that_fails_is_told_of_to_who_asked_and_shown(start: Serve, tmp_path: Path) -> None:
    server = start()
    (tmp_path / "small.bad").touch()
    problem = ask(server, "small", 409)
    assert problem["code"] == "not_loaded"
    assert problem["error"]["code"] == "load_error" and "has no weights" in problem["detail"]
    assert "in loading" in problem["error"]["detail"]["traceback"]
    (failure,) = handler(server, "small")["load_failures"]
    assert (failure["error"], failure["tries"], failure["next_try_at"]) == (problem["error"], 1, None)
    (tmp_path / "brief.gate").touch()
    assert ask(server, "brief", 409)["error"]["code"] == "load_timeout"
    (tmp_path / "small.bad").unlink()
    ask(server, "small")
    assert handler(server, "small")["load_failures"] == []


@pytest.mark.slow
def test_an_executor_that_dies_while_it_loads_is_told_of_with_its_last_words(
    start: Serve, tmp_path: Path
) -> None:
    server = start()
    (tmp_path / "small.gate").touch()
    answers: list[Document] = []
    asker = threading.Thread(target=lambda: answers.append(ask(server, "small", 409)))
    asker.start()
    (pid,) = until(lambda: loads(tmp_path, "small"), "it loads")
    subprocess.run(["kill", "-KILL", str(pid)], check=True)
    asker.join(10)
    assert answers[0]["error"]["code"] == "worker_crashed"
    assert answers[0]["error"]["detail"]["signal"] == "SIGKILL"


@pytest.mark.slow
def test_unload_ends_idle_executors_and_lets_jobs_end(start: Serve, tmp_path: Path) -> None:
    server = start()
    gate = tmp_path / "gate"
    running = server.submit("small", {"gate": str(gate)})
    wait_until_running(server, running)
    gone = post(server, "/handlers/small/unload")
    assert [one["jobs"] for one in gone["executors"]] == [[running]]
    assert gone["executors"][0]["state"] == "leaving"
    gate.touch()
    job = server.wait_for_end(running)
    assert (job["state"], job["attempt"]) == ("succeeded", 1)
    until(lambda: executors(server, "small") == [], "it has gone")
    assert post(server, "/handlers/small/unload", status=200)["executors"] == []
    # The next job has it loaded again.
    assert server.wait_for_end(server.submit("small", {}))["output"] != job["output"]


@pytest.mark.slow
def test_unload_ends_a_load_and_tells_who_waits_for_it(start: Serve, tmp_path: Path) -> None:
    server = start()
    (tmp_path / "small.gate").touch()
    answers: list[Document] = []
    asker = threading.Thread(target=lambda: answers.append(ask(server, "small", 409)))
    asker.start()
    until(lambda: loads(tmp_path, "small"), "it loads")
    post(server, "/handlers/small/unload")
    asker.join(10)
    assert answers[0]["error"]["code"] == "unloaded"
    assert handler(server, "small")["load_failures"] == []


@pytest.mark.slow
def test_a_worker_that_dies_while_it_loads_loses_no_load(start: Serve, tmp_path: Path) -> None:
    server = start()
    (tmp_path / "small.gate").touch()
    answers: list[Document] = []
    asker = threading.Thread(target=lambda: answers.append(ask(server, "small", wait_s=20)))
    asker.start()
    until(lambda: loads(tmp_path, "small"), "it loads")
    every = server.http.get("/v1/workers").json()["data"]
    (worker,) = [one["pid"] for one in every if one["device"] == "sim0"]
    subprocess.run(["kill", "-KILL", str(worker)], check=True)
    until(lambda: len(loads(tmp_path, "small")) == 2, "it loads again", within_s=15)
    (tmp_path / "small.gate").unlink()
    asker.join(20)
    assert answers[0]["state"] == "loaded"


def test_a_preload_is_there_before_a_job_and_stays(start: Serve, tmp_path: Path) -> None:
    server = start()
    first = idle(server, "ahead")
    # Longer than its `keep_alive`, in which another one would have gone.
    assert server.wait_for_end(server.submit("ahead", {}))["output"] == loads(tmp_path, "ahead")[0]
    server.wait_for_end(server.submit("models", {"model": {"name": "x"}}))
    assert idle(server, "ahead")["id"] == first["id"]
    assert handler(server, "ahead")["options"]["preload"] is True


@pytest.mark.slow
def test_a_preload_that_was_unloaded_rests_until_it_is_loaded(start: Serve, tmp_path: Path) -> None:
    server = start()
    idle(server, "ahead")
    post(server, "/handlers/ahead/unload")
    until(lambda: executors(server, "ahead") == [], "it has gone")
    assert handler(server, "ahead")["preload_suspended"] == [None]
    # Other work goes on meanwhile, and turns of the plan with it.
    assert server.wait_for_end(server.submit("small", {}))["state"] == "succeeded"
    assert executors(server, "ahead") == []
    ask(server, "ahead")
    assert handler(server, "ahead")["preload_suspended"] == []


@pytest.mark.slow
def test_a_preload_that_fails_is_tried_again_after_a_pause(start: Serve, tmp_path: Path) -> None:
    (tmp_path / "ahead.bad").touch()
    server = start()

    def failed() -> Document | None:
        # While it is being described it is not known.
        found = handler(server, "ahead").get("load_failures")
        return dict(found[0]) if found else None

    failure = until(failed, "it has failed")
    assert (failure["error"]["code"], failure["tries"]) == ("load_error", 1)
    assert failure["next_try_at"] > failure["at"]
    (tmp_path / "ahead.bad").unlink()
    # Work that has the plan look again and again does not hasten it.
    for _ in range(5):
        server.wait_for_end(server.submit("small", {}))
    assert len(loads(tmp_path, "ahead")) == 1
    idle(server, "ahead", within_s=15)
    assert len(loads(tmp_path, "ahead")) == 2


@pytest.mark.slow
def test_the_command_says_where_it_is_loaded(start: Serve, tmp_path: Path) -> None:
    server = start()

    def runner(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "runner", *words, "--url", server.url]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    done = runner("load", "models", "--model", "m")
    number = executors(server, "models")[0]["id"]
    assert done.returncode == 0
    assert done.stdout == f"models (m) is loaded on sim0 (executor {number}, 1 GiB granted)\n"
    assert runner("unload", "models").stdout.startswith("unloading models (m) from sim0")
    assert runner("unload", "small").stdout == "small is not loaded\n"
    (tmp_path / "small.bad").touch()
    failed = runner("load", "small")
    assert failed.returncode == 1 and "load_error: RuntimeError: small has no weights" in failed.stderr
    assert runner("load", "nobody").returncode == 3
    (tmp_path / "brief.gate").touch()
    (tmp_path / "large.gate").touch()
    late = runner("load", "large", "--wait", "1s")
    assert late.returncode == 6 and "large: loading on sim0" in late.stderr


@pytest.mark.slow
def test_who_waits_in_line_comes_before_a_load(start: Serve, tmp_path: Path) -> None:
    server = start()
    gate = tmp_path / "gate"
    running = server.submit("large", {"gate": str(gate)})
    wait_until_running(server, running)
    post(server, "/handlers/pinned/load")
    job = server.submit("ahead", {})
    wait_for_reason(server, job, "waiting_for_memory")
    gate.touch()
    server.wait_for_end(job)
    assert ask(server, "pinned", wait_s=15)["state"] == "loaded"


@pytest.mark.slow
def test_a_template_of_the_settings_forks_executors_and_goes_with_its_worker(start: Serve) -> None:
    server = start(gpus="none", executors={"template": "tests.runner.worker.slow_import"})

    def forked() -> list[int] | None:
        pid, importer = server.wait_for_end(server.submit("forked", {}))["output"]
        post(server, "/handlers/forked/unload")
        until(lambda: executors(server, "forked") == [], "it has gone")
        return [pid, importer] if pid != importer else None

    _, template = until(forked, "the template serves", within_s=20)
    assert until(forked, "it serves again")[1] == template
    every = server.http.get("/v1/workers").json()["data"]
    (worker,) = [one["pid"] for one in every if one["device"] == "cpu"]
    subprocess.run(["kill", "-KILL", str(worker)], check=True)
    until(
        lambda: (found := process_tree.read_process(template)) is None or found.state == "Z",
        "the template has gone",
    )
    # A new worker has a new one.
    assert until(forked, "the new one serves", within_s=20)[1] != template
