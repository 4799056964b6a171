"""Effect: measures how a server stands to a million waiting jobs: assignment, memory, pages, restart."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from benchmarks.figure import Figures, percentile
from benchmarks.server import Server
from benchmarks.sizes import Sizes
from benchmarks.wire import Connection, Failed
from benchmarks.work import WAIT, bulk_bodies, pause, resume, single, warm
from runner import cursor

BACKLOG = "backlog"
#: The most that one request takes.
BATCH = 10_000
QUICK = b'{"handler":"echo","input":{"i":7},"queue":"quick"}'
#: A server under a million jobs may take long; that is then what is measured.
PATIENCE_S = 330.0
PAGES = 20
ASSIGN = "one job to its output, p50"


def measure(folder: Path, sizes: Sizes, figures: Figures, rounds: int) -> None:
    """One server, whatever the rounds: with few jobs in a paused queue, with all, and after a kill."""
    server = Server(folder / "data")
    try:
        connection = Connection(server.port, timeout_s=PATIENCE_S)
        warm(connection)
        pause(connection, BACKLOG)
        _fill(connection, sizes.few)
        few_s = _assign(connection, sizes.assigned)
        _add(figures, f"coordinator's RSS, {sizes.few:,} wait", "MB", server.rss_bytes() / 1e6)
        sentinel = _fill_up(connection, sizes, figures)
        many_s = _assign(connection, sizes.assigned)
        _add(figures, "jobs that wait", "jobs", sizes.many)
        _add(figures, f"{ASSIGN}, {sizes.few:,} wait", "ms", few_s * 1e3)
        _add(figures, f"{ASSIGN}, all wait", "ms", many_s * 1e3)
        _add(figures, "assign time, all against few", "x", many_s / few_s)
        _add(figures, "coordinator's RSS, all wait", "MB", server.rss_bytes() / 1e6)
        _add(figures, "first page of 100 of all, p50", "ms", _page(connection, "") * 1e3)
        deep = f"&cursor={cursor.encode(sizes.many // 2)}"
        _add(figures, "page of 100 in the middle of all, p50", "ms", _page(connection, deep) * 1e3)
        _drain(connection, sentinel, sizes.drained, figures)
        connection.close()
        server.kill()
        _restart(server.data_dir, figures)
    except BaseException:
        server.kill()
        raise


def _fill(connection: Connection, jobs: int) -> None:
    for body in bulk_bodies(jobs, queue=BACKLOG, batch=BATCH):
        connection.post("/v1/jobs/bulk", body, 202)


def _fill_up(connection: Connection, sizes: Sizes, figures: Figures) -> str:
    """Submit what is missing; the id of the job that ends the part to be drained."""
    _fill(connection, sizes.drained - sizes.few - 1)
    request = {"handler": "echo", "input": {"i": 7}, "queue": BACKLOG}
    answer = connection.post("/v1/jobs", msgspec.json.encode(request), 202)
    rest = sizes.many - sizes.drained
    started = time.perf_counter()
    _fill(connection, rest)
    rate = rest / (time.perf_counter() - started)
    _add(figures, "jobs accepted up to all, 10,000 a request", "jobs/s", rate)
    return str(msgspec.json.decode(answer)["id"])


def _assign(connection: Connection, jobs: int) -> float:
    """Half of so many single jobs took at most this long from POST to output."""
    request = connection.request("POST", "/v1/jobs", QUICK, WAIT)
    return percentile([single(connection, request) for _ in range(jobs)], 0.5)


def _page(connection: Connection, place: str) -> float:
    request = connection.request("GET", f"/v1/jobs?state=queued&order=asc&limit=100{place}")
    spent: list[float] = []
    for _ in range(PAGES):
        started = time.perf_counter()
        status, body = connection.exchange(request)
        spent.append(time.perf_counter() - started)
        if status != 200 or not msgspec.json.decode(body)["data"]:
            raise Failed(f"a page of waiting jobs answered {status}: {body[:300]!r}")
    return percentile(spent, 0.5)


def _drain(connection: Connection, sentinel: str, jobs: int, figures: Figures) -> None:
    """From the word that lets the queue go until the last of its first jobs has ended."""
    started = time.perf_counter()
    resume(connection, BACKLOG)
    request = connection.request("GET", f"/v1/jobs/{sentinel}", headers={"Prefer": "wait=300"})
    _, body = connection.exchange(request)
    spent = time.perf_counter() - started
    if msgspec.json.decode(body)["state"] != "succeeded":
        raise Failed(f"the waiting jobs were not drained: {body[:300]!r}")
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
