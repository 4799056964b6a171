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
ECHO_ONE = b'{"handler":"echo","input":{"i":7},"queue":"one"}'


class Sizes(msgspec.Struct, frozen=True):
    """How much of each a round does."""

    bulk: int = 10_000
    #: Single jobs: so many chunks, sides taking turns, of so many jobs.
    chunks: int = 10
    chunk: int = 50
    accepted: int = 500


class Line:
    """A server of runner over a fresh data folder, for one round; figures of subject "runner"."""

    def __init__(self, folder: Path, sizes: Sizes, figures: Figures) -> None:
        self._folder = folder
        self._sizes = sizes
        self._figures = figures
        self._singles: list[float] = []

    def open(self) -> None:
        """Start twice, the second time with handlers that are remembered: the cold start. Then warm up."""
        first = Server(self._folder / "data")
        _echo(first.port)
        first.stop()
        spawned = time.perf_counter()
        self._server = Server(self._folder / "data")
        ready = time.perf_counter()
        _echo(self._server.port)
        echoed = time.perf_counter()
        self._add("cold start to first echo", "s", echoed - spawned)
        self._add("cold start to ready", "s", ready - spawned)
        self._connection = Connection(self._server.port)
        self._connection.post("/v1/jobs/bulk", _bulk_bodies(400, 400, queue="warm")[0], 202)
        _await_succeeded(self._connection, "warm", 400)

    def close(self) -> None:
        """Stop the server."""
        self._connection.close()
        self._server.stop()

    def bulk(self) -> None:
        """Submit in batches, wait until all outputs are durable, read them back and compare."""
        total = self._sizes.bulk
        connection = self._connection
        bodies = _bulk_bodies(total, BATCH, queue="bulk")
        before_bytes = self._server.disk_bytes()
        started = time.perf_counter()
        for body in bodies:
            connection.post("/v1/jobs/bulk", body, 202)
        accepted = time.perf_counter()
        _await_succeeded(connection, "bulk", total)
        durable = time.perf_counter()
        outputs = _read_outputs(connection, "bulk")
        known = time.perf_counter()
        if outputs != list(range(total)):
            raise Failed(f"{len(outputs)} outputs read back, {total} jobs sent, or they differ")
        self._add("no-op jobs, bulk", "jobs/s", total / (known - started))
        self._add("no-op jobs, durable only", "jobs/s", total / (durable - started))
        self._add("jobs accepted in bulk", "jobs/s", total / (accepted - started))
        self._add("disk per no-op job", "bytes", (self._server.disk_bytes() - before_bytes) / total)

    def singles(self) -> None:
        """One chunk of jobs one at a time, each to its output."""
        request = self._connection.request("POST", "/v1/jobs", ECHO, WAIT)
        for _ in range(self._sizes.chunk):
            started = time.perf_counter()
            status, body = self._connection.exchange(request)
            self._singles.append(time.perf_counter() - started)
            if status != 200:
                raise Failed(f"a single job answered {status}: {body[:300]!r}")

    def finish(self) -> None:
        """What has no counterpart among the references."""
        self._add("one job at a time, p50", "ms", percentile(self._singles, 0.5) * 1e3)
        self._add("one job at a time, p99", "ms", percentile(self._singles, 0.99) * 1e3)
        self._accepted()
        self._progress()
        self._add("PSS of all processes", "MiB", self._server.pss_bytes() / 2**20)

    def _accepted(self) -> None:
        jobs = self._sizes.accepted
        request = self._connection.request("POST", "/v1/jobs", ECHO_ONE)
        started = time.perf_counter()
        for _ in range(jobs):
            status, body = self._connection.exchange(request)
            if status != 202:
                raise Failed(f"a job was answered {status}: {body[:300]!r}")
        self._add("jobs accepted one by one", "jobs/s", jobs / (time.perf_counter() - started))
        _await_succeeded(self._connection, "one", jobs)

    def _progress(self) -> None:
        gate = self._folder / "gate"
        body = msgspec.json.encode({"handler": "burst", "input": {"steps": STEPS, "gate": str(gate)}})
        job_id = msgspec.json.decode(self._connection.post("/v1/jobs", body, 202))["id"]
        reader = Connection(self._server.port)
        last_at = 0.0
        shown = 0
        for name, data in reader.stream(f"/v1/jobs/{job_id}/events"):
            if name == "snapshot":
                gate.touch()
            elif name == "progress":
                shown += 1
                if msgspec.json.decode(data)["done"] == STEPS:
                    last_at = time.time()
            elif name == "done":
                output = msgspec.json.decode(data)["output"]
                break
        reader.close()
        if not last_at:
            raise Failed("the last progress event was not seen before the end")
        self._add("1,000 progress events", "s", last_at - output["started_at"])
        self._add("1,000 progress calls in the handler", "s", output["calls_s"])
        self._add("progress events shown of 1,000", "events", shown)

    def _add(self, name: str, unit: str, value: float) -> None:
        self._figures.add(name, "runner", unit, value)


def _echo(port: int) -> None:
    connection = Connection(port)
    connection.post("/v1/jobs", ECHO, 200, WAIT)
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
