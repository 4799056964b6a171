"""Effect: the measurements on one GPU, each on servers of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx2

from benchmarks.device.device_under_test import DeviceUnderTest
from benchmarks.figure import Figures, percentile
from benchmarks.http_client import BenchmarkFailed
from runner.client import JobHandle
from runner.testing import ServedClient

SMALL = ("small-0", "small-1", "small-2", "small-3")
#: A server, a process, torch and a context: on a machine whose disk is cold that takes long.
START_S = 120.0
JOB_S = 0.1
#: What a cancelled job holds, and what others may have taken meanwhile.
HELD_BYTES, SLACK_BYTES = 4 << 30, 64 << 20


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything is measured."""

    packed_jobs: int = 400
    warm_jobs: int = 100
    cold_jobs: int = 5
    cancels: int = 20
    rounds: int = 3
    busy_jobs: int = 50


QUICK = Sizes(packed_jobs=16, warm_jobs=5, cold_jobs=1, cancels=2, rounds=1, busy_jobs=5)


def packing(device_under_test: DeviceUnderTest, sizes: Sizes, figures: Figures) -> None:
    """Four small models on the device, all loaded: packed by bytes, and one at a time by a lock."""
    with device_under_test.serve(at_once=len(SMALL)) as client:
        _warm(client, SMALL)
        lock = str(client.server.data_dir / "one-at-a-time")
        for subject, data in (("packed by bytes", {}), ("one at a time", {"lock": lock})):
            jobs = [{"handler": name, "input": data} for name in SMALL * (sizes.packed_jobs // len(SMALL))]
            with device_under_test.measure_usage() as seen:
                began = time.monotonic()
                _all_succeed(_submit(client, jobs))
                spent_s = time.monotonic() - began
                busy, full = seen()
            figures.add("4 small models", subject, "jobs/s", len(jobs) / spent_s)
            if busy is not None:
                figures.add("4 small models: device busy by the driver", subject, "%", busy)
            figures.add("4 small models: device memory at most", subject, "MiB", full / (1 << 20))


def warm_and_cold(device_under_test: DeviceUnderTest, sizes: Sizes, figures: Figures) -> None:
    """A small model's job in a process that has to be started, and in one that is loaded."""
    with device_under_test.serve(at_once=2) as client:
        empty = device_under_test.used_bytes()
        for _ in range(sizes.cold_jobs):
            began = time.monotonic()
            client.run("cold", {}, result_timeout=START_S)
            figures.add("a small model's job", "cold", "s", time.monotonic() - began)
            device_under_test.wait_until_used_at_most(empty + SLACK_BYTES, within_s=30)
        _warm(client, SMALL[:1])
        spent = []
        for _ in range(sizes.warm_jobs):
            began = time.monotonic()
            client.run(SMALL[0], {}, result_timeout=START_S)
            spent.append(time.monotonic() - began)
        for share in (0.5, 0.99):
            figures.add(f"a small model's job, p{share * 100:.0f}", "warm", "s", percentile(spent, share))


def cancel(device_under_test: DeviceUnderTest, sizes: Sizes, figures: Figures) -> None:
    """A forced cancel of a job in mid-kernel, until its memory is free and until it may be granted again."""
    free, grantable = [], []
    with device_under_test.serve(at_once=2) as client:
        empty = device_under_test.used_bytes()
        for _ in range(sizes.cancels):
            job = client.submit("burn", {"bytes": HELD_BYTES}, retries=0)
            _await_progress(job)
            if device_under_test.used_bytes() < empty + HELD_BYTES:
                raise BenchmarkFailed("the driver does not show the memory that a job holds")
            began = time.monotonic()
            _post(client, f"/v1/jobs/{job.id}/cancel", {"force": True})
            device_under_test.wait_until_used_at_most(empty + SLACK_BYTES, within_s=30)
            free.append(time.monotonic() - began)
            _await_no_draining(client)
            grantable.append(time.monotonic() - began)
    for name, spent in (("memory is free", free), ("it may be granted again", grantable)):
        for share in (0.5, 0.99):
            figures.add(f"cancel until {name}, p{share * 100:.0f}", "runner", "s", percentile(spent, share))


def overhead(device_under_test: DeviceUnderTest, sizes: Sizes, figures: Figures) -> None:
    """Jobs that keep the device busy for 100 ms, against the same work in one plain process."""
    with device_under_test.run_plain() as ask, device_under_test.serve(at_once=1) as client:
        times = int(ask(f"times {JOB_S}"))
        client.run("products", {"times": times}, result_timeout=START_S)
        for _ in range(sizes.rounds):
            plain_s = float(ask(f"run {times} {sizes.busy_jobs}"))
            jobs = [{"handler": "products", "input": {"times": times}}] * sizes.busy_jobs
            ours_s = _span_s([job.status() for job in _all_succeed(_submit(client, jobs))])
            figures.add("a GPU job of 100 ms", "plain", "ms", 1e3 * plain_s / sizes.busy_jobs)
            figures.add("a GPU job of 100 ms", "runner", "ms", 1e3 * ours_s / sizes.busy_jobs)
            figures.add(OVERHEAD, "runner", "%", 100 * (ours_s - plain_s) / plain_s)


OVERHEAD = "overhead on a GPU job of 100 ms"
MEASURES = {"packing": packing, "warm": warm_and_cold, "cancel": cancel, "overhead": overhead}


def _warm(client: ServedClient, handlers: tuple[str, ...]) -> None:
    """Load the models and run each twice."""
    for name in handlers * 2:
        client.run(name, {}, result_timeout=START_S)


def _submit(client: ServedClient, jobs: list[dict[str, Any]]) -> list[JobHandle[Any]]:
    """In one request, so that jobs of different handlers lie in the line in this order."""
    return [client.job(job["id"]) for job in _post(client, "/v1/jobs/bulk", {"jobs": jobs})["jobs"]]


def _post(client: ServedClient, path: str, body: object) -> Any:
    answer = httpx2.post(f"{client.server.url}{path}", json=body, timeout=START_S, trust_env=False)
    if answer.status_code != 202:
        raise BenchmarkFailed(f"POST {path} was answered {answer.status_code}: {answer.text}")
    return answer.json()


def _all_succeed(jobs: list[JobHandle[Any]]) -> list[JobHandle[Any]]:
    """Back when they have ended, the last first: so few have to be waited for."""
    for job in reversed(jobs):
        job.result(timeout=START_S)
    return jobs


def _span_s(jobs: list[Any]) -> float:
    """From the first start to the last end, by the jobs' own times."""
    starts = [datetime.fromisoformat(job["started_at"]) for job in jobs]
    ends = [datetime.fromisoformat(job["finished_at"]) for job in jobs]
    return (max(ends) - min(starts)).total_seconds()


def _await_progress(job: JobHandle[Any]) -> None:
    for event in job.events():
        if event.type == "progress":
            return
    raise BenchmarkFailed(f"{job.status()} ended before it computed: {job.status().error}")


def _await_no_draining(client: ServedClient, within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while any(_draining(each) for each in client.devices()):
        if time.monotonic() > deadline:
            raise BenchmarkFailed(f"memory is still not to be granted {within_s:g} s after a kill")
        time.sleep(0.005)


def _draining(device: Mapping[str, Any]) -> int:
    return int(device["draining_bytes"]) if device["kind"] == "nvidia" else 0
