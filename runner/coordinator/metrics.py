"""Effect: the Prometheus text: what the coordinator counts, told when asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from runner.coordinator.journal import Journal

if TYPE_CHECKING:
    from runner.coordinator.fleet import Fleet
    from runner.coordinator.line import Line

#: The loop's lag is looked at so often.
LAG_EVERY_S = 0.5
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)


class Metrics:
    """Histograms that are fed as things happen; the rest is read off at scrape time."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._registry = CollectorRegistry(auto_describe=False)
        self.run_seconds = Histogram(
            "runner_run_seconds",
            "Run time of attempts",
            ["handler"],
            registry=self._registry,
            buckets=SECONDS,
        )
        self.wait_seconds = Histogram(
            "runner_wait_seconds",
            "Wait from ready to start",
            ["handler"],
            registry=self._registry,
            buckets=SECONDS,
        )
        self.commit_seconds = Histogram(
            "runner_commit_seconds", "Time of a store commit", registry=self._registry, buckets=SECONDS[:12]
        )
        self.loop_lag = Histogram(
            "runner_loop_lag_seconds",
            "Delay of the coordinator's loop",
            registry=self._registry,
            buckets=SECONDS[:12],
        )
        self._live = _Live()
        self._registry.register(self._live)

    async def watch_lag(self) -> None:
        """Measure how late the loop runs what is due, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            self.loop_lag.observe(max(0.0, loop.time() - due))

    def text(self, bytes_by_device: Mapping[str, Mapping[str, int]], line: Line, fleet: Fleet) -> bytes:
        """The whole exposition."""
        spent, self._journal.commit_seconds = self._journal.commit_seconds, []
        for seconds in spent:
            self.commit_seconds.observe(seconds)
        self._live.families = list(_families(bytes_by_device, line, fleet, self._journal))
        return bytes(generate_latest(self._registry))


class _Live(Collector):
    def __init__(self) -> None:
        self.families: list[Metric] = []

    def collect(self) -> Iterable[Metric]:
        """What was read off for this scrape."""
        return self.families


def _families(
    bytes_by_device: Mapping[str, Mapping[str, int]], line: Line, fleet: Fleet, journal: Journal
) -> Iterable[Metric]:
    jobs = GaugeMetricFamily("runner_jobs", "Jobs by queue and state", labels=["queue", "state"])
    for (queue, state), count in line.book.counts.items():
        jobs.add_metric([queue, state], count)
    yield jobs
    device_bytes = GaugeMetricFamily(
        "runner_device_bytes", "Device memory by kind", labels=["device", "kind"]
    )
    for device, kinds in bytes_by_device.items():
        for kind, nbytes in kinds.items():
            device_bytes.add_metric([device, kind], nbytes)
    yield device_bytes
    ended = CounterMetricFamily("runner_jobs_ended", "Jobs that ended, by state", labels=["state"])
    for state, count in line.figures.ended.items():
        ended.add_metric([state], count)
    yield ended
    failures = CounterMetricFamily("runner_failures", "Jobs that did not succeed, by code", labels=["code"])
    for code, count in line.figures.failures.items():
        failures.add_metric([code], count)
    yield failures
    yield CounterMetricFamily("runner_jobs_submitted", "Jobs accepted", value=line.figures.submitted)
    yield CounterMetricFamily(
        "runner_retries", "Attempts that were followed by another", value=line.figures.retried
    )
    yield CounterMetricFamily("runner_stale_messages", "Late news of old attempts", value=line.figures.stale)
    bad = line.figures.bad_frames + fleet.bad_frames
    yield CounterMetricFamily("runner_bad_frames", "Frames that were not ours", value=bad)
    yield CounterMetricFamily("runner_commits", "Store commits", value=journal.commits)
    workers = GaugeMetricFamily("runner_workers", "Worker processes by role", labels=["role"])
    roles = [worker.role for worker in fleet.workers.values()]
    for role in ("worker", "probe"):
        workers.add_metric([role], roles.count(role))
    yield workers
