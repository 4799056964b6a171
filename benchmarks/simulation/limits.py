"""Pure: the time limits of jobs: what people ask for is known, how long a job runs is not."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from benchmarks.simulation.job import Job
from gpu.job_class import JobClass

#: A job's limit is so many times its run, unless its file says otherwise.
FACTOR = 3.0


def limited(jobs: Iterable[Job], factor: float | None) -> list[Job]:
    """The same jobs, where those without a limit get one: so many times their run (None: none), in steps of
    the square root of 2, as the product rounds limits up."""
    classes: dict[tuple[JobClass, float], JobClass] = {}
    made: list[Job] = []
    for job in jobs:
        if factor is not None and math.isinf(job.cls.limit_s):
            key = job.cls, rounded(factor * job.run_s)
            cls = classes.get(key)
            if cls is None:
                cls = classes[key] = replace(job.cls, limit_s=key[1])
            job = replace(job, cls=cls)
        made.append(job)
    return made


def rounded(seconds: float) -> float:
    """The next power of the square root of 2."""
    return float(2 ** (math.ceil(2 * math.log2(max(seconds, 1e-3)) - 1e-9) / 2))
