"""Pure: the last samples of one figure, the newer ones weighing more, and their quantiles."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable
from itertools import accumulate
from operator import mul

#: So many samples are kept.
SAMPLES = 64
#: After so many newer ones a sample weighs half as much.
HALF_LIFE = 32
#: Each sample weighs so much more than the one before it, so that no weight changes with age.
_GROWTH = 2.0 ** (1 / HALF_LIFE)
#: Weights grow no further than this: then all are made small again.
_HEAVIEST = 1e100
#: Shares of weight are told apart beyond this.
_TINY = 1e-9


class Window:
    """Samples in the order in which they came, and by value. To add one and to ask costs little."""

    __slots__ = ("_came", "_mean", "_sorted", "_sums", "_weight", "_weights")

    def __init__(self, samples: Iterable[float] = ()) -> None:
        #: With their weights, the oldest first.
        self._came: deque[tuple[float, float]] = deque()
        self._sorted: list[float] = []
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
        return len(self._came)

    @property
    def samples(self) -> list[float]:
        """The oldest first."""
        return [sample for sample, _ in self._came]

    def add(self, sample: float) -> None:
        """One more; the oldest is forgotten where there are too many."""
        if len(self._came) == SAMPLES:
            self._forget(*self._came.popleft())
        self._weight *= _GROWTH
        self._came.append((sample, self._weight))
        at = bisect_right(self._sorted, sample)
        self._sorted.insert(at, sample)
        self._weights.insert(at, self._weight)
        self._sums.clear()
        self._mean = None
        if self._weight > _HEAVIEST:
            self._weigh_anew()

    def quantile(self, q: float) -> float:
        """The least sample such that the share `q` of all weight lies at it or below. Raises IndexError where
        there are none."""
        self._add_up()
        return self._sorted[self._place(q * self._sums[-1])]

    def mean(self) -> float:
        """The mean by weight. Raises IndexError where there are no samples."""
        self._add_up()
        if self._mean is None:
            mean: float = sum(map(mul, self._sorted, self._weights)) / self._sums[-1]
            # Rounding must not take it out of the samples' range.
            self._mean = min(max(mean, self._sorted[0]), self._sorted[-1])
        return self._mean

    def _forget(self, sample: float, weight: float) -> None:
        at = bisect_left(self._sorted, sample)
        # Of equal samples the one that came first: its weight is its own.
        at = self._weights.index(weight, at)
        del self._sorted[at], self._weights[at]

    def _weigh_anew(self) -> None:
        """All as they stand to each other, but smaller."""
        scale = 1.0 / self._weight
        self._came = deque((sample, weight * scale) for sample, weight in self._came)
        self._weights = [weight * scale for weight in self._weights]
        self._weight = 1.0

    def _place(self, weight: float) -> int:
        slack = _TINY * self._sums[-1]
        return min(bisect_left(self._sums, weight - slack), len(self._sorted) - 1)

    def _add_up(self) -> None:
        if not self._sums:
            self._sums = list(accumulate(self._weights))


def spread(count: int) -> float:
    """By what share of itself a quantile of so few samples may be too low."""
    return 0.5 / math.sqrt(count)
