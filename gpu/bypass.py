"""Pure: who was overtaken how often, so that nobody is for ever.

A job that can't start does not hold up others that can, until so many later or lower ones took room
that it waits for; then devices are kept for it. Counted is the job at the head of its class.
"""

from __future__ import annotations

from collections.abc import Iterable

from gpu.line import JobClass


def is_harmed(waiting: JobClass, grant_bytes: int, *, is_full: bool) -> bool:
    """Whether an executor with that grant, at work on a device, keeps a waiting class from it: by its
    bytes, or because with it as many are at work as may be."""
    return is_full or (grant_bytes > 0 and waiting.need_bytes != 0)


class Bypass:
    """Counts of waiting jobs, and the devices kept for those whose patience is at its end."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.counts: dict[int, int] = {}
        self.kept: dict[int, tuple[str, ...]] = {}

    def left(self, n: int) -> int:
        """How many may still overtake the job."""
        return self.limit - self.counts.get(n, 0)

    def is_kept(self, n: int, device_id: str) -> bool:
        """Whether overtaking the job there counts: everywhere until devices are kept for it, then there."""
        kept = self.kept.get(n)
        return kept is None or device_id in kept

    def count(self, n: int, times: int) -> bool:
        """The job was overtaken; True where devices must be kept for it now."""
        self.counts[n] = self.counts.get(n, 0) + times
        return self.counts[n] >= self.limit and n not in self.kept

    def keep(self, n: int, device_ids: tuple[str, ...]) -> None:
        """Keep these for the job until it starts."""
        self.kept[n] = device_ids

    def forget(self, ns: Iterable[int]) -> None:
        """The jobs no longer wait."""
        for n in ns:
            self.counts.pop(n, None)
            self.kept.pop(n, None)

    def release(self, device_id: str) -> None:
        """The device takes no work: jobs for which it was kept need another one. Until one is chosen
        nothing overtakes them anywhere."""
        for n in [n for n, kept in self.kept.items() if device_id in kept]:
            del self.kept[n]
