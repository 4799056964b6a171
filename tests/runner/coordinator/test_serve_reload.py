"""The running server: its handlers are changed; what runs keeps its code, what waits gets the new one."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.testing import ServedClient
from runner.testing import Server as Process
from tests.faults.server_fixture import Document, LiveServer, until
from tests.runner.coordinator.server_client import (
    connect_to,
    error_code,
    executors,
    set_paused,
    wait_for_reason,
    wait_until_running,
)

HEAD = """import os, time
from runner import Context, handler

def pass_gate(data, ctx):
    ctx.progress(0, 1)
    while "gate" in data and not os.path.exists(data["gate"]):
        ctx.check_cancelled()
        time.sleep(0.003)
"""
WORK = """
@handler("work"{options})
def work(data: dict, ctx: Context) -> str:
    pass_gate(data, ctx)
    with open(data.get("trail", os.devnull), "a") as trail:
        print("{says}", data.get("n"), file=trail)
    return "{says}"
"""


def write(path: Path, says: str, options: str = "", *, more: str = "") -> None:
    path.write_text(HEAD + WORK.format(says=says, options=options) + more)


def named(name: str) -> str:
    return f"\n@handler({name!r})\ndef {name}(data): return {name!r}\n"


def changes(**lists: list[str]) -> Document:
    """The answer of a reload that has changed this."""
    whole: Document = {"added": [], "changed": [], "removed": [], "broken": [], "unchanged": []}
    return {**whole, "describing": False, **lists}


def reload(server: LiveServer, status: int = 200) -> Document:
    """What has changed."""
    answer = server.http.post("/v1/handlers/reload")
    assert answer.status_code == status, answer.text
    return dict(answer.json())


def gives(server: LiveServer, job_id: str, *, within_s: float = 10.0) -> Any:
    job = server.wait_for_end(job_id, within_s=within_s)
    assert job["state"] == "succeeded", job
    return job["output"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source" / "work.py"
    path.parent.mkdir()
    write(path, "old")
    return path


@pytest.fixture
def live(serve: Callable[..., LiveServer], source: Path) -> LiveServer:
    return serve(handlers=[source], devices={"max_executors": 4})


def test_what_runs_ends_in_its_version_and_the_next_job_runs_in_the_new_one(
    live: LiveServer, source: Path, gate: Path
) -> None:
    job_id = live.submit("work", {"gate": str(gate)})
    wait_until_running(live, job_id)
    (old,) = executors(live, "work")
    write(source, "new")
    assert reload(live) == changes(changed=["work"])
    assert gives(live, live.submit("work", {})) == "new"
    gate.touch()
    assert gives(live, job_id) == "old"
    until(lambda: [one["id"] for one in executors(live, "work")] != [old["id"]], "the old one goes")
    (new,) = until(lambda: [o for o in executors(live, "work") if o["state"] == "idle"], "one idles")
    assert new["version"] != old["version"]
    assert reload(live)["unchanged"] == ["work"]
    assert gives(live, live.submit("work", {})) == "new"
    assert [one["id"] for one in executors(live, "work")] == [new["id"]]


def test_an_idle_executor_of_the_old_version_goes_at_once(live: LiveServer, source: Path) -> None:
    assert gives(live, live.submit("work", {})) == "old"
    assert len(executors(live, "work")) == 1
    write(source, "new")
    reload(live)
    until(lambda: executors(live, "work") == [], "it goes without a job that wants its place")


@pytest.mark.slow
@pytest.mark.parametrize("options", ["", ', version="1"'])
def test_a_named_version_does_not_keep_old_code_alive(
    serve: Callable[..., LiveServer], source: Path, options: str
) -> None:
    write(source, "old", ', version="1"')
    server = serve(handlers=[source])
    assert gives(server, server.submit("work", {})) == "old"
    write(source, "new", options)
    assert reload(server)["changed"] == ["work"]
    assert gives(server, server.submit("work", {})) == "new"


@pytest.mark.slow
def test_staged_attempts_are_called_back_and_run_in_the_new_version(
    serve: Callable[..., LiveServer], source: Path, gate: Path, tmp_path: Path
) -> None:
    server = serve(handlers=[source], devices={"max_executors": 1})
    for job_id in server.submit_many("work", [{} for _ in range(60)]):
        gives(server, job_id)
    trail = tmp_path / "trail"
    blocker = server.submit("work", {"gate": str(gate), "trail": str(trail), "n": 0})
    wait_until_running(server, blocker)
    waiting = server.submit_many("work", [{"trail": str(trail), "n": n} for n in range(1, 41)])
    write(source, "new")
    reload(server)
    gate.touch()
    assert gives(server, blocker) == "old"
    assert {gives(server, job_id) for job_id in waiting} == {"new"}
    assert trail.read_text().split("\n")[:-1] == ["old 0"] + [f"new {n}" for n in range(1, 41)]


@pytest.mark.slow
def test_reloads_under_a_stream_of_short_jobs_lose_and_double_nothing(
    live: LiveServer, source: Path, tmp_path: Path
) -> None:
    trail = tmp_path / "trail"
    ids: list[str] = []
    for turn in range(6):
        ids += live.submit_many("work", [{"trail": str(trail), "n": len(ids) + n} for n in range(300)])
        write(source, f"v{turn}")
        assert reload(live)["changed"] == ["work"]
    for job_id in ids:
        gives(live, job_id, within_s=30)
    lines = [line.split() for line in trail.read_text().splitlines()]
    assert sorted(int(n) for _, n in lines) == list(range(len(ids)))
    assert gives(live, live.submit("work", {})) == "v5"
    assert all(live.job(job_id)["retries_left"] == 0 for job_id in ids[:5])


def test_a_line_of_two_hundred_keeps_its_order_and_each_runs_once(
    serve: Callable[..., LiveServer], source: Path, tmp_path: Path
) -> None:
    server = serve(handlers=[source], devices={"max_executors": 1})
    trail = tmp_path / "trail"
    set_paused(server, "default", True)
    asked = [{"trail": str(trail), "n": n} for n in range(200)]
    ids = server.submit_many("work", asked)
    write(source, "new", ', ram="64MiB"')
    reload(server)
    assert server.counts()["queued"] == 200
    set_paused(server, "default", False)
    assert {gives(server, job_id) for job_id in ids} == {"new"}
    assert trail.read_text() == "".join(f"new {n}\n" for n in range(200))


def test_an_executor_that_loads_old_code_is_replaced(
    serve: Callable[..., LiveServer], source: Path, gate: Path, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    slow = f"""
