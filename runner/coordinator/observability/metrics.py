"""Effect: the Prometheus metrics, rendered on request."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from runner.coordinator.jobs.statistics import Histogram, Statistics
from runner.coordinator.observability.label_bound import LabelBound

if TYPE_CHECKING:
    from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
    from runner.coordinator.processes.front_pool import FrontPool
    from runner.coordinator.processes.worker_pool import WorkerPool

#: Seconds between two measurements of the event loop's lag.
LAG_INTERVAL_S = 0.5


class Metrics:
    """Renders the counters of other components in the text format of Prometheus.

    Nothing is counted here: the families are built from `Statistics` and its like at each scrape.
    """

    def __init__(self, lifecycle: JobLifecycle, worker_pool: WorkerPool, front_pool: FrontPool) -> None:
        self._lifecycle = lifecycle
        self._statistics = lifecycle.statistics
        self._worker_pool = worker_pool
        self._front_pool = front_pool
        #: The library's default registry would add metrics of the Python process.
        self._registry = CollectorRegistry(auto_describe=False)
        self._scrape = _ScrapeCollector()
        self._registry.register(self._scrape)

    async def measure_lag(self) -> None:
        """Measure how late the event loop runs its timers, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_INTERVAL_S
            await asyncio.sleep(LAG_INTERVAL_S)
            self._statistics.loop_lag_histogram.add(max(0.0, loop.time() - due))

    def render(self, bytes_by_device: Mapping[str, Mapping[str, int]]) -> bytes:
        """Render all metrics. `bytes_by_device` is device -> kind of memory -> bytes."""
        families = [
            *_job_and_device_families(bytes_by_device, self._lifecycle, self._worker_pool),
            *_front_families(self._front_pool),
            *_histograms(self._statistics),
        ]
        self._scrape.families = families
        return bytes(generate_latest(self._registry))


class _ScrapeCollector(Collector):
    """Hands the families of the current scrape to the Prometheus library."""

    def __init__(self) -> None:
        #: Set just before the library collects them.
        self.families: list[Metric] = []

    def collect(self) -> Iterable[Metric]:
        """Return the metric families of this scrape."""
        return self.families


def _histograms(statistics: Statistics) -> Iterable[Metric]:
    """Yield histograms of run and wait times by handler, of commits and of the loop's lag; in seconds."""
    run_times = HistogramMetricFamily("runner_run_seconds", "Run time of attempts", labels=["handler"])
    wait_times = HistogramMetricFamily("runner_wait_seconds", "Wait from ready to start", labels=["handler"])
    for name, handler in statistics.handlers.items():
        run_times.add_metric(
            [name], _cumulative_buckets(handler.run_histogram), handler.run_histogram.total_s
        )
        wait_times.add_metric(
            [name], _cumulative_buckets(handler.wait_histogram), handler.wait_histogram.total_s
        )
    yield run_times
    yield wait_times
    for name, text, buckets in (
        ("runner_commit_seconds", "Time of a store commit", statistics.commit_histogram),
        ("runner_loop_lag_seconds", "Delay of the coordinator's loop", statistics.loop_lag_histogram),
    ):
        family = HistogramMetricFamily(name, text)
        family.add_metric([], _cumulative_buckets(buckets), buckets.total_s)
        yield family


def _cumulative_buckets(buckets: Histogram) -> list[tuple[str, float]]:
    """(upper bound, observations up to it) of each bucket, as Prometheus counts them."""
    bounds = [*map(floatToGoString, buckets.bounds_s), "+Inf"]
    return list(zip(bounds, accumulate(map(float, buckets.counts)), strict=True))


def _front_families(front_pool: FrontPool) -> Iterable[Metric]:
    """Yield the metrics of front processes."""
    states = GaugeMetricFamily("runner_fronts", "Front processes by state", labels=["state"])
    states.add_metric(["answering"], front_pool.answering_count)
    states.add_metric(["silent"], max(0, front_pool.count - front_pool.answering_count))
    yield states
    yield CounterMetricFamily("runner_fronts_lost", "Fronts that died or hung", value=front_pool.lost_count)


