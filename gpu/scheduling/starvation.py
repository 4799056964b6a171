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

    def on_requeued(self, job_class: JobClass, job_number: int) -> None:
        """A job waits that may be older than the others: it was put back."""
        tenant_pool = _tenant_pool(job_class)
        oldest = self._oldest.get(tenant_pool)
        if oldest is not None and job_number < oldest[1]:
            del self._oldest[tenant_pool]

    def on_started(self, job_class: JobClass, job_numbers: Sequence[int]) -> None:
        """These jobs have left their line for an executor."""
        tenant_pool = _tenant_pool(job_class)
        first, job_number = self._oldest.get(tenant_pool, (job_class, 0))
        if job_number not in self._backlogs.get(first, ()) or first.queue in self._paused:
            self._choose_oldest(tenant_pool)
        elif job_class.priority <= first.priority:
            self._younger_counts[tenant_pool] += sum(each > job_number for each in job_numbers)
            if self._younger_counts[tenant_pool] >= YOUNGER_MAX:
                self._overtakes.exhaust(job_number)

    def _choose_oldest(self, tenant_pool: _TenantPool) -> None:
        self._younger_counts[tenant_pool] = 0
        first_jobs = (
            (backlog.first, job_class)
            for job_class, backlog in self._backlogs.items()
            if not job_class.is_prewarm
            and job_class.queue not in self._paused
            and _tenant_pool(job_class) == tenant_pool
        )
        oldest = min(first_jobs, key=lambda candidate: candidate[0], default=None)
        if oldest is None:
            self._oldest.pop(tenant_pool, None)
        else:
            self._oldest[tenant_pool] = oldest[1], oldest[0]


def _tenant_pool(job_class: JobClass) -> _TenantPool:
    return job_class.tenant, job_class.gpus > 0
