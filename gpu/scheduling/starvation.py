"""Pure: who waits for longest, and how many younger ones went before it.

Who runs short goes before who runs long, since that makes all wait less; so a stream of short jobs could hold
up a long one for as long as it flows. The oldest of each tenant is overtaken by so many, then it is next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from gpu.job_class import JobClass
from gpu.scheduling.class_backlog import ClassBacklog
from gpu.scheduling.overtaking import OvertakeCounter

#: So many younger ones of its tenant may start before the oldest.
YOUNGER_MAX = 64

#: A tenant on GPUs, or on the cpu.
_Place = tuple[str, bool]


class Seniority:
    """Counts starts, and no more: the longest line costs as much as the shortest."""

    def __init__(
        self, lines: Mapping[JobClass, ClassBacklog], paused: Set[str], bypass: OvertakeCounter
    ) -> None:
        self._lines = lines
        self._paused = paused
        self._bypass = bypass
        self._oldest: dict[_Place, tuple[JobClass, int]] = {}
        self._younger: dict[_Place, int] = {}

    def joined(self, cls: JobClass, n: int) -> None:
        """A job waits that may be older than the others: it was put back."""
        place = _place(cls)
        oldest = self._oldest.get(place)
        if oldest is not None and n < oldest[1]:
            del self._oldest[place]

    def started(self, cls: JobClass, ns: Sequence[int]) -> None:
        """These jobs have left their line for an executor."""
        place = _place(cls)
        first, n = self._oldest.get(place, (cls, 0))
        if n not in self._lines.get(first, ()) or first.queue in self._paused:
            self._choose(place)
        elif cls.priority <= first.priority:
            self._younger[place] += sum(each > n for each in ns)
            if self._younger[place] >= YOUNGER_MAX:
                self._bypass.exhaust(n)

    def _choose(self, place: _Place) -> None:
        self._younger[place] = 0
        heads = (
            (line.first, cls)
            for cls, line in self._lines.items()
            if not cls.is_wish and cls.queue not in self._paused and _place(cls) == place
        )
        found = min(heads, key=lambda head: head[0], default=None)
        if found is None:
            self._oldest.pop(place, None)
        else:
            self._oldest[place] = found[1], found[0]


def _place(cls: JobClass) -> _Place:
    return cls.tenant, cls.gpus > 0
