"""Pure: the oldest waiting job of each tenant, and how many younger ones started before it.

Short runs go before long ones, since that shortens the total wait; so a steady stream of short jobs could
delay a long one without end. A fixed number of younger jobs may overtake the oldest one of each tenant, then
it is next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from gpu.job_class import JobClass
from gpu.scheduling.class_backlog import ClassBacklog
from gpu.scheduling.overtaking import OvertakeCounter

#: How many younger jobs of its tenant may start before the oldest one.
YOUNGER_MAX = 64

#: A tenant, and whether it is its GPU pool.
_TenantPool = tuple[str, bool]


class StarvationGuard:
    """The oldest job of each tenant and pool. The cost of a start does not depend on how many jobs wait."""

    def __init__(
        self, backlogs: Mapping[JobClass, ClassBacklog], paused: Set[str], overtakes: OvertakeCounter
    ) -> None:
        self._backlogs = backlogs
        self._paused = paused
        self._overtakes = overtakes
        self._oldest: dict[_TenantPool, tuple[JobClass, int]] = {}
        self._younger_counts: dict[_TenantPool, int] = {}

    def on_requeued(self, job_class: JobClass, job_number: int) -> None:
        """Check whether a requeued job is older than the one known as the oldest of its tenant."""
        tenant_pool = _tenant_pool(job_class)
        oldest = self._oldest.get(tenant_pool)
        if oldest is not None and job_number < oldest[1]:
            del self._oldest[tenant_pool]

    def on_started(self, job_class: JobClass, job_numbers: Sequence[int]) -> None:
        """Count jobs that left their backlog for an executor."""
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
