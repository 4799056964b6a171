"""Effect: reads the GPU jobs of a real cluster (Alibaba's of 2023) and draws workloads from them.

The files are `openb_pod_list_default.csv` of github.com/alibaba/clusterdata, folder
cluster-trace-gpu-v2023/csv; see Weng et al., "Beware of Fragmentation", USENIX ATC 2023.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.simulation.arrivals import JobShape, poisson_arrivals
from benchmarks.simulation.job import GIB, InvalidJob, JobClassCache, SimulatedJob

FILE = "openb_pod_list_default.csv"
#: One node; a fraction of a GPU is the same fraction of its bytes.
DEVICES = 8
DEVICE_BYTES = 80 * GIB
#: A run of days would decide a simulation of days alone.
RUN_MAX_S = 6 * 3600.0
JOBS = 6_000


@dataclass(frozen=True, slots=True)
class Trace:
    """All GPU jobs of the cluster."""

    shapes: tuple[JobShape, ...]

    def jobs(self, load: float, seed: int, count: int = JOBS) -> list[SimulatedJob]:
        """Jobs drawn with replacement that come at random and ask for the share `load` of the node's GPUs."""
        rng = random.Random(seed)

        def draw() -> Iterator[JobShape]:
            while True:
                yield rng.choice(self.shapes)

        return poisson_arrivals(draw(), count, self.mean_gpu_s / (DEVICES * load), rng.expovariate)

    @property
    def mean_gpu_s(self) -> float:
        """GPU-seconds of a job, where a share of one counts as that."""
        asked = sum(
            each.run_s * each.job_class.gpus * (each.job_class.need_bytes or 0) for each in self.shapes
        )
        return asked / DEVICE_BYTES / len(self.shapes)


def read(folder: Path) -> Trace:
    """The jobs that ask for GPUs; what ran for more than 6 hours counts as 6.

    Raises:
        BadJob: a row is not as the trace's are.
        OSError: the file can't be read.
    """
    classes = JobClassCache()
    shapes: list[JobShape] = []
    with (folder / FILE).open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        for row in reader:
            try:
                gpus, milli = int(row["num_gpu"]), int(row["gpu_milli"])
                run_s = float(row["deletion_time"]) - float(row["creation_time"])
            except (KeyError, ValueError) as error:
                raise InvalidJob(
                    f"{folder / FILE}, line {reader.line_num}: not a row of the trace: {error}"
                ) from None
            if gpus < 1:
                continue
            share = milli if gpus == 1 else 1000
            job_class = classes.get(f"{gpus}x{share}", DEVICE_BYTES * share // 1000, gpus)
            shapes.append(JobShape(job_class, min(max(run_s, 1.0), RUN_MAX_S), 0.0))
    if not shapes:
        raise InvalidJob(f"{folder / FILE} has no job that asks for a GPU")
    return Trace(tuple(shapes))
