"""Effect: gives a server work and waits until it is done."""

from __future__ import annotations

import time

import msgspec

from benchmarks.http_client import BenchmarkFailed, Connection, JobPage
from benchmarks.scale_sizes import BATCH
from runner import Client

WAIT = {"Prefer": "wait=10"}
ECHO = b'{"handler":"echo","input":{"i":7}}'


def bulk_bodies(total: int, *, queue: str, handler: str = "echo", batch: int = BATCH) -> list[bytes]:
    """Bodies for /v1/jobs/bulk, made before the clock runs."""
    return [
        msgspec.json.encode(
            {
                "jobs": [
                    {"handler": handler, "input": {"i": i}, "queue": queue}
                    for i in range(at, min(at + batch, total))
                ]
            }
        )
        for at in range(0, total, batch)
    ]


def warm(connection: Connection, handler: str = "echo", *, jobs: int = 400) -> None:
    """Load the handler in all executors, by more jobs than one of them takes at once."""
    connection.post("/v1/jobs/bulk", bulk_bodies(jobs, queue=f"warm-{handler}", handler=handler)[0], 202)
    await_succeeded(connection, f"warm-{handler}", jobs)


def pause(connection: Connection, queue: str) -> None:
    """Pause a queue that no job has named yet."""
    connection.put(f"/v1/queues/{queue}", b'{"paused":true}', 200)


def resume(connection: Connection, queue: str) -> None:
    connection.post(f"/v1/queues/{queue}/resume", b"", 200)


def single(connection: Connection, request: bytes) -> float:
    """Seconds from one job's POST to its output; the request asks to wait for it."""
    started = time.perf_counter()
    status, body = connection.exchange(request)
    spent = time.perf_counter() - started
    if status != 200:
        raise BenchmarkFailed(f"a single job answered {status}: {body[:300]!r}")
    return spent


def single_by_client(client: Client) -> float:
    """Seconds of one job by `runner.Client`, from the call to the output."""
    started = time.perf_counter()
    output = client.run("echo", {"i": 7})
    spent = time.perf_counter() - started
    if output != {"i": 7}:
        raise BenchmarkFailed(f"the client returned {output!r}")
    return spent


def accept(connection: Connection, request: bytes, jobs: int) -> float:
    """Seconds in which `jobs` POSTs were answered with 202, one after the other."""
    started = time.perf_counter()
    for _ in range(jobs):
        status, body = connection.exchange(request)
        if status != 202:
            raise BenchmarkFailed(f"a job was answered {status}: {body[:300]!r}")
    return time.perf_counter() - started


def await_succeeded(connection: Connection, queue: str, total: int, *, within_s: float = 120.0) -> None:
    """Until `total` of the queue's jobs have succeeded."""
    deadline = time.monotonic() + within_s
    request = connection.request("GET", f"/v1/queues/{queue}")
    while True:
        _, body = connection.exchange(request)
        counts = msgspec.json.decode(body)["counts"]
        if counts.get("succeeded", 0) >= total:
            return
        if counts.get("failed", 0) or time.monotonic() > deadline:
            raise BenchmarkFailed(f"queue {queue} did not finish: {counts}")
        time.sleep(0.02)


def await_end(connection: Connection, job_id: str) -> None:
    """Until this job has succeeded; the server says so by itself."""
    status, body = connection.exchange(
        connection.request("GET", f"/v1/jobs/{job_id}", headers={"Prefer": "wait=300"})
    )
    if status != 200 or msgspec.json.decode(body)["state"] != "succeeded":
        raise BenchmarkFailed(f"job {job_id} did not end well: {status} {body[:300]!r}")


def read_outputs(connection: Connection, queue: str) -> list[int]:
    """Outputs of a queue's succeeded jobs in the order of acceptance, page by page."""
    path = f"/v1/jobs?queue={queue}&state=succeeded&order=asc&limit=500"
    decoder = msgspec.json.Decoder(JobPage)
    found: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        page = decoder.decode(connection.get(path + (f"&cursor={cursor}" if cursor else "")))
        found += [row.output["i"] for row in page.data if row.output is not None]
        cursor = page.next_cursor
    return found
