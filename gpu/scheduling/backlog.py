"""Pure: the jobs that wait, by their classes, and the queues that are paused."""

from __future__ import annotations

from collections.abc import Sequence

from gpu.job_class import JobClass, Key
from gpu.scheduling.class_backlog import ClassBacklog
from gpu.scheduling.overtaking import OvertakeCounter
from gpu.scheduling.starvation import StarvationGuard


class Backlog:
    """A line for each class of which a job waits. No method costs more for a longer line."""

    def __init__(self, overtakes: OvertakeCounter) -> None:
        #: Only lines in which a job waits.
        self.by_class: dict[JobClass, ClassBacklog] = {}
        #: How many classes of a key have a job waiting.
        self.waiting_classes_by_key: dict[Key, int] = {}
        self.paused: set[str] = set()
        self._bypass = overtakes
        self._starvation_guard = StarvationGuard(self.by_class, self.paused, overtakes)

    def pause_queue(self, name: str, paused: bool) -> None:
        """Jobs of a paused queue wait; those that started go on."""
        (self.paused.add if paused else self.paused.discard)(name)

    def add(self, job_class: JobClass, job_number: int, *, first: bool, since: float) -> bool:
        """Put a job in the line of its class, or before the others there; True where no other waits in it.
        `since` when it waits is in seconds, by the plan's clock."""
        backlog = self.by_class.get(job_class)
        is_new = backlog is None
        if backlog is None:
            backlog = self.by_class[job_class] = ClassBacklog()
            self.waiting_classes_by_key[job_class.key] = self.waiting_classes_by_key.get(job_class.key, 0) + 1
        backlog.add(job_number, first=first, since=since)
        if first:
            self._starvation_guard.on_requeued(job_class, job_number)
        return is_new

    def contains(self, job_class: JobClass, job_number: int) -> bool:
        """Whether the job waits."""
        backlog = self.by_class.get(job_class)
        return backlog is not None and job_number in backlog

    def remove(self, job_class: JobClass, job_numbers: Sequence[int]) -> bool:
        """Take jobs out that are known to wait; True where no other of their class is left."""
        backlog = self.by_class[job_class]
        backlog.remove_all(job_numbers)
        if self._bypass.counts:
            self._bypass.forget(job_numbers)
        if backlog:
            return False
        del self.by_class[job_class]
        remaining = self.waiting_classes_by_key.pop(job_class.key) - 1
        if remaining:
            self.waiting_classes_by_key[job_class.key] = remaining
        return True

    def record_start(self, job_class: JobClass, job_numbers: Sequence[int]) -> None:
        """Count that jobs just taken out start before older ones."""
        self._starvation_guard.on_started(job_class, job_numbers)

    def count(self, job_class: JobClass) -> int:
        """How many of a class wait."""
        backlog = self.by_class.get(job_class)
        return 0 if backlog is None else len(backlog)

    def classes(self) -> list[JobClass]:
        """Those of which a job waits."""
        return list(self.by_class)
