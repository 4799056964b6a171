"""The running server: its processes are killed one by one, and it goes on without losing a job."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.faults.server_fixture import Document, LiveServer, until
from tests.runner.coordinator.server_client import (
    count_descriptors,
    devices,
    error_code,
    pids_of_role,
    post,
    set_paused,
    wait_until_running,
)


def killed(server: LiveServer, name: str, number: signal.Signals = signal.SIGKILL) -> int:
    """End the only process of a role; its successor's pid, as soon as that lives."""
    (pid,) = pids_of_role(server, name)
    os.kill(pid, number)
    return until(
        lambda: next((each for each in pids_of_role(server, name) if each != pid), None),
        f"another {name} lives",
        within_s=8,
    )


def answers(server: LiveServer, path: str = "/readyz") -> bool:
    try:
        return server.http.get(path).status_code == 200
    except httpx2.HTTPError:
        return False


def test_a_lost_worker_costs_no_retry_and_is_replaced(serve: Callable[..., LiveServer], gate: Path) -> None:
    server = serve()
    job_id = server.submit("steady", {"gate": str(gate)})
    wait_until_running(server, job_id)
    killed(server, "worker")
    job = until(lambda: (job := server.job(job_id))["attempt"] == 2 and job, "it runs again", within_s=6)
    gate.touch()
    job = server.wait_for_end(job_id)
    assert (job["state"], job["output"], job["retries_left"]) == ("succeeded", {"attempt": 2}, 0)
    first, _ = server.attempts(job_id)
    assert first["error"]["code"] == "interrupted" and "SIGKILL" in first["error"]["message"]


@pytest.mark.slow
def test_a_worker_lost_while_its_executor_loads_costs_nothing(serve: Callable[..., LiveServer]) -> None:
    server = serve()
    job_id = server.submit("gated_load")
    until(lambda: server.job(job_id)["reason"] == "loading", "it loads")
    killed(server, "worker")
    until(lambda: server.job(job_id)["attempt"] == 2, "it loads again", within_s=6)
    post(server, f"/jobs/{job_id}/cancel", {"force": True})
    assert server.wait_for_end(job_id, within_s=3)["state"] == "cancelled"


@pytest.mark.slow
def test_a_cancel_during_the_loss_of_a_worker_holds(serve: Callable[..., LiveServer]) -> None:
    server = serve()
    job_id = server.submit("deaf")
    wait_until_running(server, job_id)
    post(server, f"/jobs/{job_id}/cancel")
    killed(server, "worker")
    job = server.wait_for_end(job_id, within_s=3)
    assert (job["state"], job["attempt"]) == ("cancelled", 1)


@pytest.mark.slow
def test_a_lost_front_is_replaced_and_jobs_run_on(serve: Callable[..., LiveServer], gate: Path) -> None:
    server = serve()
    job_id = server.submit("steady", {"gate": str(gate)})
    wait_until_running(server, job_id)
    killed(server, "front")
    until(lambda: answers(server), "the new front answers", within_s=8)
    assert (server.job(job_id)["state"], server.job(job_id)["attempt"]) == ("running", 1)
    gate.touch()
    assert server.wait_for_end(job_id)["output"] == {"attempt": 1}


@pytest.mark.slow
def test_a_lost_writer_is_replaced_and_nothing_is_missing(serve: Callable[..., LiveServer]) -> None:
    server = serve()
    before = server.submit("echo", 1)
    assert server.wait_for_end(before)["output"] == 1
    (pid,) = pids_of_role(server, "writer")
    os.kill(pid, signal.SIGKILL)
    accepted = until(lambda: _accepted(server), "a submit is taken in", within_s=5)
    assert server.wait_for_end(accepted)["state"] == "succeeded"
    assert server.wait_for_end(before)["output"] == 1
    assert server.http.get("/readyz").status_code == 200


