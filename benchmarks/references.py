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
from benchmarks.line import Sizes
from benchmarks.server import ROOT

#: Polling as tight as is sane; with Huey's defaults (100 ms growing to 10 s, result 50 ms) nothing is quick.
TIGHT = ["--delay", "0.001", "--max-delay", "0.001", "--backoff", "1.0"]


def measure_huey(folder: Path, sizes: Sizes, figures: Figures) -> None:
    """One round of bulk and of one at a time; consumer with 2 processes, all else by default."""
    folder.mkdir(parents=True, exist_ok=True)
    environ = os.environ | {"BENCH_HUEY_DB": str(folder / "huey.db"), "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-m", "benchmarks.references", "setup"], env=environ, cwd=ROOT, check=True
    )
    consumer = _consumer(environ, folder, TIGHT)
    try:
        found = _huey_client(environ, "tight", sizes)
    finally:
        _stop(consumer)
    figures.add("no-op jobs, bulk", "huey", "jobs/s", found[0])
    figures.add("one job at a time, p50", "huey", "ms", found[1])
    figures.add("one job at a time, p99", "huey", "ms", found[2])
    consumer = _consumer(environ, folder, [])
    try:
        found = _huey_client(environ, "default", sizes)
    finally:
        _stop(consumer)
    figures.add("one job at a time, default polling, p50", "huey", "ms", found[1])


def measure_pool(sizes: Sizes, figures: Figures) -> None:
    """One round through ProcessPoolExecutor(2), chunksize 1; nothing is durable there."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_echo, [{"i": i} for i in range(400)], chunksize=1))
        inputs = [{"i": i} for i in range(sizes.bulk)]
        started = time.perf_counter()
        outputs = list(pool.map(_echo, inputs, chunksize=1))
        spent = time.perf_counter() - started
        singles: list[float] = []
        for _ in range(sizes.singles):
            at = time.perf_counter()
            pool.submit(_echo, {"i": 7}).result()
            singles.append(time.perf_counter() - at)
    if outputs != inputs:
        raise RuntimeError("the pool gave other outputs than inputs")
    figures.add("no-op jobs, bulk", "pool", "jobs/s", sizes.bulk / spent)
    figures.add("one job at a time, p50", "pool", "ms", percentile(singles, 0.5) * 1e3)


def _echo(data: dict[str, Any]) -> dict[str, Any]:
    return data


def _consumer(environ: dict[str, str], folder: Path, polling: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "huey.bin.huey_consumer", "benchmarks.huey_app.huey"]
    command += ["--workers", "2", "--worker-type", "process", "--quiet", *polling]
    with (folder / "consumer.log").open("ab") as log:
        return subprocess.Popen(
            command, env=environ, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )


def _stop(consumer: subprocess.Popen[bytes]) -> None:
    consumer.send_signal(signal.SIGINT)
    try:
        consumer.wait(5)
    except subprocess.TimeoutExpired:
        os.killpg(consumer.pid, signal.SIGKILL)
        consumer.wait()


def _huey_client(environ: dict[str, str], mode: str, sizes: Sizes) -> list[float]:
    """Bulk jobs/s, p50 and p99 in ms, as told by a client process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.references", mode, str(sizes.bulk), str(sizes.singles)],
        env=environ,
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return [float(word) for word in done.stdout.split()]


def _client(mode: str, bulk: int, singles: int) -> list[float]:
    from benchmarks.huey_app import echo, huey  # opens the database named in the environment

    tight = {"backoff": 1.0, "max_delay": 0.0005} if mode == "tight" else {}
    for _ in range(20 if mode == "tight" else 1):  # both workers are up and have imported the task
        echo({"i": 0}).get(blocking=True, timeout=30, **tight)
    rate = 0.0
    if mode == "tight":
        started = time.perf_counter()
        results = [echo({"i": i}) for i in range(bulk)]
        while huey.result_count() < bulk:
            time.sleep(0.02)
        stored = huey.storage.peek_many([result.id for result in results])
        outputs = [huey.serializer.deserialize(stored[result.id]) for result in results]
        rate = bulk / (time.perf_counter() - started)
        if outputs != [{"i": i} for i in range(bulk)]:
            raise RuntimeError("Huey gave other outputs than inputs")
        huey.storage.flush_results()
    spent: list[float] = []
    for _ in range(singles if mode == "tight" else 10):
        at = time.perf_counter()
        echo({"i": 7}).get(blocking=True, timeout=30, **tight)
        spent.append(time.perf_counter() - at)
    return [rate, percentile(spent, 0.5) * 1e3, percentile(spent, 0.99) * 1e3]


def main(arguments: list[str]) -> None:
    """`setup` makes the schema before two workers race to; else print what the client measured."""
    if arguments[0] == "setup":
        import benchmarks.huey_app  # noqa: F401
    else:
        print(*_client(arguments[0], int(arguments[1]), int(arguments[2])))


if __name__ == "__main__":
    main(sys.argv[1:])
