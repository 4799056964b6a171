"""Effect: measures runner itself: bulk, one at a time, progress, cold start, and what it costs."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from benchmarks.figure import Figures, percentile
from benchmarks.server import Server
from benchmarks.wire import Connection, Failed, JobPage

#: Jobs of one POST /v1/jobs/bulk.
BATCH = 1_000
WAIT = {"Prefer": "wait=10"}
STEPS = 1_000
ECHO = b'{"handler":"echo","input":{"i":7}}'


class Sizes(msgspec.Struct, frozen=True):
    """How much of each a round does."""

    bulk: int = 10_000
    singles: int = 400
    accepted: int = 500


def measure(folder: Path, sizes: Sizes, figures: Figures) -> None:
    """One round over a fresh data folder; all figures of subject "runner"."""
    first = Server(folder / "data")
    _echo(first.port)  # handlers are described and remembered after this
    first.stop()

    spawned = time.perf_counter()
    server = Server(folder / "data")
    ready = time.perf_counter()
    try:
        _echo(server.port)
        echoed = time.perf_counter()
        figures.add("cold start to first echo", "runner", "s", echoed - spawned)
        figures.add("cold start to ready", "runner", "s", ready - spawned)
        _warm(server.port)
        _bulk(server, sizes, figures)
        _one_by_one(server.port, sizes, figures)
        _progress(server.port, folder, figures)
        figures.add("PSS of all processes", "runner", "MiB", server.pss_bytes() / 2**20)
    finally:
        server.stop()


def _echo(port: int) -> None:
    connection = Connection(port)
    connection.post("/v1/jobs", ECHO, 200, WAIT)
    connection.close()


def _warm(port: int) -> None:
    """Both executors loaded, run times known."""
    connection = Connection(port)
    body = _bulk_bodies(400, 400, queue="warm")[0]
    connection.post("/v1/jobs/bulk", body, 202)
    _await_succeeded(connection, "warm", 400)
    connection.close()


def _bulk(server: Server, sizes: Sizes, figures: Figures) -> None:
    connection = Connection(server.port)
    bodies = _bulk_bodies(sizes.bulk, BATCH, queue="bulk")
    before_bytes = server.disk_bytes()
    started = time.perf_counter()
    for body in bodies:
        connection.post("/v1/jobs/bulk", body, 202)
    accepted = time.perf_counter()
    _await_succeeded(connection, "bulk", sizes.bulk)
    durable = time.perf_counter()
    outputs = _read_outputs(connection, "bulk")
    known = time.perf_counter()
    connection.close()
    if outputs != list(range(sizes.bulk)):
        raise Failed(f"{len(outputs)} outputs read back, {sizes.bulk} jobs sent, or they differ")
    figures.add("no-op jobs, bulk", "runner", "jobs/s", sizes.bulk / (known - started))
    figures.add("no-op jobs, durable only", "runner", "jobs/s", sizes.bulk / (durable - started))
    figures.add("jobs accepted in bulk", "runner", "jobs/s", sizes.bulk / (accepted - started))
    figures.add("disk per no-op job", "runner", "bytes", (server.disk_bytes() - before_bytes) / sizes.bulk)


def _one_by_one(port: int, sizes: Sizes, figures: Figures) -> None:
    connection = Connection(port)
    request = connection.request("POST", "/v1/jobs", ECHO, WAIT)
    spent: list[float] = []
    for _ in range(sizes.singles):
        started = time.perf_counter()
        status, body = connection.exchange(request)
        spent.append(time.perf_counter() - started)
        if status != 200:
            raise Failed(f"a single job answered {status}: {body[:300]!r}")
    figures.add("one job at a time, p50", "runner", "ms", percentile(spent, 0.5) * 1e3)
    figures.add("one job at a time, p99", "runner", "ms", percentile(spent, 0.99) * 1e3)

    request = connection.request("POST", "/v1/jobs", b'{"handler":"echo","input":{"i":7},"queue":"one"}')
    started = time.perf_counter()
    for _ in range(sizes.accepted):
        status, body = connection.exchange(request)
        if status != 202:
            raise Failed(f"a job was answered {status}: {body[:300]!r}")
    rate = sizes.accepted / (time.perf_counter() - started)
    figures.add("jobs accepted one by one", "runner", "jobs/s", rate)
    _await_succeeded(connection, "one", sizes.accepted)
    connection.close()


def _progress(port: int, folder: Path, figures: Figures) -> None:
    gate = folder / "gate"
    body = msgspec.json.encode({"handler": "burst", "input": {"steps": STEPS, "gate": str(gate)}})
    connection = Connection(port)
    job_id = msgspec.json.decode(connection.post("/v1/jobs", body, 202))["id"]
    stream = Connection(port).stream(f"/v1/jobs/{job_id}/events")
    last_at = 0.0
    shown = 0
    for name, data in stream:
        if name == "snapshot":
            gate.touch()
        elif name == "progress":
            shown += 1
            if msgspec.json.decode(data)["done"] == STEPS:
                last_at = time.time()
        elif name == "done":
            output = msgspec.json.decode(data)["output"]
            break
    if not last_at:
        raise Failed("the last progress event was not seen before the end")
    figures.add("1,000 progress events", "runner", "s", last_at - output["started_at"])
    figures.add("1,000 progress calls in the handler", "runner", "s", output["calls_s"])
    figures.add("progress events shown of 1,000", "runner", "events", shown)
    connection.close()


def _bulk_bodies(total: int, batch: int, *, queue: str) -> list[bytes]:
    """Bodies for /v1/jobs/bulk, made before the clock runs."""
    return [
        msgspec.json.encode(
            {"jobs": [{"handler": "echo", "input": {"i": i}, "queue": queue} for i in range(at, at + batch)]}
        )
        for at in range(0, total, batch)
    ]


def _await_succeeded(connection: Connection, queue: str, total: int) -> None:
    deadline = time.monotonic() + 120
    request = connection.request("GET", f"/v1/queues/{queue}")
    while True:
        _, body = connection.exchange(request)
        counts = msgspec.json.decode(body)["counts"]
        if counts.get("succeeded", 0) >= total:
            return
        if counts.get("failed", 0) or time.monotonic() > deadline:
            raise Failed(f"queue {queue} did not finish: {counts}")
        time.sleep(0.02)


def _read_outputs(connection: Connection, queue: str) -> list[int]:
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
