"""Pure: the last samples of one figure, the newer ones weighing more, and their quantiles."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable
from itertools import accumulate

#: So many samples are kept.
SAMPLES = 64
#: After so many newer ones a sample weighs half as much.
HALF_LIFE = 32
#: By age, the newest first.
_WEIGHTS = [0.5 ** (age / HALF_LIFE) for age in range(SAMPLES)]
#: Sums of weights are told apart beyond this.
_TINY = 1e-9


class Window:
    """Samples in the order in which they came. Asking sorts them once after each change."""

    __slots__ = ("_mean", "_samples", "_sorted", "_sums")

    def __init__(self, samples: Iterable[float] = ()) -> None:
        self._samples: deque[float] = deque(samples, maxlen=SAMPLES)
        self._sorted: list[float] = []
        #: Of the sorted samples: what each weighs together with those before it.
        self._sums: list[float] = []
        self._mean = 0.0

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def samples(self) -> list[float]:
        """The oldest first."""
        return list(self._samples)

    def add(self, sample: float) -> None:
        """One more; the oldest is forgotten where there are too many."""
        self._samples.append(sample)
        self._sorted.clear()

    def quantile(self, q: float) -> float:
        """The least sample such that the share `q` of all weight lies at it or below. Raises IndexError where
        there are none."""
        self._sort()
        return self._sorted[self._place(q * self._sums[-1])]

    def mean(self) -> float:
        """The mean by weight. Raises IndexError where there are no samples."""
        self._sort()
        # Rounding must not take it out of the samples' range.
        return min(max(self._mean, self._sorted[0]), self._sorted[-1])

    def beyond(self, least: float, q: float) -> float | None:
        """The quantile of the samples that are more than `least`; None where there are none."""
        self._sort()
        first = bisect_right(self._sorted, least)
        if first == len(self._sorted):
            return None
        below = self._sums[first - 1] if first else 0.0
        return self._sorted[max(first, self._place(below + q * (self._sums[-1] - below)))]

    def _place(self, weight: float) -> int:
        return min(bisect_left(self._sums, weight - _TINY), len(self._sorted) - 1)

    def _sort(self) -> None:
        if self._sorted or not self._samples:
            return
        by_value = sorted(zip(reversed(self._samples), _WEIGHTS, strict=False))
        self._sorted = [sample for sample, _ in by_value]
        self._sums = list(accumulate(weight for _, weight in by_value))
        self._mean = sum(sample * weight for sample, weight in by_value) / self._sums[-1]


def spread(count: int) -> float:
    """By what share of itself a quantile of so few samples may be too low."""
    return 0.5 / math.sqrt(count)