@pytest.mark.slow
def test_while_the_disk_takes_nothing_all_is_refused_and_nothing_is_left(
    serve: Callable[..., LiveServer], gate: Path
) -> None:
    server = serve()
    set_paused(server, "still", True)
    running = server.submit("steady", {"gate": str(gate)})
    wait_until_running(server, running)
    (writer,) = pids_of_role(server, "writer")
    whole = resource.prlimit(writer, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    body = {"handler": "echo", "queue": "still"}
    began = time.monotonic()
    for headers in ({"Prefer": "wait=20"}, {}, {"Prefer": "wait=20"}):
        answer = server.http.post("/v1/jobs", json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    assert time.monotonic() - began < 3
    bulk = server.http.post("/v1/jobs/bulk", json={"jobs": [body] * 3})
    assert bulk.status_code == 503 and server.http.get("/readyz").status_code == 503
    gate.touch()
    resource.prlimit(writer, resource.RLIMIT_FSIZE, whole)
    until(lambda: answers(server), "it is ready again")
    # What went on meanwhile is kept; what was refused is not there.
    assert server.wait_for_end(running)["output"] == {"attempt": 1}
    assert not server.jobs(queue="still") and server.counts("still")["queued"] == 0
    assert server.wait_for_end(server.submit("echo"))["state"] == "succeeded"


def _accepted(server: LiveServer) -> str | None:
    answer = server.http.post("/v1/jobs", json={"handler": "echo", "input": 2})
    assert answer.status_code in (202, 503), answer.text
    return str(answer.json()["id"]) if answer.status_code == 202 else None


@pytest.mark.slow
def test_a_probe_that_dies_or_hangs_is_replaced(serve: Callable[..., LiveServer]) -> None:
    server = serve()
    killed(server, "probe")
    assert server.wait_for_end(server.submit("echo", 1))["output"] == 1
    pid = pids_of_role(server, "probe")[0]
    until(lambda: any(each["pid"] == pid and each["state"] == "ok" for each in workers(server)), "it reports")
    killed(server, "probe", signal.SIGSTOP)
    assert server.wait_for_end(server.submit("echo", 2))["output"] == 2
    assert devices(server)["cpu"]["health"] == "ok"


def workers(server: LiveServer) -> list[Document]:
    return list(server.http.get("/v1/workers").json()["data"])


@pytest.mark.slow
def test_a_broken_handler_is_told_and_the_rest_works(
    serve: Callable[..., LiveServer], tmp_path: Path
) -> None:
    good = "from runner import handler\n@handler('good')\ndef good(data: dict) -> dict: return data\n"
    (tmp_path / "good.py").write_text(good)
    (tmp_path / "bad.py").write_text("import no_such_module_anywhere\n")
    slow = f"import time\ntime.sleep(1.0)\n{good.replace('good', 'slow')}"
    (tmp_path / "slow.py").write_text(slow)
    server = serve(handlers=[tmp_path / name for name in ("good.py", "bad.py", "slow.py")])
    # It is being described: the submit waits for that.
    began = time.monotonic()
    assert server.wait_for_end(server.submit("slow", {"a": 1}))["output"] == {"a": 1}
    assert time.monotonic() - began < 8
    found = {each["name"]: each for each in server.http.get("/v1/handlers").json()["data"]}
    (broken,) = [each for each in found.values() if each["state"] == "broken"]
    assert "no_such_module_anywhere" in broken["error"]
    answer = server.http.post("/v1/jobs", json={"handler": broken["name"], "input": {}})
    assert (answer.status_code, answer.json()["code"]) == (422, "handler_broken")
    unknown = server.http.post("/v1/jobs", json={"handler": "nobody", "input": {}})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_handler")
    assert server.wait_for_end(server.submit("good", {"b": 2}))["output"] == {"b": 2}
    assert server.http.get("/readyz").json()["status"] == "degraded"


@pytest.mark.slow
def test_two_thousand_jobs_leave_nothing_behind_in_memory(serve: Callable[..., LiveServer]) -> None:
    server = serve()

    def round_of(count: int) -> None:
        ids = server.submit_many("echo", [{"n": n} for n in range(count)], delay_s=0)
        ids += server.submit_many("never", [{}] * 20)
        for job_id in ids[-40:]:
            server.wait_for_end(job_id)
        until(lambda: not server.counts()["queued"] + server.counts()["running"], "all have ended")

    round_of(1_000)
    before, resident = count_descriptors(server.pid), memory(server.pid)
    for _ in range(2):
        round_of(1_000)
    until(lambda: count_descriptors(server.pid) <= before, "no descriptor is left")
    assert memory(server.pid) - resident < 12 << 20
    assert server.counts()["succeeded"] == 3_000
    assert error_code(server.jobs(handler="never", limit="1")[0]) == "permanent_error"


def memory(pid: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
