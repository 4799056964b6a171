"""Effect: measures what runner adds to jobs of 100 ms while all executors are busy."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from benchmarks.figure import Figures
from benchmarks.http_client import BenchmarkFailed, Connection
from benchmarks.scale_sizes import Sizes
from benchmarks.server import Server
from benchmarks.workload import await_succeeded, bulk_bodies, warm

NAP_S = 0.1
EXECUTORS = 2


def measure(folder: Path, sizes: Sizes, figures: Figures, rounds: int) -> None:
    """One long row of jobs, whatever the rounds, from the first start to the last end."""
    server = Server(folder / "data", executors=EXECUTORS)
    try:
        connection = Connection(server.port)
        warm(connection, "nap", jobs=2 * EXECUTORS)
        # An even number: both executors have something to do until the end.
        naps = sizes.naps - sizes.naps % EXECUTORS
        for body in bulk_bodies(naps, queue="naps", handler="nap"):
            connection.post("/v1/jobs/bulk", body, 202)
        await_succeeded(connection, "naps", naps)
        times = _times(connection, "naps")
        if len(times) != naps:
            raise BenchmarkFailed(f"{len(times)} of {naps} jobs are listed")
        wall_s = (max(end for _, end in times) - min(start for start, _ in times)).total_seconds()
        ideal_s = naps * NAP_S / EXECUTORS
        figures.add("overhead on jobs of 100 ms", "runner", "%", 100 * (wall_s - ideal_s) / ideal_s)
        connection.close()
    finally:
        server.stop()


def _times(connection: Connection, queue: str) -> list[tuple[datetime, datetime]]:
    """When each of the queue's jobs started and ended, by the server's clock."""
    found: list[tuple[datetime, datetime]] = []
    cursor = ""
    while True:
        page = msgspec.json.decode(connection.get(f"/v1/jobs?queue={queue}&limit=500{cursor}"))
        for job in page["data"]:
            started, finished = job["started_at"], job["finished_at"]
            found.append((datetime.fromisoformat(started), datetime.fromisoformat(finished)))
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"
