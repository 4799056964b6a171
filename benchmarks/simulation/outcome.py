"""Pure: what became of the jobs of one run, and its figures."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.simulation.job import SimulatedJob


class _PriorityJobs:
    """The jobs of one priority, by number in order of submission."""

    __slots__ = ("all", "started", "waiting")

    def __init__(self) -> None:
        self.all = array("q")
        self.waiting: list[int] = []
        self.started = 0

    def count_overtaken(self, number: int) -> int:
        """How many younger ones than `n` have started: all that have, less the older ones of them."""
        return self.started - bisect_left(self.all, number) + bisect_left(self.waiting, number)


class Outcome:
    """Waits by number of devices, and what the run cost."""

    def __init__(self) -> None:
        #: From submission to the start of the run, in seconds.
        self.waits: dict[int, array[float]] = {}
        #: Of each tenant its waits and its seconds of devices.
        self._tenants: dict[str, tuple[array[float], list[float]]] = {}
        self.cold_starts = 0
        #: The most younger jobs, of equal or lower priority, that got an executor before one job did.
        self.max_overtaken = 0
        self.device_s = 0.0
        self._first_s: float | None = None
        self._last_s = 0.0
        self._priorities: dict[int, _PriorityJobs] = {}

    def record_submission(self, job: SimulatedJob) -> None:
        """A job waits."""
        if self._first_s is None:
            self._first_s = job.submit_s
        level = self._priorities.setdefault(job.job_class.priority, _PriorityJobs())
        level.all.append(job.number)
        level.waiting.append(job.number)

    def record_start(self, job: SimulatedJob, now: float, *, is_cold: bool) -> float:
        """A job got its executor; gives when it ends."""
        levels = self._priorities.items()
        overtook = sum(
            jobs.count_overtaken(job.number)
            for priority, jobs in levels
            if priority <= job.job_class.priority
        )
        self.max_overtaken = max(self.max_overtaken, overtook)
        own_priority = self._priorities[job.job_class.priority]
        del own_priority.waiting[bisect_left(own_priority.waiting, job.number)]
        own_priority.started += 1
        begins = now + job.load_s if is_cold else now
        end = begins + job.run_s
        self.waits.setdefault(job.job_class.gpus, array("d")).append(begins - job.submit_s)
        self.cold_starts += is_cold
        device_s = job.job_class.gpus * (end - now)
        self.device_s += device_s
        waits, used = self._tenants.setdefault(job.job_class.tenant, (array("d"), [0.0]))
        waits.append(begins - job.submit_s)
        used[0] += device_s
        self._last_s = max(self._last_s, end)
        return end

    @property
    def makespan_s(self) -> float:
        """From the first submission to the last end."""
        return self._last_s - (self._first_s or 0.0)

    def waits_of(self, min_gpus: int = 1) -> list[float]:
        """The waits of jobs of at least `min_gpus` devices, the shortest first."""
        return sorted(wait for gpus, waits in self.waits.items() if gpus >= min_gpus for wait in waits)

    def figures(self) -> dict[str, Any]:
        """All figures, ready for JSON; waits of which there are none are None. Where there are several
        tenants each has its own."""
        tenants = {
            name: {**wait_figures(sorted(waits)), "device_s": used}
            for name, (waits, (used,)) in sorted(self._tenants.items())
        }
        return {
            **wait_figures(self.waits_of()),
            "cold_starts": self.cold_starts,
            "max_overtaken": self.max_overtaken,
            "makespan_s": self.makespan_s,
            "device_s": self.device_s,
            "big": wait_figures(self.waits_of(2)),
            "big4": wait_figures(self.waits_of(4)),
            **({"tenants": tenants} if len(tenants) > 1 else {}),
        }


def wait_figures(waits: Sequence[float]) -> dict[str, float | None]:
    """Mean, percentiles (nearest rank) and maximum of sorted waits."""
    if not waits:
        return dict.fromkeys(("mean_wait_s", "p50_wait_s", "p95_wait_s", "max_wait_s"))
    return {
        "mean_wait_s": sum(waits) / len(waits),
        "p50_wait_s": _rank(waits, 50),
        "p95_wait_s": _rank(waits, 95),
        "max_wait_s": waits[-1],
    }


def average(runs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Figures of several runs as one: of maxima the largest, else the mean over the runs that have it."""
    runs = list(runs)
    if len(runs) == 1:
        return runs[0]
    merged: dict[str, Any] = {}
    for name, first in runs[0].items():
        values = [run[name] for run in runs if run[name] is not None]
        if isinstance(first, dict):
            merged[name] = average(values)
        elif not values:
            merged[name] = None
        else:
            merged[name] = max(values) if name.startswith("max_") else sum(values) / len(values)
    return merged


def _rank(waits: Sequence[float], percent: int) -> float:
    return waits[-(-len(waits) * percent // 100) - 1]
