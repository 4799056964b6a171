"""Effect: measures how fast jobs are accepted, durable and not run, beside one fsync per job."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.figure import Figures
from benchmarks.http_client import Connection
from benchmarks.plain import Table
from benchmarks.scale_sizes import Sizes
from benchmarks.server import ROOT, Server
from benchmarks.workload import accept, bulk_bodies, pause

#: A paused queue: jobs are accepted as always, and no executor takes cores from the acceptance.
HELD = b'{"handler":"echo","input":{"i":7},"queue":"held"}'
PLAIN = b'{"handler":"echo","input":{"i":7}}'
ONE_BY_ONE = "jobs accepted one by one"


class PlainServer:
    """The reference's process."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            self.port: int = listening.getsockname()[1]
            command = [sys.executable, "-P", "-m", "benchmarks.plain", str(folder / "plain.db")]
            self._process = subprocess.Popen(
                [*command, str(listening.fileno())],
                pass_fds=(listening.fileno(),),
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                cwd=ROOT,
            )

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


def measure(folder: Path, sizes: Sizes, figures: Figures, rounds: int) -> None:
    """Rounds in which runner and the reference take turns."""
    server, plain = Server(folder / "data"), PlainServer(folder)
    try:
        ours, theirs = Connection(server.port), Connection(plain.port)
        pause(ours, "held")
        requests = {
            "runner": (ours, ours.request("POST", "/v1/jobs", HELD)),
            "plain": (theirs, theirs.request("POST", "/", PLAIN)),
        }
        for connection, request in requests.values():
            accept(connection, request, 20)
        for number in range(rounds):
            spent = dict.fromkeys(requests, 0.0)
            for _ in range(sizes.accept_chunks):
                for subject, (connection, request) in requests.items():
                    spent[subject] += accept(connection, request, sizes.accept_chunk)
            for subject, seconds in spent.items():
                jobs = sizes.accept_chunks * sizes.accept_chunk
                figures.add(ONE_BY_ONE, subject, "jobs/s", jobs / seconds)
            figures.add("jobs accepted in bulk", "runner", "jobs/s", _bulk(ours, sizes.accept_bulk))
            _machine(folder / str(number), sizes.accept_rows, figures)
        ours.close()
        theirs.close()
    finally:
        plain.stop()
        server.stop()


def _bulk(connection: Connection, jobs: int) -> float:
    bodies = bulk_bodies(jobs, queue="held")
    started = time.perf_counter()
    for body in bodies:
        connection.post("/v1/jobs/bulk", body, 202)
    return jobs / (time.perf_counter() - started)


def _machine(path: Path, rows: int, figures: Figures) -> None:
    """What bounds any durable accept here: the insert without HTTP, and the sync without SQLite."""
    table = Table(path.with_suffix(".db"))
    started = time.perf_counter()
    for _ in range(rows):
        table.insert("echo", b'{"i":7}')
    spent = time.perf_counter() - started
    table.close()
    figures.add("rows inserted, one fsync each", "sqlite", "rows/s", rows / spent)
    page = bytes(4096)
    with path.with_suffix(".sync").open("wb", buffering=0) as file:
        started = time.perf_counter()
        for _ in range(rows):
            os.pwrite(file.fileno(), page, 0)
            os.fdatasync(file.fileno())
        spent = time.perf_counter() - started
    figures.add("pages overwritten and synced", "disk", "fdatasync/s", rows / spent)
