"""Effect: measures how long commits take while the coordinator's loop is kept busy."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from benchmarks.exposition import histogram, quantile
from benchmarks.figure import Figures
from benchmarks.http_client import Connection
from benchmarks.scale_sizes import Sizes
from benchmarks.server import Server
from benchmarks.workload import ECHO, WAIT, bulk_bodies, single, warm

#: Connections that post batches, and connections that post single jobs and wait for their outputs.
BULK, SINGLES = 4, 4
BATCH = 50


def measure(folder: Path, sizes: Sizes, figures: Figures, rounds: int) -> None:
    """The server's own histogram of commits, before and after."""
    server = Server(folder / "data")
    try:
        connection = Connection(server.port)
        warm(connection)
        commits_before = _commits(connection)
        cpu_before, began = server.cpu_s(), time.perf_counter()
        _saturate(server.port, time.monotonic() + sizes.saturated_s)
        passed_s = time.perf_counter() - began
        cpu_s = server.cpu_s()["coordinator"] - cpu_before["coordinator"]
        counts = {bound: n - commits_before[bound] for bound, n in _commits(connection).items()}
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            figures.add(f"commit beside a busy loop, {name}", "runner", "ms", 1e3 * quantile(counts, share))
        figures.add("commits meanwhile", "runner", "commits/s", max(counts.values()) / passed_s)
        figures.add("coordinator's CPU meanwhile", "runner", "% of a core", 100 * cpu_s / passed_s)
        connection.close()
    finally:
        server.stop()


def _commits(connection: Connection) -> dict[float, float]:
    return histogram(connection.get("/metrics").decode(), "runner_commit_seconds")


def _saturate(port: int, until_mono: float) -> None:
    """Post from several connections at once; one failure fails the measurement."""
    failures: list[Exception] = []

    def keep(post: str) -> None:
        try:
            _post(port, post, until_mono)
        except Exception as error:
            failures.append(error)

    posts = ["bulk"] * BULK + ["single"] * SINGLES
    threads = [threading.Thread(target=keep, args=(post,)) for post in posts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _post(port: int, post: str, until_mono: float) -> None:
    connection = Connection(port)
    request = connection.request("POST", "/v1/jobs", ECHO, WAIT)
    body = bulk_bodies(BATCH, queue="busy", batch=BATCH)[0]
    while time.monotonic() < until_mono:
        if post == "bulk":
            connection.post("/v1/jobs/bulk", body, 202)
        else:
            single(connection, request)
    connection.close()
