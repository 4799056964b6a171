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
_TenantPool = tuple[str, bool]


class StarvationGuard:
    """Counts starts, and no more: the longest line costs as much as the shortest."""

    def __init__(
        self, backlogs: Mapping[JobClass, ClassBacklog], paused: Set[str], overtakes: OvertakeCounter
    ) -> None:
        self._backlogs = backlogs
        self._paused = paused
        self._overtakes = overtakes
        self._oldest: dict[_TenantPool, tuple[JobClass, int]] = {}
        self._younger_counts: dict[_TenantPool, int] = {}

    def on_requeued(self, cls: JobClass, n: int) -> None:
        """A job waits that may be older than the others: it was put back."""
        tenant_pool = _tenant_pool(cls)
        oldest = self._oldest.get(tenant_pool)
        if oldest is not None and n < oldest[1]:
            del self._oldest[tenant_pool]

    def on_started(self, cls: JobClass, ns: Sequence[int]) -> None:
        """These jobs have left their line for an executor."""
        tenant_pool = _tenant_pool(cls)
        first, n = self._oldest.get(tenant_pool, (cls, 0))
        if n not in self._backlogs.get(first, ()) or first.queue in self._paused:
            self._choose_oldest(tenant_pool)
        elif cls.priority <= first.priority:
            self._younger_counts[tenant_pool] += sum(each > n for each in ns)
            if self._younger_counts[tenant_pool] >= YOUNGER_MAX:
                self._overtakes.exhaust(n)

    def _choose_oldest(self, tenant_pool: _TenantPool) -> None:
        self._younger_counts[tenant_pool] = 0
        first_jobs = (
            (line.first, cls)
            for cls, line in self._backlogs.items()
            if not cls.is_prewarm and cls.queue not in self._paused and _tenant_pool(cls) == tenant_pool
        )
        oldest = min(first_jobs, key=lambda head: head[0], default=None)
        if oldest is None:
            self._oldest.pop(tenant_pool, None)
        else:
            self._oldest[tenant_pool] = oldest[1], oldest[0]


def _tenant_pool(cls: JobClass) -> _TenantPool:
    return cls.tenant, cls.gpus > 0
