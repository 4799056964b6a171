"""Pure: how long things are expected to take: runs, loads, and loading again what was sent away."""

from __future__ import annotations

import math
from collections.abc import Container

from gpu.estimates.batch_sizing import BatchSizing
from gpu.estimates.estimator import Estimator
from gpu.estimates.request_rate import RequestRates
from gpu.job_class import JobClass, Key
from gpu.scheduling.residency import Residency
from gpu.scheduling.resident_executor import ResidentExecutor

#: Loading it again within so many seconds is what an eviction is charged for.
RELOAD_HORIZON_S = 100.0
#: A load is taken to last so long where none was seen.
UNKNOWN_LOAD_S = 10.0
#: Who should have ended is taken to need this share of a run more.
LATE_SHARE = 0.3


class TimeEstimates:
    """What is expected, in seconds, by all that was seen."""

    def __init__(
        self,
        estimator: Estimator,
        residency: Residency,
        batch_sizing: BatchSizing,
        waiting_keys: Container[Key],
    ) -> None:
        self._estimator = estimator
        self._residency = residency
        self._batch_sizing = batch_sizing
        self._waiting_keys = waiting_keys
        #: How often each key is asked for.
        self.request_rates = RequestRates()

    def run_s(self, job_class: JobClass) -> float | None:
        """How long a run of the class is taken to last; None where that is unknown. Without a limit that is
        the median: what 9 of 10 take says little where they differ much."""
        return self._estimator.run_s(job_class, 0.5 if math.isinf(job_class.limit_s) else 0.9)

    def run_mean_s(self, job_class: JobClass) -> float | None:
        """What a run of the class takes on average; None where that is unknown."""
        return self._estimator.run_mean_s(job_class)

    def load_s(self, key: Key) -> float | None:
        """What loading takes; None where that is unknown."""
        return self._estimator.load_s(key)

    def remaining_s(self, resident: ResidentExecutor, now: float, run_s: float) -> float:
        """How much longer an executor at work is expected to be. Who is late stays so for a while; one that
        has run longer than all of its like is taken to need as long again."""
        ran_s, runs = now - resident.busy_since, self._batch_sizing.run_count(resident.assigned)
        if resident.state == "loading":
            return run_s * runs + max(0.0, (self.load_s(resident.key) or 0.0) - ran_s)
        longest_s = max(map(self._estimator.longest_s, resident.assigned.values()), default=math.inf)
        return ran_s if ran_s > longest_s * runs else max(run_s * runs - ran_s, LATE_SHARE * run_s)

    def reload_cost_s(self, resident: ResidentExecutor, now: float) -> float:
        """What it is expected to cost that an idle executor goes: loading it again, times how likely it is
        soon wanted."""
        load_s = self.load_s(resident.key)
        if load_s is None:
            load_s = UNKNOWN_LOAD_S
        if resident.key in self._waiting_keys:
            return load_s
        rate_per_executor = self.request_rates.rate(resident.key, now) / max(
            1, len(self._residency.by_key[resident.key])
        )
        # Rounded: what makes no difference of a tenth must not decide.
        return round(load_s * (1 - math.exp(-rate_per_executor * RELOAD_HORIZON_S)), 1)
