"""Pure: a straight line through many short series of figures, each with a level of its own."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Series:
    """Sums over the points of one process, enough for a line and of constant size."""

    count: int = 0
    x_mean: float = 0.0
    y_mean: float = 0.0
    x_first: float = 0.0
    x_last: float = 0.0
    #: Sums of squares and products about the means.
    xx: float = 0.0
    xy: float = 0.0

    def add(self, x: float, y: float) -> None:
        """One more point (Welford's way, so that large levels cost no precision)."""
        if not self.count:
            self.x_first = x
        self.x_last = x
        self.count += 1
        dx, dy = x - self.x_mean, y - self.y_mean
        self.x_mean += dx / self.count
        self.y_mean += dy / self.count
        self.xx += dx * (x - self.x_mean)
        self.xy += dx * (y - self.y_mean)


@dataclass(slots=True)
class Slope:
    """Least squares over many series: one slope, a level for each."""

    series: dict[int, Series] = field(default_factory=dict)

    def add(self, key: int, x: float, y: float) -> None:
        """A point of one series."""
        self.series.setdefault(key, Series()).add(x, y)

    @property
    def count(self) -> int:
        """Points in all."""
        return sum(series.count for series in self.series.values())

    @property
    def width(self) -> float:
        """x from the first to the last point of the longest series."""
        return max((series.x_last - series.x_first for series in self.series.values()), default=0.0)

    @property
    def value(self) -> float | None:
        """y for each x; None where no series has two points apart."""
        xx = sum(series.xx for series in self.series.values())
        return sum(series.xy for series in self.series.values()) / xx if xx else None
