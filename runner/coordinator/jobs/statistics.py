"""Effect: figures learned from what ran: median run times, percentiles, counters."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import defaultdict, deque

from runner.jobs.job import Job

#: Samples kept per handler.
WINDOW = 512
#: A staged line is as long as fits into so many seconds, at most STAGE_MAX attempts.
STAGE_S = 0.005
STAGE_MAX = 16
#: The stage depth is told anew after so many ends: a median of few samples costs next to nothing.
EVERY = 16


#: Upper bounds of the histograms' buckets, in seconds.
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
#: Those of commits, which everybody waits for: fine where a sound disk's lie, some to tell a sick one by.
COMMIT_BOUNDS_S = (
    *(0.00025, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01),
    *(0.0125, 0.015, 0.02, 0.025, 0.035, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


class Buckets:
    """A histogram of seconds; adding costs a bisection."""

    __slots__ = ("bounds_s", "counts", "total_s")

    def __init__(self, bounds_s: tuple[float, ...] = BOUNDS_S) -> None:
        self.bounds_s = bounds_s
        #: One more than the bounds: the last takes what is beyond them.
        self.counts = [0] * (len(bounds_s) + 1)
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one sample."""
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        self.total_s += seconds


class HandlerFigures:
    """What is known of one handler's runs."""

    def __init__(self) -> None:
        self.run_buckets = Buckets()
        self.wait_buckets = Buckets()
        self.run_s: deque[float] = deque(maxlen=WINDOW)
        self.wait_s: deque[float] = deque(maxlen=WINDOW)
        self.load_s: deque[float] = deque(maxlen=64)
        self.ends = 0

    def stage_depth(self) -> int:
        """How many short attempts an executor may hold; 1 while the run time is unknown."""
        if not self.run_s:
            return 1
        recent = list(self.run_s)[-32:]
        median = statistics.median(recent)
        return max(1, min(STAGE_MAX, int(STAGE_S / max(median, 1e-6))))


class Figures:
    """Counters since the start of this coordinator."""

    def __init__(self) -> None:
        self.handlers: defaultdict[str, HandlerFigures] = defaultdict(HandlerFigures)
        self.failures: defaultdict[str, int] = defaultdict(int)
        self.ended: defaultdict[str, int] = defaultdict(int)
        self.ended_at: deque[float] = deque(maxlen=100_000)
        self.submitted = 0
        self.retried = 0
        self.stale = 0
        self.bad_frames = 0
        self.commits = Buckets(COMMIT_BOUNDS_S)
        self.loop_lag = Buckets()
        self.all_runs: deque[float] = deque(maxlen=4 * WINDOW)
        self.all_waits: deque[float] = deque(maxlen=4 * WINDOW)
        self.queue_runs: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))
        #: Device id -> cause -> what is wrong with it, in words, the first one found first.
        self.faults: defaultdict[str, dict[str, str]] = defaultdict(dict)

    def fault(self, device_id: str) -> str | None:
        """What is wrong with a device, if anything is."""
        return next(iter(self.faults[device_id].values()), None)

    def ran(self, handler: str, queue: str | None, run_s: float | None, load_s: float | None) -> bool:
        """An attempt ended well after so long; True when the stage depth should be told anew."""
        figures = self.handlers[handler]
        if load_s is not None:
            figures.load_s.append(load_s)
        if run_s is None:
            return False
        figures.run_s.append(run_s)
        figures.run_buckets.add(run_s)
        self.all_runs.append(run_s)
        if queue is not None:
            self.queue_runs[queue].append(run_s)
        figures.ends += 1
        return figures.ends <= 2 or figures.ends % EVERY == 0

    def job_ended(self, job: Job) -> None:
        """Count a job's end."""
        self.ended[job.state] += 1
        if job.error is not None:
            self.failures[job.error.code] += 1
        if job.started_at is not None:
            wait_s = max(0.0, job.started_at - job.ready_at)
            figures = self.handlers[job.handler]
            figures.wait_s.append(wait_s)
            figures.wait_buckets.add(wait_s)
            self.all_waits.append(wait_s)
        if job.finished_at is not None:
            self.ended_at.append(job.finished_at)


def percentiles(samples: deque[float]) -> dict[str, float | None]:
    """`{"p50", "p95"}` of the samples in seconds; null where there are none."""
    if not samples:
        return {"p50": None, "p95": None}
    ordered = sorted(samples)
    last = len(ordered) - 1
    return {"p50": ordered[round(0.5 * last)], "p95": ordered[round(0.95 * last)]}
