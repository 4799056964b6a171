"""Pure: the oldest waiting job of each tenant, and how many younger ones started before it.

Short runs go before long ones, since that shortens the total wait; so a steady stream of short jobs could
delay a long one without end. A fixed number of younger jobs may overtake the oldest one of each tenant, then
it is next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from heapq import heappop, heappush

from gpu.job_class import JobClass
from gpu.scheduling.class_backlog import ClassBacklog
from gpu.scheduling.overtaking import OvertakeCounter

#: How many younger jobs of its tenant may start before the oldest one.
YOUNGER_MAX = 64
#: Entries of jobs that have left, kept in the heap of a tenant and pool beside as many as it has classes.
OUTDATED_MAX = 64

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
        #: The classes of each tenant and pool that have waiting jobs.
        self._classes: dict[_TenantPool, dict[JobClass, None]] = {}
        #: Heaps of (job number, tie-breaker, class), made on first use: the first job of each class, or an
        #: earlier one that has left.
        self._first_jobs: dict[_TenantPool, list[tuple[int, int, JobClass]]] = {}
        self._pushed_count = 0

    def on_requeued(self, job_class: JobClass, job_number: int) -> None:
        """Check whether a requeued job is older than the one known as the oldest of its tenant."""
        tenant_pool = _tenant_pool(job_class)
        if tenant_pool in self._first_jobs:
            self._push(self._first_jobs[tenant_pool], job_class)
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

    def on_waiting(self, job_class: JobClass) -> None:
        """Record that the first job of a class waits; its backlog is among the backlogs already."""
        tenant_pool = _tenant_pool(job_class)
        classes = self._classes.setdefault(tenant_pool, {})
        classes[job_class] = None
        heap = self._first_jobs.get(tenant_pool)
        if heap is None:
            return
        if len(heap) < 2 * len(classes) + OUTDATED_MAX:
            self._push(heap, job_class)
        else:
            # Too many entries of jobs that have left: the heap is made again when it is needed.
            del self._first_jobs[tenant_pool]

    def on_not_waiting(self, job_class: JobClass) -> None:
        """Record that no job of the class waits any more."""
        tenant_pool = _tenant_pool(job_class)
        del self._classes[tenant_pool][job_class]
        if not self._classes[tenant_pool]:
            # Nothing is kept of a tenant without waiting jobs: there may be any number of them.
            del self._classes[tenant_pool]
            self._first_jobs.pop(tenant_pool, None)
            self._oldest.pop(tenant_pool, None)
            self._younger_counts.pop(tenant_pool, None)

    def on_pause_changed(self) -> None:
        """Record that a queue was paused or resumed."""
        self._first_jobs.clear()

    def _choose_oldest(self, tenant_pool: _TenantPool) -> None:
        """Find the oldest first job of the tenant's classes.

        An entry of the heap may be older than the first job of its class, which is then looked up again.
        """
        self._younger_counts.pop(tenant_pool, None)
        self._oldest.pop(tenant_pool, None)
        if tenant_pool not in self._classes:
            return
        heap = self._first_jobs.get(tenant_pool)
        if heap is None:
            heap = self._first_jobs[tenant_pool] = []
            for job_class in self._classes.get(tenant_pool, ()):
                self._push(heap, job_class)
        while heap:
            job_number, _, job_class = heap[0]
            backlog = self._backlogs.get(job_class)
            if backlog is not None and backlog.first == job_number:
                self._oldest[tenant_pool] = job_class, job_number
                self._younger_counts[tenant_pool] = 0
                return
            heappop(heap)
            if backlog is not None:
                self._push(heap, job_class)

    def _push(self, heap: list[tuple[int, int, JobClass]], job_class: JobClass) -> None:
        if not job_class.is_prewarm and job_class.queue not in self._paused:
            self._pushed_count += 1
            heappush(heap, (self._backlogs[job_class].first, self._pushed_count, job_class))


def _tenant_pool(job_class: JobClass) -> _TenantPool:
    return job_class.tenant, job_class.gpus > 0
