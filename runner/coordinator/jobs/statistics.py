"""Effect: statistics of runs: median run times, percentiles, counters."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import defaultdict, deque

from runner.jobs.job import Job

#: Samples kept per handler.
SAMPLES_MAX = 512
#: Staged attempts of an executor are to take about this time in total, at most STAGED_MAX of them.
STAGED_RUN_TIME_S = 0.005
STAGED_MAX = 16
#: The stage depth is updated after this number of runs: the median of few samples costs next to nothing.
DEPTH_UPDATE_RUNS = 16


#: Upper bounds of the histograms' buckets, in seconds.
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
#: Bounds for commits, on which all clients wait: fine where a sound disk's lie, a few for a slow disk.
COMMIT_BOUNDS_S = (
    *(0.00025, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01),
    *(0.0125, 0.015, 0.02, 0.025, 0.035, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


class Histogram:
    """A histogram of seconds; adding a sample costs a bisection."""

    __slots__ = ("bounds_s", "counts", "total_s")

    def __init__(self, bounds_s: tuple[float, ...] = BOUNDS_S) -> None:
        self.bounds_s = bounds_s
        #: One more than the bounds: the last counts all samples beyond them.
        self.counts = [0] * (len(bounds_s) + 1)
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one sample."""
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        self.total_s += seconds


class HandlerStatistics:
    """Statistics of one handler's runs."""

    def __init__(self) -> None:
        self.run_histogram = Histogram()
        self.wait_histogram = Histogram()
        self.run_s: deque[float] = deque(maxlen=SAMPLES_MAX)
        self.wait_s: deque[float] = deque(maxlen=SAMPLES_MAX)
        self.load_s: deque[float] = deque(maxlen=64)
        self.run_count = 0

    def stage_depth(self) -> int:
        """How many short attempts an executor may hold; 1 while the run time is unknown."""
        if not self.run_s:
            return 1
        recent = list(self.run_s)[-32:]
        median = statistics.median(recent)
        return max(1, min(STAGED_MAX, int(STAGED_RUN_TIME_S / max(median, 1e-6))))


class Statistics:
    """Counters since the start of this coordinator."""

    def __init__(self) -> None:
        self.handlers: defaultdict[str, HandlerStatistics] = defaultdict(HandlerStatistics)
        self.failures_by_code: defaultdict[str, int] = defaultdict(int)
        self.ended_by_state: defaultdict[str, int] = defaultdict(int)
        self.recent_ended_at: deque[float] = deque(maxlen=100_000)
        self.submitted_count = 0
        self.retried_count = 0
        self.stale_count = 0
        self.bad_frame_count = 0
        self.commit_histogram = Histogram(COMMIT_BOUNDS_S)
        self.loop_lag_histogram = Histogram()
        self.run_samples_s: deque[float] = deque(maxlen=4 * SAMPLES_MAX)
        self.wait_samples_s: deque[float] = deque(maxlen=4 * SAMPLES_MAX)
        self.queue_run_samples_s: defaultdict[str, deque[float]] = defaultdict(
            lambda: deque(maxlen=SAMPLES_MAX)
        )
        #: Device id -> cause -> description of the fault, the oldest first.
        self.faults_by_device: defaultdict[str, dict[str, str]] = defaultdict(dict)

    def first_fault(self, device_id: str) -> str | None:
        """The oldest fault of a device, if it has any."""
        return next(iter(self.faults_by_device[device_id].values()), None)

    def record_run(self, handler: str, queue: str | None, run_s: float | None, load_s: float | None) -> bool:
        """Record the run or load time of a successful attempt; True when the stage depth is due for an
        update."""
        handler_stats = self.handlers[handler]
        if load_s is not None:
            handler_stats.load_s.append(load_s)
        if run_s is None:
            return False
        handler_stats.run_s.append(run_s)
        handler_stats.run_histogram.add(run_s)
        self.run_samples_s.append(run_s)
        if queue is not None:
            self.queue_run_samples_s[queue].append(run_s)
        handler_stats.run_count += 1
        return handler_stats.run_count <= 2 or handler_stats.run_count % DEPTH_UPDATE_RUNS == 0

    def record_job_end(self, job: Job) -> None:
        """Count a job's end."""
        self.ended_by_state[job.state] += 1
        if job.error is not None:
            self.failures_by_code[job.error.code] += 1
        if job.started_at is not None:
            wait_s = max(0.0, job.started_at - job.ready_at)
            handler_stats = self.handlers[job.handler]
            handler_stats.wait_s.append(wait_s)
            handler_stats.wait_histogram.add(wait_s)
            self.wait_samples_s.append(wait_s)
        if job.finished_at is not None:
            self.recent_ended_at.append(job.finished_at)


def percentiles(samples: deque[float]) -> dict[str, float | None]:
    """Return `{"p50", "p95"}` of the samples (nearest rank, in seconds); None if there are none."""
    if not samples:
        return {"p50": None, "p95": None}
    ordered = sorted(samples)
    last = len(ordered) - 1
    return {"p50": ordered[round(0.5 * last)], "p95": ordered[round(0.95 * last)]}
