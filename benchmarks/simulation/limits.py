"""Pure: the time limits of jobs: what people ask for is known, how long a job runs is not."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from benchmarks.simulation.job import SimulatedJob
from gpu.job_class import JobClass

#: A job's limit is this multiple of its run, unless its file says otherwise.
LIMIT_FACTOR = 3.0


def add_limits(jobs: Iterable[SimulatedJob], factor: float | None) -> list[SimulatedJob]:
    """The same jobs, where those without a limit get one: `factor` times their run (None: none), in steps of
    the square root of 2, as the product rounds limits up."""
    classes: dict[tuple[JobClass, float], JobClass] = {}
    made: list[SimulatedJob] = []
    for job in jobs:
        if factor is not None and math.isinf(job.job_class.limit_s):
            key = job.job_class, round_limit(factor * job.run_s)
            job_class = classes.get(key)
            if job_class is None:
                job_class = classes[key] = replace(job.job_class, limit_s=key[1])
            job = replace(job, job_class=job_class)
        made.append(job)
    return made


def round_limit(seconds: float) -> float:
    """The next power of the square root of 2."""
    return float(2 ** (math.ceil(2 * math.log2(max(seconds, 1e-3)) - 1e-9) / 2))
