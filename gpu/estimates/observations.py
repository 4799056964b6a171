"""Pure: what was seen of jobs that are alike: how much memory they took, and how long they ran."""

from __future__ import annotations

from typing import Any

from gpu.estimates.weighted_window import WeightedWindow, quantile_uncertainty

MIB = 1024 * 1024
#: Added to a measured peak: allocators round up (torch takes segments of 20 MiB) and differ a little
#: from run to run; a sweep every 250 ms misses the very top.
MARGIN_BYTES = 64 * MIB
#: A job that ran out of memory needs more than it had; so much more is tried.
SQUEEZED_SHARE = 1.25
#: What running out has taught is half forgotten after so many jobs that did not.
SQUEEZED_HALF_LIFE = 256
#: Limits of which runs are kept apart: those that were heard of last.
LIMITS_MAX = 32
#: What is told is lowered where it is less than this share of what was told before: below that it is noise.
LOWER_SHARE = 0.95
#: Of what the operator declared: less is granted where so many jobs took no more than this share of it, until
#: they come near to it again.
ENOUGH = 16
LESS_SHARE = 0.8
NEAR_SHARE = 0.95


class Experience:
    """Of one (handler, model), or of one size of its jobs."""

    __slots__ = (
        "floor_bytes",
        "is_less",
        "need_bytes",
        "out_of_memory",
        "peaks",
        "run_s",
        "runs_by_limit",
        "shaken",
    )

    def __init__(self) -> None:
        self.peaks = WeightedWindow()
        self.run_s = WeightedWindow()
        #: The same by the jobs' limits: who asks for more time mostly takes more.
        self.runs_by_limit: dict[float, WeightedWindow] = {}
        #: Jobs that ran out of memory.
        self.out_of_memory = 0
        #: At least so much is needed by the word of those; it fades.
        self.floor_bytes = 0.0
        #: One ran out, and no peak was measured since.
        self.shaken = False
        #: The declared need is known to be more than is needed.
        self.is_less = False
        #: What is told: it follows the estimate in steps, or what suits would not for long. 0: unknown.
        self.need_bytes = 0

    @property
    def top_bytes(self) -> int:
        """What the jobs took, but for very few; 0 where none was measured."""
        return int(self.peaks.quantile(0.99)) if self.peaks else 0

    def estimate(self) -> int:
        """What to promise by all that is known now; 0 where nothing is."""
        if not self.peaks:
            return int(self.floor_bytes)
        return max(self._with_margin(1.0), int(self.floor_bytes))

    def saw_peak(self, peak_bytes: int, declared: int | None) -> bool:
        """A job ended well and took so much; True where another need is told."""
        self.peaks.add(peak_bytes)
        self.floor_bytes *= 0.5 ** (1 / SQUEEZED_HALF_LIFE)
        was_shaken, self.shaken = self.shaken, False
        is_changed = self._tell() or was_shaken
        if declared is not None:
            was_less = self.is_less
            share = NEAR_SHARE if was_less else LESS_SHARE
            self.is_less = len(self.peaks) >= ENOUGH and self.need_bytes < share * declared
            is_changed = is_changed or self.is_less != was_less
        return is_changed

    def saw_run(self, run_s: float, limit_s: float) -> None:
        """A job of that limit ended well and ran for so long."""
        self.run_s.add(run_s)
        runs = self.runs_by_limit.pop(limit_s, None)
        if runs is None:
            runs = WeightedWindow()
            if len(self.runs_by_limit) >= LIMITS_MAX:
                del self.runs_by_limit[next(iter(self.runs_by_limit))]
        runs.add(run_s)
        self.runs_by_limit[limit_s] = runs

    def saw_squeeze(self, had_bytes: int | None) -> None:
        """A job ran out of memory though it had so much; None where that says nothing of others."""
        self.out_of_memory += 1
        self.shaken = True
        if had_bytes is not None:
            self.floor_bytes = max(self.floor_bytes, had_bytes * SQUEEZED_SHARE)
            self._tell()

    def need(self, declared: int | None, *, is_own: bool) -> int | None:
        """What to promise, where so much was declared; None where that has to be found out. Only by jobs of
        its own size (`is_own`) is that lowered: it may be meant for just this one."""
        if declared is None:
            return None if self.shaken else self.need_bytes or None
        is_more = self.top_bytes > declared or self.floor_bytes > declared
        return self.need_bytes if is_more or (is_own and self.is_less) else declared

    def dump(self) -> dict[str, Any]:
        """All of it in plain values."""
        return {
            "peaks": [int(peak) for peak in self.peaks.samples],
            "run_s": self.run_s.samples,
            "runs_by_limit": [(limit_s, runs.samples) for limit_s, runs in self.runs_by_limit.items()],
            "out_of_memory": self.out_of_memory,
            "floor_bytes": self.floor_bytes,
            "shaken": self.shaken,
            "is_less": self.is_less,
            "need_bytes": self.need_bytes,
        }

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> Experience:
        """What `dump` gave."""
        found = cls()
        found.peaks = WeightedWindow(dumped["peaks"])
        found.run_s = WeightedWindow(dumped["run_s"])
        found.runs_by_limit = {limit_s: WeightedWindow(runs) for limit_s, runs in dumped["runs_by_limit"]}
        for name in ("out_of_memory", "floor_bytes", "shaken", "is_less", "need_bytes"):
            setattr(found, name, dumped[name])
        return found

    def _tell(self) -> bool:
        fresh = self.estimate()
        # Half of the margin may be eaten: a need that follows every sample would make warm executors unfit.
        least = max(self._with_margin(0.5) if self.peaks else 0, int(self.floor_bytes))
        if least <= self.need_bytes and fresh >= LOWER_SHARE * self.need_bytes:
            return False
        self.need_bytes = fresh
        return True

    def _with_margin(self, part: float) -> int:
        margin = self.top_bytes * quantile_uncertainty(len(self.peaks)) + MARGIN_BYTES
        return self.top_bytes + int(part * margin)