def _usage_families(lifecycle: JobLifecycle) -> Iterable[Metric]:
    """Yield the use of devices by handler, tenant and device."""
    accounts = lifecycle.usage_totals
    totals_by_label = (
        ("handler", accounts.handlers),
        ("tenant", accounts.tenants),
        ("device", accounts.devices),
    )
    for label, totals in totals_by_label:
        seconds = CounterMetricFamily(
            f"runner_{label}_device_seconds",
            f"Seconds for which executors were busy on devices, by {label}",
            labels=[label],
        )
        byte_seconds = CounterMetricFamily(
            f"runner_{label}_byte_seconds", f"Busy seconds times granted bytes, by {label}", labels=[label]
        )
        bound, sums = LabelBound(), dict[str, tuple[float, float]]()
        for name, total in totals.items():
            device_s, byte_s = sums.get(bound.label(name), (0.0, 0.0))
            sums[bound.label(name)] = device_s + total.device_s, byte_s + total.byte_s
        for name, (device_s, byte_s) in sums.items():
            seconds.add_metric([name], device_s)
            byte_seconds.add_metric([name], byte_s)
        yield from (seconds, byte_seconds)


def queue_family(counts: Mapping[tuple[str, str], int]) -> Metric:
    """Return the jobs by queue and state, from the numbers of (queue, state)."""
    bound, sums = LabelBound(), Counter[tuple[str, str]]()
    for (queue, state), count in counts.items():
        sums[bound.label(queue), state] += count
    family = GaugeMetricFamily("runner_jobs", "Jobs by queue and state", labels=["queue", "state"])
    for labels, count in sums.items():
        family.add_metric(labels, count)
    return family


def _job_and_device_families(
    bytes_by_device: Mapping[str, Mapping[str, int]], lifecycle: JobLifecycle, worker_pool: WorkerPool
) -> Iterable[Metric]:
    """Yield the metrics of jobs, attempts, devices, messages and workers.

    Gauges show the present state; counters count since the start of the server, except the use of devices,
    which a restart keeps.
    """
    yield queue_family(lifecycle.registry.counts)
    device_bytes = GaugeMetricFamily(
        "runner_device_bytes", "Device memory by kind", labels=["device", "kind"]
    )
    for device, kinds in bytes_by_device.items():
        for kind, nbytes in kinds.items():
            device_bytes.add_metric([device, kind], nbytes)
    yield device_bytes
    device_up = GaugeMetricFamily(
        "runner_device_up", "1 while the device takes new work, 0 while it has a fault", labels=["device"]
    )
    for device in bytes_by_device:
        device_up.add_metric([device], float(lifecycle.statistics.first_fault(device) is None))
    yield device_up
    ended_jobs = CounterMetricFamily("runner_jobs_ended", "Jobs that ended, by state", labels=["state"])
    for state, count in lifecycle.statistics.ended_by_state.items():
        ended_jobs.add_metric([state], count)
    yield ended_jobs
    failures = CounterMetricFamily("runner_failures", "Jobs that did not succeed, by code", labels=["code"])
    for code, count in lifecycle.statistics.failures_by_code.items():
        failures.add_metric([code], count)
    yield failures
    yield CounterMetricFamily(
        "runner_jobs_submitted", "Jobs accepted", value=lifecycle.statistics.submitted_count
    )
    yield CounterMetricFamily(
        "runner_retries", "Failed attempts that were retried", value=lifecycle.statistics.retried_count
    )
    yield CounterMetricFamily(
        "runner_stale_messages", "Late messages about old attempts", value=lifecycle.statistics.stale_count
    )
    yield from _usage_families(lifecycle)
    bad_frames = lifecycle.statistics.bad_frame_count + worker_pool.bad_frames
    yield CounterMetricFamily(
        "runner_bad_frames", "Frames and messages that could not be decoded", value=bad_frames
    )
    yield CounterMetricFamily(
        "runner_commits", "Store commits", value=sum(lifecycle.statistics.commit_histogram.counts)
    )
    workers = GaugeMetricFamily("runner_workers", "Worker processes by role", labels=["role"])
    roles = [worker.role for worker in worker_pool.workers.values()]
    for role in ("worker", "probe"):
        workers.add_metric([role], roles.count(role))
    yield workers
