"""Pure: a workload in the making: what each job is, and when it comes for the devices to be so busy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.simulation.job import SimulatedJob
from gpu.job_class import JobClass


@dataclass(frozen=True, slots=True)
class JobShape:
    """A job without its place in the line."""

    job_class: JobClass
    run_s: float
    load_s: float


def poisson_arrivals(
    shapes: Iterator[JobShape], count: int, mean_gap_s: float, draw_gap: Callable[[float], float]
) -> list[SimulatedJob]:
    """Jobs at random gaps: `draw_gap` gives one of an exponential distribution with that rate."""
    jobs: list[SimulatedJob] = []
    now = 0.0
    for number in range(1, count + 1):
        now += draw_gap(1 / mean_gap_s)
        shape = next(shapes)
        jobs.append(SimulatedJob(number, now, shape.run_s, shape.load_s, shape.job_class))
    return jobs
