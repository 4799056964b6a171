"""Effect: measures the references on the same work: Huey with SQLite, and a plain process pool."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.figure import Figures, percentile
from benchmarks.http_client import BenchmarkFailed
from benchmarks.scale_sizes import Sizes
from benchmarks.server import ROOT

#: Polling as tight as is sane; with Huey's defaults (100 ms growing to 10 s, result 50 ms) nothing is quick.
TIGHT = ("--delay", "0.001", "--max-delay", "0.001", "--backoff", "1.0")
TIGHT_RESULT = {"backoff": 1.0, "max_delay": 0.0005}


class Huey:
    """Huey over SQLite with 2 consumer processes. They stand still (SIGSTOP) while others are measured,
    for an idle consumer that polls tightly is a load."""

    def __init__(self, folder: Path, sizes: Sizes, figures: Figures) -> None:
        self._folder = folder
        self._sizes = sizes
        self._figures = figures
        self._singles: list[float] = []
        self._environ = os.environ | {"BENCH_HUEY_DB": str(folder / "huey.db"), "PYTHONPATH": str(ROOT)}

    def open(self, polling: tuple[str, ...] = TIGHT) -> None:
        """Make the schema (two workers would race to), start the consumer and warm it up."""
        os.environ["BENCH_HUEY_DB"] = self._environ["BENCH_HUEY_DB"]
        from benchmarks.huey_app import echo, huey  # opens the database that the environment names

        self._huey, self._echo = huey, echo
        command = [sys.executable, "-m", "huey.bin.huey_consumer", "benchmarks.huey_app.huey"]
        command += ["--workers", "2", "--worker-type", "process", "--quiet", *polling]
        with (self._folder / "huey.log").open("ab") as log:
            self._consumer = subprocess.Popen(
                command, env=self._environ, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(20 if polling else 1):
            self._single(**TIGHT_RESULT)
        self._stop_consumer()

    def close(self) -> None:
        """End the consumer."""
        self._resume_consumer()
        self._consumer.send_signal(signal.SIGINT)
        try:
            self._consumer.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._consumer.pid, signal.SIGKILL)
            self._consumer.wait()

    def bulk(self) -> None:
        """Enqueue one by one (there is no bulk), wait until all results are stored, read and compare."""
        total = self._sizes.bulk
        self._resume_consumer()
        started = time.perf_counter()
        results = [self._echo({"i": i}) for i in range(total)]
        while self._huey.result_count() < total:
            time.sleep(0.02)
        stored = self._huey.storage.peek_many([result.id for result in results])
        outputs = [self._huey.serializer.deserialize(stored[result.id]) for result in results]
        spent = time.perf_counter() - started
        self._stop_consumer()
        if outputs != [{"i": i} for i in range(total)]:
            raise BenchmarkFailed("Huey gave other outputs than inputs")
        self._huey.storage.flush_results()
        self._figures.add("no-op jobs, bulk", "huey", "jobs/s", total / spent)

    def singles(self) -> None:
        """One chunk of tasks one at a time, each to its result."""
        self._resume_consumer()
        self._single(**TIGHT_RESULT)
        self._singles += [self._single(**TIGHT_RESULT) for _ in range(self._sizes.chunk)]
        self._stop_consumer()

    def finish(self) -> None:
        """The round's percentiles."""
        self._figures.add("one job at a time, p50", "huey", "ms", percentile(self._singles, 0.5) * 1e3)
        self._figures.add("one job at a time, p99", "huey", "ms", percentile(self._singles, 0.99) * 1e3)
        self._singles = []

    def defaults(self) -> None:
        """For comparison, the same with nothing set: not what the ratio is made of."""
        self.close()
        self.open(())
        self._resume_consumer()
        spent = [self._single() for _ in range(10)]
        self._figures.add("one job, Huey's default polling, p50", "huey", "ms", percentile(spent, 0.5) * 1e3)

    def _single(self, **polling: float) -> float:
        started = time.perf_counter()
        self._echo({"i": 7}).get(blocking=True, timeout=30, **polling)
        return time.perf_counter() - started

    def _resume_consumer(self) -> None:
        os.killpg(self._consumer.pid, signal.SIGCONT)

    def _stop_consumer(self) -> None:
        os.killpg(self._consumer.pid, signal.SIGSTOP)


class Pool:
    """ProcessPoolExecutor(2), chunksize 1; nothing is durable there."""

    def __init__(self, sizes: Sizes, figures: Figures) -> None:
        self._sizes = sizes
        self._figures = figures

    def open(self) -> None:
        """Start both processes and warm them up."""
        self._pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
        list(self._pool.map(_same, [{"i": i} for i in range(400)], chunksize=1))

    def close(self) -> None:
        """End both processes."""
        self._pool.shutdown()

    def bulk(self) -> None:
        """Map and compare."""
        inputs = [{"i": i} for i in range(self._sizes.bulk)]
        started = time.perf_counter()
        outputs = list(self._pool.map(_same, inputs, chunksize=1))
        spent = time.perf_counter() - started
        if outputs != inputs:
            raise BenchmarkFailed("the pool gave other outputs than inputs")
        self._figures.add("no-op jobs, bulk", "pool", "jobs/s", self._sizes.bulk / spent)


def _same(data: dict[str, Any]) -> dict[str, Any]:
    return data
