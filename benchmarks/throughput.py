"""Effect: measures runner itself: bulk, one at a time, progress, cold start, and what it costs."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from benchmarks.figure import Figures, percentile
from benchmarks.http_client import BenchmarkFailed, Connection
from benchmarks.scale_sizes import Sizes
from benchmarks.server import Server
from benchmarks.workload import (
    ECHO,
    WAIT,
    accept,
    await_end,
    await_succeeded,
    bulk_bodies,
    read_outputs,
    single,
    single_by_client,
    warm,
)
from runner import Client

STEPS = 1_000
ECHO_ONE = b'{"handler":"echo","input":{"i":7},"queue":"one"}'
#: Accepted one by one while executors run them.
ONES = 500


class ThroughputRound:
    """A server of runner over a fresh data folder, for one round; figures of subject "runner"."""

    def __init__(self, folder: Path, sizes: Sizes, figures: Figures) -> None:
        self._folder = folder
        self._sizes = sizes
        self._figures = figures
        self._singles: list[float] = []
        self._by_client: list[float] = []

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
        self._client = Client(f"http://127.0.0.1:{self._server.port}")
        warm(self._connection)

    def close(self) -> None:
        """Stop the server."""
        self._client.close()
        self._connection.close()
        self._server.stop()

    def bulk(self) -> None:
        """Submit in batches, wait until all outputs are durable, read them back and compare."""
        total = self._sizes.bulk
        connection = self._connection
        bodies = bulk_bodies(total, queue="bulk")
        before_bytes, before_s = self._server.disk_bytes(), sum(self._server.cpu_s().values())
        started = time.perf_counter()
        for body in bodies:
            answer = connection.post("/v1/jobs/bulk", body, 202)
        accepted = time.perf_counter()
        # They end about in order: polling before the last one did would only be a load.
        await_end(connection, msgspec.json.decode(answer)["jobs"][-1]["id"])
        await_succeeded(connection, "bulk", total)
        durable = time.perf_counter()
        outputs = read_outputs(connection, "bulk")
        known = time.perf_counter()
        spent_s = sum(self._server.cpu_s().values()) - before_s
        if outputs != list(range(total)):
            raise BenchmarkFailed(f"{len(outputs)} outputs read back, {total} jobs sent, or they differ")
        self._add("no-op jobs, bulk", "jobs/s", total / (known - started))
        self._add("no-op jobs, durable only", "jobs/s", total / (durable - started))
        self._add("jobs accepted in bulk, while they run", "jobs/s", total / (accepted - started))
        self._add("CPU per no-op job, all processes", "us", 1e6 * spent_s / total)
        self._add("disk per no-op job", "bytes", (self._server.disk_bytes() - before_bytes) / total)

    def singles(self) -> None:
        """One chunk of jobs one at a time, each to its output, and another by the client."""
        request = self._connection.request("POST", "/v1/jobs", ECHO, WAIT)
        self._singles += [single(self._connection, request) for _ in range(self._sizes.chunk)]
        self._by_client += [single_by_client(self._client) for _ in range(self._sizes.chunk)]

    def finish(self) -> None:
        """What has no counterpart among the references."""
        bare_p50_ms = percentile(self._singles, 0.5) * 1e3
        client_p50_ms = percentile(self._by_client, 0.5) * 1e3
        self._add("one job at a time, p50", "ms", bare_p50_ms)
        self._add("one job by the client, p50", "ms", client_p50_ms)
        self._add("one job, added by the client, p50", "ms", client_p50_ms - bare_p50_ms)
        self._add("one job at a time, p99", "ms", percentile(self._singles, 0.99) * 1e3)
        self._accepted()
        self._progress()
        self._add("PSS of all processes", "MiB", self._server.pss_bytes() / 2**20)

    def _accepted(self) -> None:
        request = self._connection.request("POST", "/v1/jobs", ECHO_ONE)
        spent = accept(self._connection, request, ONES)
        self._add("jobs accepted one by one, while they run", "jobs/s", ONES / spent)
        await_succeeded(self._connection, "one", ONES)

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
            raise BenchmarkFailed("the last progress event was not seen before the end")
        self._add("1,000 progress events", "s", last_at - output["started_at"])
        self._add("1,000 progress calls in the handler", "s", output["calls_s"])
        self._add("progress events shown of 1,000", "events", shown)

    def _add(self, name: str, unit: str, value: float) -> None:
        self._figures.add(name, "runner", unit, value)


def _echo(port: int) -> None:
    connection = Connection(port)
    connection.post("/v1/jobs", ECHO, 200, WAIT)
    connection.close()
