"""Pure: how much memory a handler is expected to need, learned from what it was seen to use."""

from __future__ import annotations

from collections.abc import Mapping

MIB = 1024 * 1024
#: Added to a measured peak: allocators round up (torch takes segments of 20 MiB) and differ a little
#: from run to run; a sweep every 250 ms misses the very top.
MARGIN_BYTES = 64 * MIB
MARGIN_SHARE = 0.05
#: A measured peak replaces the remembered one where it eats half of the margin or falls below this
#: share of it. Between the two it is noise, and a new figure would only make warm executors unfit.
KEEP_SHARE = 0.8


def with_margin(peak_bytes: int) -> int:
    """What to promise for a measured peak."""
    return peak_bytes + _margin(peak_bytes)


class Peaks:
    """The last measured peak of each (handler, model), for jobs that do not declare their need."""

    def __init__(self) -> None:
        self._peaks: dict[tuple[str, str], int] = {}

    def learn(self, handler: str, model: str, nbytes: int) -> bool:
        """Remember a measured peak; False where it says nothing new."""
        known = self._peaks.get((handler, model))
        if known is not None and KEEP_SHARE * known <= nbytes <= known + _margin(known) // 2:
            return False
        self._peaks[handler, model] = nbytes
        return True

    def forget(self, handler: str, model: str) -> None:
        """It needed more than was known: the next attempt runs alone and is measured again."""
        self._peaks.pop((handler, model), None)

    def peak(self, handler: str, model: str, cap_bytes: int | None = None) -> int | None:
        """What to promise, margin included; None where nothing is known yet. On a device of `cap_bytes`
        that the measured peak itself fits, the margin is what there is."""
        known = self._peaks.get((handler, model))
        if known is None:
            return None
        if cap_bytes is not None and known <= cap_bytes:
            return min(with_margin(known), cap_bytes)
        return with_margin(known)

    def dumps(self) -> dict[str, dict[str, int]]:
        """Handler to model to measured bytes, to be stored."""
        data: dict[str, dict[str, int]] = {}
        for (handler, model), nbytes in self._peaks.items():
            data.setdefault(handler, {})[model] = nbytes
        return data

    @classmethod
    def loads(cls, data: Mapping[str, Mapping[str, int]]) -> Peaks:
        """The peaks that `dumps` gave."""
        peaks = cls()
        for handler, models in data.items():
            for model, nbytes in models.items():
                peaks._peaks[handler, model] = nbytes
        return peaks


def _margin(peak_bytes: int) -> int:
    return max(MARGIN_BYTES, int(peak_bytes * MARGIN_SHARE))
