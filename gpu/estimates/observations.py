"""Pure: the memory and durations observed of jobs that are alike."""

from __future__ import annotations

from typing import Any

from gpu.estimates.weighted_window import WeightedWindow, quantile_uncertainty

MIB = 1024 * 1024
#: Added to a measured peak: allocators round up (torch takes segments of 20 MiB) and vary slightly between
#: runs, and a sweep every 250 ms misses the very top.
MARGIN_BYTES = 64 * MIB
#: A job that ran out of memory needs more than its grant; this multiple is tried.
OOM_GROWTH = 1.25
#: The minimum learned from running out is halved after this many jobs that did not.
OOM_HALF_LIFE = 256
#: The most limits whose runs are kept apart: the most recently used ones.
LIMITS_MAX = 32
#: The stated need is lowered where the estimate is less than this share of it; a smaller change is noise.
LOWER_SHARE = 0.95
#: Less than the declared need is granted once this many jobs took no more than the first share of it, until
#: the need reaches the second share again.
OVERDECLARED_MIN_PEAKS = 16
OVERDECLARED_SHARE = 0.8
NEAR_SHARE = 0.95


class Observations:
    """Observations of one (handler, model), or of one size of its jobs."""

    __slots__ = (
        "has_recent_oom",
        "is_overdeclared",
        "need_bytes",
        "oom_minimum_bytes",
        "out_of_memory",
        "peaks",
        "run_s",
        "runs_by_limit",
    )

    def __init__(self) -> None:
        self.peaks = WeightedWindow()
        self.run_s = WeightedWindow()
        #: Durations by the jobs' limits: jobs with a longer limit mostly run longer.
        self.runs_by_limit: dict[float, WeightedWindow] = {}
        #: Number of jobs that ran out of memory.
        self.out_of_memory = 0
        #: The need is at least this much, learned from those jobs; it decays.
        self.oom_minimum_bytes = 0.0
        #: A job ran out of memory, and no peak was measured since.
        self.has_recent_oom = False
        #: The declared need is known to be more than is needed.
        self.is_overdeclared = False
        #: The stated need: it follows the estimate in steps, else executors would not suit for long. 0:
        #: unknown.
        self.need_bytes = 0

    @property
    def peak_bytes(self) -> int:
        """The peak of all but very few jobs; 0 where none was measured."""
        return int(self.peaks.quantile(0.99)) if self.peaks else 0

    def estimate(self) -> int:
        """Return the need by all present observations; 0 where there are none."""
        if not self.peaks:
            return int(self.oom_minimum_bytes)
        return max(self._with_margin(1.0), int(self.oom_minimum_bytes))

    def add_peak(self, peak_bytes: int, declared: int | None) -> bool:
        """Record the peak of a successful job; True where the stated need changes."""
        self.peaks.add(peak_bytes)
        self.oom_minimum_bytes *= 0.5 ** (1 / OOM_HALF_LIFE)
        had_recent_oom, self.has_recent_oom = self.has_recent_oom, False
        is_changed = self._update_need() or had_recent_oom
        if declared is not None:
            was_overdeclared = self.is_overdeclared
            share = NEAR_SHARE if was_overdeclared else OVERDECLARED_SHARE
            self.is_overdeclared = (
                len(self.peaks) >= OVERDECLARED_MIN_PEAKS and self.need_bytes < share * declared
            )
            is_changed = is_changed or self.is_overdeclared != was_overdeclared
        return is_changed

    def add_run(self, run_s: float, limit_s: float) -> None:
        """Record the duration of a successful job with that limit."""
        self.run_s.add(run_s)
        runs = self.runs_by_limit.pop(limit_s, None)
        if runs is None:
            runs = WeightedWindow()
            if len(self.runs_by_limit) >= LIMITS_MAX:
                del self.runs_by_limit[next(iter(self.runs_by_limit))]
        runs.add(run_s)
        self.runs_by_limit[limit_s] = runs

    def add_oom(self, had_bytes: int | None) -> None:
        """Record that a job ran out of memory with this grant; None where that holds for no other job."""
        self.out_of_memory += 1
        self.has_recent_oom = True
        if had_bytes is not None:
            self.oom_minimum_bytes = max(self.oom_minimum_bytes, had_bytes * OOM_GROWTH)
            self._update_need()

    def need_for(self, declared: int | None, *, is_own: bool) -> int | None:
        """Return what to grant, given the declared need; None where it is still to be measured.

        Only jobs of the same size (`is_own`) lower a declared need: it may be meant for that size.
        """
        if declared is None:
            return None if self.has_recent_oom else self.need_bytes or None
        is_more = self.peak_bytes > declared or self.oom_minimum_bytes > declared
        return self.need_bytes if is_more or (is_own and self.is_overdeclared) else declared

    def dump(self) -> dict[str, Any]:
        """Return all observations in plain values."""
        return {
            "peaks": [int(peak) for peak in self.peaks.samples],
            "run_s": self.run_s.samples,
            "runs_by_limit": [(limit_s, runs.samples) for limit_s, runs in self.runs_by_limit.items()],
            "out_of_memory": self.out_of_memory,
            "floor_bytes": self.oom_minimum_bytes,
            "shaken": self.has_recent_oom,
            "is_less": self.is_overdeclared,
            "need_bytes": self.need_bytes,
        }

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> Observations:
        """Restore what `dump` returned."""
        loaded = cls()
        loaded.peaks = WeightedWindow(dumped["peaks"])
        loaded.run_s = WeightedWindow(dumped["run_s"])
        loaded.runs_by_limit = {limit_s: WeightedWindow(runs) for limit_s, runs in dumped["runs_by_limit"]}
        loaded.out_of_memory, loaded.need_bytes = dumped["out_of_memory"], dumped["need_bytes"]
        loaded.oom_minimum_bytes = dumped["floor_bytes"]
        loaded.has_recent_oom, loaded.is_overdeclared = dumped["shaken"], dumped["is_less"]
        return loaded

    def _update_need(self) -> bool:
        estimate = self.estimate()
        # Half of the margin may be used up: a need that follows every sample would make warm executors unfit.
        minimum = max(self._with_margin(0.5) if self.peaks else 0, int(self.oom_minimum_bytes))
        if minimum <= self.need_bytes and estimate >= LOWER_SHARE * self.need_bytes:
            return False
        self.need_bytes = estimate
        return True

    def _with_margin(self, part: float) -> int:
        margin = self.peak_bytes * quantile_uncertainty(len(self.peaks)) + MARGIN_BYTES
        return self.peak_bytes + int(part * margin)
