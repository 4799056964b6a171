"""Pure: reads histograms out of a Prometheus text."""

from __future__ import annotations

import re

_BUCKET = re.compile(r'^(\w+)_bucket\{.*?le="([^"]+)"\} (\S+)$', re.MULTILINE)


def histogram(text: str, name: str) -> dict[float, float]:
    """Upper bound of a bucket -> samples up to it, in rising order; the last bound is infinity."""
    found = {float(le): float(count) for metric, le, count in _BUCKET.findall(text) if metric == name}
    if not found:
        raise ValueError(f"no histogram {name} in what /metrics tells")
    return dict(sorted(found.items()))


def quantile(counts: dict[float, float], share: float) -> float:
    """The value below which `share` of the samples lie, taken as evenly spread inside a bucket.

    Beyond the last finite bound it is that bound; without samples it is not a number.
    """
    total = max(counts.values())
    if not total:
        return float("nan")
    rank = share * total
    low, below = 0.0, 0.0
    for bound, count in counts.items():
        if count >= rank:
            return low if bound == float("inf") else low + (bound - low) * (rank - below) / (count - below)
        low, below = bound, count
    raise ValueError("a histogram ends with infinity")