@handler("slow", gpus=0)
class Slow:
    def load(self):
        open({str(begun)!r}, "w").close()
        while not os.path.exists({str(gate)!r}):
            time.sleep(0.01)
    def run(self, data):
        return "old"
"""
    write(source, "old", more=slow)
    server = serve(handlers=[source])
    job_id = server.submit("slow", {})
    until(begun.exists, "it loads")
    wait_for_reason(server, job_id, "loading")
    write(source, "new", more=named("slow"))
    reload(server)
    assert gives(server, job_id) == "slow"
    first, second = server.attempts(job_id)
    assert first["error"]["code"] == "interrupted" and "reloaded" in first["error"]["message"]
    assert second["error"] is None


def test_a_broken_edit_refuses_new_jobs_lets_run_what_runs_and_is_mended_by_the_next(
    live: LiveServer, source: Path, gate: Path
) -> None:
    job_id = live.submit("work", {"gate": str(gate)})
    wait_until_running(live, job_id)
    # Paused first: on a slow machine the delayed job would run before the edit.
    set_paused(live, "default", True)
    delayed = live.submit("work", {}, delay_s=0.05)
    waiting = live.submit("work", {})
    source.write_text(source.read_text() + "def (:\n")
    assert reload(live)["broken"] == ["work"]
    refused = live.http.post("/v1/jobs", json={"handler": "work", "input": {}})
    assert (refused.status_code, refused.json()["code"]) == (422, "handler_broken")
    assert "SyntaxError" in refused.json()["error"]
    (shown,) = live.http.get("/v1/handlers").json()["data"]
    assert shown["state"] == "broken" and "SyntaxError" in shown["error"]
    set_paused(live, "default", False)
    wait_for_reason(live, waiting, "waiting_for_handler")
    wait_for_reason(live, delayed, "waiting_for_handler")
    gate.touch()
    assert gives(live, job_id) == "old"
    until(lambda: executors(live, "work") == [], "no executor of the old code is left")
    write(source, "new")
    assert reload(live)["changed"] == ["work"]
    assert gives(live, waiting) == gives(live, delayed) == "new"


@pytest.mark.slow
def test_files_of_a_folder_come_and_go(serve: Callable[..., LiveServer], source: Path) -> None:
    server = serve(handlers=[source.parent])
    set_paused(server, "default", True)
    job_id = server.submit("work", {})
    (source.parent / "more.py").write_text(HEAD + named("more"))
    source.rename(source.with_name("_work.py"))
    assert reload(server) == changes(added=["more"], removed=["work"])
    refused = server.http.post("/v1/jobs", json={"handler": "work"})
    assert (refused.status_code, refused.json()["code"]) == (404, "unknown_handler")
    set_paused(server, "default", False)
    wait_for_reason(server, job_id, "waiting_for_handler")
    assert gives(server, server.submit("more", {})) == "more"
    source.with_name("_work.py").rename(source)
    assert reload(server)["added"] == ["work"]
    assert gives(server, job_id) == "old"


def test_what_would_refuse_a_start_changes_nothing(live: LiveServer, source: Path) -> None:
    source.write_text(source.read_text() + named("work").replace("def work", "def twin"))
    refused = reload(live, status=409)
    assert refused["code"] == "reload_refused" and "two handlers are called 'work'" in refused["detail"]
    source.unlink()
    assert "there is no file" in reload(live, status=409)["detail"]
    write(source, "new")
    assert reload(live)["changed"] == ["work"]
    assert gives(live, live.submit("work", {})) == "new"


def test_jobs_are_checked_against_the_input_schema_of_their_submit_and_by_the_code_that_runs(
    live: LiveServer, source: Path
) -> None:
    set_paused(live, "default", True)
    waiting = live.submit("work", {})
    source.write_text(source.read_text().replace("data: dict", "data: int"))
    reload(live)
    answer = live.http.post("/v1/jobs", json={"handler": "work", "input": {}})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")
    set_paused(live, "default", False)
    assert error_code(live.wait_for_end(waiting)) == "invalid_input"


def test_the_operators_tables_are_read_anew(
    serve: Callable[..., LiveServer], source: Path, tmp_path: Path
) -> None:
    config = tmp_path / "runner.toml"
    config.write_text("[handlers.work]\npriority = 60\n")
    server = serve(handlers=[source], env={"RUNNER_CONFIG": str(config)})
    assert server.job(server.submit("work", {}))["priority"] == 60
    config.write_text("[handlers.work]\npriority = 70\n[handlers.wrok]\nretries = 1\n")
    assert reload(server)["changed"] == ["work"]
    assert server.job(server.submit("work", {}))["priority"] == 70
    assert "[handlers.wrok] in the config changes nothing" in server.log.read_text()
    config.write_text("[handlers.work]\nretries = -1\n")
    assert "[handlers.work]" in reload(server, status=409)["detail"]
    assert server.job(server.submit("work", {}))["priority"] == 70


@pytest.mark.slow
def test_two_reloads_at_once_both_tell_of_what_was_there_when_they_were_asked(
    live: LiveServer, source: Path
) -> None:
    write(source, "new")
    told: list[Document] = []
    threads = [threading.Thread(target=lambda: told.append(reload(live))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(told) == 8
    assert [changes for changes in told if changes["changed"] == ["work"]]
    assert all(changes["changed"] + changes["unchanged"] == ["work"] for changes in told)
    assert gives(live, live.submit("work", {})) == "new"


def test_a_reload_during_the_shutdown_is_refused(source: Path, gate: Path) -> None:
    process = Process([source], grace_s="20s").start()
    server = connect_to(process)
    try:
        wait_until_running(server, server.submit("work", {"gate": str(gate)}))
        process.process.terminate()

        def refused() -> Document | None:
            answer = server.http.post("/v1/handlers/reload")
            return dict(answer.json()) if answer.status_code == 503 else None

        assert until(refused, "it shuts down")["code"] == "shutting_down"
        gate.touch()
        assert server.exit_code(within_s=10) == 0
    finally:
        server.http.close()
        process.close()


@pytest.mark.slow
def test_a_restart_imports_nothing_and_old_descriptions_are_forgotten(source: Path, tmp_path: Path) -> None:
    count = tmp_path / "count"
    counted = f"\nwith open({str(count)!r}, 'a') as file: file.write('x')\n"
    write(source, "old", more=counted)
    with Process([source], data_dir=tmp_path / "data") as process, process.client() as client:
        assert [one["state"] for one in client.handlers()] == ["ok"]
        for says in ("a", "b", "c"):
            write(source, says, more=counted)
            assert client.reload_handlers()["changed"] == ["work"]
    assert count.read_text() == "xxxx"
    assert len(_descriptions(tmp_path / "data" / "runner.db")) == 1
    with Process([source], data_dir=tmp_path / "data") as process, process.client() as client:
        assert client.ready()["status"] == "ok"
        assert count.read_text() == "xxxx"
        assert client.run("work", {}) == "c"


def _descriptions(store: Path) -> list[str]:
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as link:
        tables = [name for (name,) in link.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert tables
        found = [
            name
            for table in tables
            if "name" in [column[1] for column in link.execute(f"PRAGMA table_info({table})")]
            for (name,) in link.execute(f"SELECT name FROM {table}")
        ]
    return [name for name in found if str(name).startswith("describe/")]


@pytest.mark.timed
def test_a_reload_of_nothing_costs_no_process(live: LiveServer) -> None:
    begin = time.monotonic()
    for _ in range(20):
        assert reload(live)["unchanged"] == ["work"]
    assert time.monotonic() - begin < 2.0


def test_both_clients_reload(source: Path) -> None:
    import asyncio

    from runner import AsyncClient

    with Process([source]) as process, ServedClient(process) as client:
        assert client.reload_handlers()["unchanged"] == ["work"]

        async def ask() -> dict[str, Any]:
            async with AsyncClient(process.url) as other:
                return await other.reload_handlers()

        assert asyncio.run(ask())["unchanged"] == ["work"]
        assert os.path.exists(source)
