"""Effect: draws a workload of many models of which a few are asked for most, as image services see it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from benchmarks.simulation.arrivals import JobShape, poisson_arrivals
from benchmarks.simulation.job import GIB, JobClassCache, SimulatedJob

MODELS = 87
#: (number of models, their share of the requests) from the first model; within a step all have the same.
STEPS = ((1, 0.31), (4, 0.63), (8, 0.81), (16, 0.92), (MODELS, 1.0))
RUN_P50_S = 23.0
#: Of the logarithm. With it the mean is 28.9 s, 1.26 times the median.
RUN_SIGMA = 0.676
LOAD_S = 23.0
#: GPUs that run one job at a time and have room for two models.
DEVICES = 4
DEVICE_BYTES = 80 * GIB
MODEL_BYTES = 40 * GIB
JOBS = 26_000


def weights() -> list[float]:
    """The share of the requests of each model, the most wanted first."""
    shares: list[float] = []
    below = 0.0
    for upto, share in STEPS:
        count = upto - len(shares)
        shares += [(share - below) / count] * count
        below = share
    return shares


def jobs(load: float, seed: int, count: int = JOBS) -> list[SimulatedJob]:
    """Jobs that come at random and whose runs, without loads, ask for the share `load` of the GPUs."""
    rng = random.Random(seed)
    classes = JobClassCache()
    models = [classes.get(f"model-{place:02}", MODEL_BYTES) for place in range(1, MODELS + 1)]
    shares = weights()

    def draw() -> Iterator[JobShape]:
        while True:
            for job_class in rng.choices(models, shares, k=1_000):
                yield JobShape(job_class, rng.lognormvariate(math.log(RUN_P50_S), RUN_SIGMA), LOAD_S)

    mean_run_s = RUN_P50_S * math.exp(RUN_SIGMA**2 / 2)
    return poisson_arrivals(draw(), count, mean_run_s / (DEVICES * load), rng.expovariate)
