"""Pure: how many jobs run together in an executor: the handler's request, limited by memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gpu.job_class import JobClass

#: A reduced size is raised by one after this many full batches that succeeded. Each further reduction doubles
#: the number, up to the second one: a size that failed is tried again, but ever more rarely.
RAISE_AFTER_BATCHES = 32
RAISE_AFTER_BATCHES_MAX = 1024


class BatchTerms(NamedTuple):
    """The batching that a handler asks for."""

    max_size: int
    #: A batch that is not full starts once its oldest job has waited this long.
    wait_s: float


@dataclass(slots=True)
class _LearnedSize:
    """The size learned for one kind of job."""

    max_size: int
    raise_after_batches: int
    #: Jobs that succeeded in full batches since the size was changed.
    success_count: int = 0


class BatchSizing:
    """The handlers that take batches or have slots, and the batch sizes that memory allows at present."""

    def __init__(self) -> None:
        self._terms: dict[tuple[str, str], BatchTerms] = {}
        #: (handler, version) to how many attempts an executor runs side by side, where that is more than one.
        self._slot_counts: dict[tuple[str, str], int] = {}
        self._sizes: dict[tuple[str, str, str], _LearnedSize] = {}

    def set_handler(self, handler: str, version: str, terms: BatchTerms | None, slots: int = 1) -> None:
        """Set the terms of a handler, replacing known ones."""
        self._terms.pop((handler, version), None)
        self._slot_counts.pop((handler, version), None)
        if terms is not None:
            self._terms[handler, version] = terms
        if slots > 1:
            self._slot_counts[handler, version] = slots

    def slot_count(self, job_class: JobClass) -> int:
        """Return how many jobs of the class an executor runs side by side."""
        return (
            1
            if not self._slot_counts or job_class.alone_in_executor or job_class.is_prewarm
            else self._slot_counts.get((job_class.handler, job_class.version), 1)
        )

    def runs_several_jobs(self, handler: str, version: str) -> bool:
        """Return whether an executor of the handler may run several jobs at once."""
        return (handler, version) in self._terms or (handler, version) in self._slot_counts

    def batch_max(self, job_class: JobClass) -> int:
        """Return the most jobs of the class in one batch; 0: the class is not batched."""
        terms = self._terms.get((job_class.handler, job_class.version)) if self._terms else None
        if terms is None or job_class.is_prewarm:
            return 0
        size = self._sizes.get(_size_key(job_class))
        return (
            1
            if job_class.alone_in_executor
            else terms.max_size
            if size is None
            else min(size.max_size, terms.max_size)
        )

    def jobs_per_run(self, job_class: JobClass) -> int:
        """Return how many jobs of the class run at once in one executor."""
        return self.batch_max(job_class) or self.slot_count(job_class)

    def run_count(self, assigned: Mapping[int, JobClass]) -> int:
        """Return how many runs, one after the other, an executor's assigned jobs take."""
        job_class = next(iter(assigned.values()), None)
        return 0 if job_class is None else -(-len(assigned) // self.jobs_per_run(job_class))

    def batch_deadline(self, job_class: JobClass, waiting: int, since: float) -> float:
        """Return when `waiting` jobs, the oldest of them since `since`, need wait for no more."""
        if waiting >= self.batch_max(job_class):
            return since
        return since + self._terms[job_class.handler, job_class.version].wait_s

    def record_oom(self, job_class: JobClass, count: int) -> None:
        """Record that a batch of `count` jobs ran out of memory; called for each of its jobs."""
        max_size = max(1, count // 2)
        size = self._sizes.get(_size_key(job_class))
        if size is None:
            self._sizes[_size_key(job_class)] = _LearnedSize(max_size, RAISE_AFTER_BATCHES)
        elif max_size < size.max_size:
            size.max_size, size.success_count = max_size, 0
            size.raise_after_batches = min(2 * size.raise_after_batches, RAISE_AFTER_BATCHES_MAX)

    def record_run(self, job_class: JobClass, count: int) -> None:
        """Record that a job succeeded in a batch of `count` jobs."""
        size = self._sizes.get(_size_key(job_class)) if self._sizes else None
        if size is None or count < size.max_size:
            return
        size.success_count += 1
        if size.success_count >= size.raise_after_batches * size.max_size:
            size.max_size, size.success_count = size.max_size + 1, 0

    def learned_sizes(self, handler: str) -> dict[tuple[str, str], int]:
        """Return (model, size) to the batch size, where it was learned from running out of memory."""
        return {kind[1:]: size.max_size for kind, size in self._sizes.items() if kind[0] == handler}


def _size_key(job_class: JobClass) -> tuple[str, str, str]:
    return job_class.handler, job_class.model, job_class.size
