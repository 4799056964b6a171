"""Pure: how long things should take: runs, loads, and reloading what was evicted."""

from __future__ import annotations

import math
from collections.abc import Container

from gpu.estimates.batch_sizing import BatchSizing
from gpu.estimates.estimator import Estimator
from gpu.estimates.request_rate import RequestRates
from gpu.job_class import JobClass, Key
from gpu.scheduling.residency import Residency
from gpu.scheduling.resident_executor import ResidentExecutor

#: An eviction is charged for the chance of a reload within this time, in seconds.
RELOAD_HORIZON_S = 100.0
#: Assumed duration of a load where none was observed.
UNKNOWN_LOAD_S = 10.0
#: An executor that is late is expected to need this share of a run more.
LATE_SHARE = 0.3


class TimeEstimates:
    """Expected durations in seconds, from everything that was observed."""

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
        #: How often each key is requested.
        self.request_rates = RequestRates()

    def run_s(self, job_class: JobClass) -> float | None:
        """Return the expected duration of a run of the class; None where that is unknown.

        For a class without a limit it is the median: the 0.9 quantile says little where runs differ widely.
        """
        return self._estimator.run_s(job_class, 0.5 if math.isinf(job_class.limit_s) else 0.9)

    def run_mean_s(self, job_class: JobClass) -> float | None:
        """Return the mean duration of a run of the class; None where that is unknown."""
        return self._estimator.run_mean_s(job_class)

    def load_s(self, key: Key) -> float | None:
        """Return the duration of a load; None where that is unknown."""
        return self._estimator.load_s(key)

    def remaining_s(self, resident: ResidentExecutor, now: float, run_s: float) -> float:
        """Return how many seconds longer a busy executor should take, if one of its runs takes `run_s`.

        An executor that is late needs a share of a run more; one that has run longer than any of its class is
        expected to need as long again.
        """
        ran_s, runs = now - resident.busy_since, self._batch_sizing.run_count(resident.assigned)
        if resident.state == "loading":
            return run_s * runs + max(0.0, (self.load_s(resident.key) or 0.0) - ran_s)
        longest_s = max(map(self._estimator.longest_s, resident.assigned.values()), default=math.inf)
        return ran_s if ran_s > longest_s * runs else max(run_s * runs - ran_s, LATE_SHARE * run_s)

    def reload_cost_s(self, resident: ResidentExecutor, now: float) -> float:
        """Return the expected cost of evicting an idle executor.

        In seconds: the time to load it again, times the probability that it is requested within the horizon,
        1 - exp(-rate * horizon) for Poisson arrivals. The rate of a key is shared by its executors.
        """
        load_s = self.load_s(resident.key)
        if load_s is None:
            load_s = UNKNOWN_LOAD_S
        if resident.key in self._waiting_keys:
            return load_s
        rate_per_executor = self.request_rates.rate(resident.key, now) / max(
            1, len(self._residency.by_key[resident.key])
        )
        # Rounded: a difference below a tenth of a second must not decide.
        return round(load_s * (1 - math.exp(-rate_per_executor * RELOAD_HORIZON_S)), 1)
