"""Pure: the last samples of one figure, the newer ones weighing more, and their quantiles."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable
from itertools import accumulate
from operator import mul

#: So many samples are kept.
SAMPLES_MAX = 64
#: After so many newer ones a sample weighs half as much.
HALF_LIFE = 32
#: Each sample weighs so much more than the one before it, so that no weight changes with age.
_GROWTH = 2.0 ** (1 / HALF_LIFE)
#: Weights grow no further than this: then all are made small again.
_WEIGHT_MAX = 1e100
#: Shares of weight are told apart beyond this.
_TOLERANCE = 1e-9


class WeightedWindow:
    """Samples in the order in which they came, and by value. To add one and to ask costs little."""

    __slots__ = ("_by_age", "_by_value", "_mean", "_sums", "_weight", "_weights")

    def __init__(self, samples: Iterable[float] = ()) -> None:
        #: With their weights, the oldest first.
        self._by_age: deque[tuple[float, float]] = deque()
        self._by_value: list[float] = []
        #: Side by side with the sorted samples.
        self._weights: list[float] = []
        #: Of the sorted samples: what each weighs together with those before it; made when somebody asks.
        self._sums: list[float] = []
        self._mean: float | None = None
        #: Of the newest one.
        self._weight = 1.0
        for sample in samples:
            self.add(sample)

    def __len__(self) -> int:
        return len(self._by_age)

    @property
    def samples(self) -> list[float]:
        """The oldest first."""
        return [sample for sample, _ in self._by_age]

    def add(self, sample: float) -> None:
        """One more; the oldest is forgotten where there are too many."""
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
        """The least sample such that the share `q` of all weight lies at it or below. Raises IndexError where
        there are none."""
        self._compute_sums()
        return self._by_value[self._index_of(q * self._sums[-1])]

    def mean(self) -> float:
        """The mean by weight. Raises IndexError where there are no samples."""
        self._compute_sums()
        if self._mean is None:
            mean: float = sum(map(mul, self._by_value, self._weights)) / self._sums[-1]
            # Rounding must not take it out of the samples' range.
            self._mean = min(max(mean, self._by_value[0]), self._by_value[-1])
        return self._mean

    def _remove(self, sample: float, weight: float) -> None:
        at = bisect_left(self._by_value, sample)
        # Of equal samples the one that came first: its weight is its own.
        at = self._weights.index(weight, at)
        del self._by_value[at], self._weights[at]

    def _rescale_weights(self) -> None:
        """All as they stand to each other, but smaller."""
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
    """By what share of itself a quantile of so few samples may be too low."""
    return 0.5 / math.sqrt(count)
