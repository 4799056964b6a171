"""Effect: measures how a server stands to a million waiting jobs: assignment, memory, pages, restart."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import msgspec

from benchmarks.figure import Figures, percentile
from benchmarks.http_client import BenchmarkFailed, Connection
from benchmarks.scale_sizes import Sizes
from benchmarks.server import Server
from benchmarks.workload import WAIT, await_end, bulk_bodies, pause, resume, single, warm
from runner.jobs import cursor

BACKLOG = "backlog"
#: The most that one request takes.
BATCH = 10_000
QUICK = b'{"handler":"echo","input":{"i":7},"queue":"quick"}'
#: A server under a million jobs may take long; that is then what is measured.
PATIENCE_S = 330.0
PAGES = 20
#: Number of turns that the two servers take.
CHUNKS = 5


def measure(folder: Path, sizes: Sizes, figures: Figures, rounds: int) -> None:
    """Two servers, whatever the rounds: few jobs wait in one, all in the other, which is killed at last."""
    with contextlib.ExitStack() as stack:
        many, connection = _open(folder / "many", stack)
        sentinel = _fill_up(connection, sizes, figures)
        _add(figures, "jobs that wait", "jobs", sizes.many)
        # Afterwards: a front closes a connection that is silent for longer than that takes.
        few, few_connection = _open(folder / "few", stack)
        _fill(few_connection, sizes.few)
        _assign(few_connection, connection, sizes, figures)
        _add(figures, f"coordinator's RSS, {sizes.few:,} wait", "MB", few.rss_bytes() / 1e6)
        _add(figures, "coordinator's RSS, all wait", "MB", many.rss_bytes() / 1e6)
        _add(figures, "first page of 100 of all, p50", "ms", _page(connection, "") * 1e3)
        deep = f"&cursor={cursor.encode(sizes.many // 2)}"
        _add(figures, "page of 100 in the middle of all, p50", "ms", _page(connection, deep) * 1e3)
        _drain(connection, sentinel, sizes.drained, figures)
        many.kill()
        _restart(many.data_dir, figures)


def _open(data_dir: Path, stack: contextlib.ExitStack) -> tuple[Server, Connection]:
    """A warm server whose backlog is paused; the stack kills it, for an orderly end would take long."""
    server = Server(data_dir)
    stack.callback(server.kill)
    connection = Connection(server.port, timeout_s=PATIENCE_S)
    stack.callback(connection.close)
    warm(connection)
    pause(connection, BACKLOG)
    return server, connection


def _fill(connection: Connection, jobs: int) -> None:
    """Submit `jobs` jobs; their inputs do not matter, so most of them are one text."""
    (body,) = bulk_bodies(BATCH, queue=BACKLOG, batch=BATCH)
    for _ in range(jobs // BATCH):
        connection.post("/v1/jobs/bulk", body, 202)
    for rest in bulk_bodies(jobs % BATCH, queue=BACKLOG, batch=BATCH):
        connection.post("/v1/jobs/bulk", rest, 202)


def _fill_up(connection: Connection, sizes: Sizes, figures: Figures) -> str:
    """Submit all; the id of the job that ends the part to be drained."""
    started = time.perf_counter()
    _fill(connection, sizes.drained - 1)
    request = {"handler": "echo", "input": {"i": 7}, "queue": BACKLOG}
    answer = connection.post("/v1/jobs", msgspec.json.encode(request), 202)
    _fill(connection, sizes.many - sizes.drained)
    rate = sizes.many / (time.perf_counter() - started)
    _add(figures, "jobs accepted up to all, 10,000 a request", "jobs/s", rate)
    return str(msgspec.json.decode(answer)["id"])


def _assign(few: Connection, many: Connection, sizes: Sizes, figures: Figures) -> None:
    """Single jobs of another queue from POST to output, chunks of them taking turns."""
    spent: dict[Connection, list[float]] = {few: [], many: []}
    for _ in range(CHUNKS):
        for connection, found in spent.items():
            request = connection.request("POST", "/v1/jobs", QUICK, WAIT)
            found += [single(connection, request) for _ in range(sizes.assigned // CHUNKS)]
    few_s, many_s = percentile(spent[few], 0.5), percentile(spent[many], 0.5)
    _add(figures, f"one job to its output, p50, {sizes.few:,} wait", "ms", few_s * 1e3)
    _add(figures, "one job to its output, p50, all wait", "ms", many_s * 1e3)
    _add(figures, "assign time, all against few", "x", many_s / few_s)


def _page(connection: Connection, position: str) -> float:
    request = connection.request("GET", f"/v1/jobs?state=queued&order=asc&limit=100{position}")
    spent: list[float] = []
    for _ in range(PAGES):
        started = time.perf_counter()
        status, body = connection.exchange(request)
        spent.append(time.perf_counter() - started)
        if status != 200 or not msgspec.json.decode(body)["data"]:
            raise BenchmarkFailed(f"a page of waiting jobs answered {status}: {body[:300]!r}")
    return percentile(spent, 0.5)


def _drain(connection: Connection, sentinel: str, jobs: int, figures: Figures) -> None:
    """From the word that lets the queue go until the last of its first jobs has ended."""
    started = time.perf_counter()
    resume(connection, BACKLOG)
    await_end(connection, sentinel)
    spent = time.perf_counter() - started
    pause(connection, BACKLOG)
    _add(figures, "first jobs drained from all", "jobs/s", jobs / spent)


def _restart(data_dir: Path, figures: Figures) -> None:
    """After a kill: to the word that it is ready, and to the output of a job that is posted then."""
    started = time.perf_counter()
    server = Server(data_dir)
    try:
        ready = time.perf_counter()
        connection = Connection(server.port, timeout_s=PATIENCE_S)
        single(connection, connection.request("POST", "/v1/jobs", QUICK, {"Prefer": "wait=300"}))
        _add(figures, "restart after a kill, all wait: to ready", "s", ready - started)
        first = time.perf_counter() - started
        _add(figures, "restart after a kill, all wait: to the first output", "s", first)
        _add(figures, "coordinator's RSS after the restart", "MB", server.rss_bytes() / 1e6)
        connection.close()
    finally:
        server.stop()


def _add(figures: Figures, name: str, unit: str, value: float) -> None:
    figures.add(name, "runner", unit, value)
