"""Effect: how the tests of the running server speak to it."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from runner.testing import Server as Process
from tests.faults.server_fixture import Document, LiveServer, until

#: Roles of the server's children, as their command lines name them.
ROLES = ("front", "worker", "probe", "writer")


def connect_to(process: Process) -> LiveServer:
    """Speak to this server."""
    return LiveServer(process.process, process.url, 0.0, process.log_path)


def parse_time(moment: str | None) -> float:
    """UTC epoch seconds of an RFC 3339 text."""
    assert moment is not None and moment.endswith("Z"), moment
    return datetime.fromisoformat(moment).timestamp()


def wait_until_running(server: LiveServer, job_id: str) -> Document:
    """The job as soon as its user code runs (it makes progress then)."""

    def look() -> Document | None:
        job = server.job(job_id)
        assert job["state"] in ("queued", "running"), job
        return job if job["reason"] == "running" and job["progress"] else None

    return until(look, f"{job_id} runs", within_s=6)


def wait_for_reason(server: LiveServer, job_id: str, reason: str) -> Document:
    """The job as soon as it has this reason."""

    def look() -> Document | None:
        job = server.job(job_id)
        return job if job["reason"] == reason else None

    return until(look, f"{job_id} has reason {reason}")


def error_code(job: Document) -> str | None:
    """What the job ended with."""
    return None if job["error"] is None else str(job["error"]["code"])


def devices(server: LiveServer) -> dict[str, Document]:
    """The devices by their ids."""
    return {each["id"]: each for each in server.http.get("/v1/devices").json()["data"]}


def executors(server: LiveServer, handler: str) -> list[Document]:
    """The executors of a handler on any device."""
    every = [one for device in devices(server).values() for one in device["executors"]]
    return [one for one in every if one["handler"] == handler]


def pids_of_role(server: LiveServer, name: str) -> list[int]:
    """Pids of the server's children of one role."""
    found = []
    for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except FileNotFoundError:
            continue
        if name.encode() in words:
            found.append(int(pid))
    return found


def count_descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def set_paused(server: LiveServer, queue: str, paused: bool) -> None:
    """Pause or resume a queue."""
    answer = server.http.put(f"/v1/queues/{queue}", json={"paused": paused})
    assert answer.status_code == 200 and answer.json()["paused"] is paused, answer.text


def post(server: LiveServer, path: str, body: object = None, status: int = 202) -> Document:
    """POST below /v1; the answer's document, which has to come with this status."""
    answer = server.http.post(f"/v1{path}", json={} if body is None else body)
    assert answer.status_code == status, answer.text
    return dict(answer.json())
