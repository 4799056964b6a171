"""Pure: the last samples of one figure, newer ones with more weight, and their quantiles.

Weights fall exponentially with the number of newer samples, not with time: a handler that runs once a day is
remembered as well as one that runs every second.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable
from itertools import accumulate
from operator import mul

#: Number of samples that are kept.
SAMPLES_MAX = 64
#: After this many newer samples a sample has half the weight.
HALF_LIFE = 32
#: Each sample's weight relative to the one before it, so that no weight changes with age.
_GROWTH = 2.0 ** (1 / HALF_LIFE)
#: Beyond this weight all weights are scaled down.
_WEIGHT_MAX = 1e100
#: Smaller differences between shares of weight are ignored.
_TOLERANCE = 1e-9


class WeightedWindow:
    """At most 64 samples, by age and by value. Adding one and querying cost microseconds."""

    __slots__ = ("_by_age", "_by_value", "_mean", "_sums", "_weight", "_weights")

    def __init__(self, samples: Iterable[float] = ()) -> None:
        #: (sample, weight), the oldest first.
        self._by_age: deque[tuple[float, float]] = deque()
        self._by_value: list[float] = []
        #: Weights of the sorted samples.
        self._weights: list[float] = []
        #: Cumulative weights of the sorted samples, computed on demand.
        self._sums: list[float] = []
        self._mean: float | None = None
        #: Weight of the newest sample.
        self._weight = 1.0
        for sample in samples:
            self.add(sample)

    def __len__(self) -> int:
        return len(self._by_age)

    @property
    def samples(self) -> list[float]:
        """The samples, the oldest first."""
        return [sample for sample, _ in self._by_age]

    def add(self, sample: float) -> None:
        """Add a sample; the oldest is dropped where there are too many."""
        if len(self._by_age) == SAMPLES_MAX:
            self._remove(*self._by_age.popleft())
        self._weight *= _GROWTH
        self._by_age.append((sample, self._weight))
        at = bisect_right(self._by_value, sample)
        self._by_value.insert(at, sample)
        self._weights.insert(at, self._weight)
        self._sums.clear()
        self._mean = None
        if self._weight > _WEIGHT_MAX:
            self._rescale_weights()

    def quantile(self, q: float) -> float:
        """Return the smallest sample such that the share `q` (0 to 1) of all weight lies at or below it.

        Raises:
            IndexError: there are no samples.
        """
        self._compute_sums()
        return self._by_value[self._index_of(q * self._sums[-1])]

    def mean(self) -> float:
        """Return the weighted mean. Raises IndexError where there are no samples."""
        self._compute_sums()
        if self._mean is None:
            mean: float = sum(map(mul, self._by_value, self._weights)) / self._sums[-1]
            # Rounding must not move it out of the samples' range.
            self._mean = min(max(mean, self._by_value[0]), self._by_value[-1])
        return self._mean

    def _remove(self, sample: float, weight: float) -> None:
        at = bisect_left(self._by_value, sample)
        # Of equal samples this finds the one with its own weight.
        at = self._weights.index(weight, at)
        del self._by_value[at], self._weights[at]

    def _rescale_weights(self) -> None:
        """Scale all weights down, keeping their proportions."""
        scale = 1.0 / self._weight
        self._by_age = deque((sample, weight * scale) for sample, weight in self._by_age)
        self._weights = [weight * scale for weight in self._weights]
        self._weight = 1.0

    def _index_of(self, weight: float) -> int:
        tolerance = _TOLERANCE * self._sums[-1]
        return min(bisect_left(self._sums, weight - tolerance), len(self._by_value) - 1)

    def _compute_sums(self) -> None:
        if not self._sums:
            self._sums = list(accumulate(self._weights))


def quantile_uncertainty(count: int) -> float:
    """Return by what share of itself a quantile of `count` samples may be too low; `count` is at least 1.

    The rank of a sample quantile has the standard error sqrt(q (1 - q) / n) of a binomial share, which is at
    most 0.5 / sqrt(n). It is taken as an error of the value itself, which is generous for peaks of memory.
    """
    return 0.5 / math.sqrt(count)
