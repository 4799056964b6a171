"""Pure: the waiting jobs by class, and the paused queues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gpu.job_class import JobClass, Key
from gpu.scheduling.class_backlog import ClassBacklog
from gpu.scheduling.class_order import ClassOrder
from gpu.scheduling.overtaking import OvertakeCounter
from gpu.scheduling.starvation import StarvationGuard


class Backlog:
    """A backlog for each class with waiting jobs. No method's cost depends on how many jobs wait."""

    def __init__(self, overtakes: OvertakeCounter) -> None:
        #: Only classes that have a waiting job.
        self.by_class: dict[JobClass, ClassBacklog] = {}
        #: How many classes of each key have a waiting job.
        self.waiting_classes_by_key: dict[Key, int] = {}
        self.paused: set[str] = set()
        #: The classes of queues that are not paused.
        self.order = ClassOrder()
        self._classes_by_priority: Counter[int] = Counter()
        self._overtakes = overtakes
        self._starvation_guard = StarvationGuard(self.by_class, self.paused, overtakes)

    def pause_queue(self, name: str, paused: bool) -> None:
        """Pause or resume a queue: its jobs wait while it is paused, and started ones go on."""
        if paused is (name in self.paused):
            return
        (self.paused.add if paused else self.paused.discard)(name)
        for job_class in self.by_class:
            if job_class.queue == name:
                (self.order.remove if paused else self.order.add)(job_class)
        self._starvation_guard.on_pause_changed()

    @property
    def top_priority(self) -> int:
        """The highest priority of a class with a waiting job, paused queues included; 0 without one."""
        return max(self._classes_by_priority, default=0)

    def add(self, job_class: JobClass, job_number: int, *, first: bool, since: float) -> bool:
        """Add a job to the backlog of its class; True where no other one waits there.

        `first` puts it before the others; `since` is when it began to wait, in seconds of the plan's clock.
        """
        backlog = self.by_class.get(job_class)
        is_new = backlog is None
        if backlog is None:
            backlog = self.by_class[job_class] = ClassBacklog()
            self.waiting_classes_by_key[job_class.key] = self.waiting_classes_by_key.get(job_class.key, 0) + 1
            self._classes_by_priority[job_class.priority] += 1
        backlog.add(job_number, first=first, since=since)
        if (is_new or first) and job_class.queue not in self.paused:
            self.order.add(job_class)
        if is_new:
            self._starvation_guard.on_waiting(job_class)
        if first:
            self._starvation_guard.on_requeued(job_class, job_number)
        return is_new

    def contains(self, job_class: JobClass, job_number: int) -> bool:
        """Return whether the job waits."""
        backlog = self.by_class.get(job_class)
        return backlog is not None and job_number in backlog

    def remove(self, job_class: JobClass, job_numbers: Sequence[int]) -> bool:
        """Remove jobs that are known to wait; True where no other job of their class is left."""
        backlog = self.by_class[job_class]
        backlog.remove_all(job_numbers)
        if self._overtakes.counts:
            self._overtakes.forget(job_numbers)
        is_paused = job_class.queue in self.paused
        if backlog:
            if not is_paused:
                # Its first job may be another one now.
                self.order.add(job_class)
            return False
        del self.by_class[job_class]
        if not is_paused:
            self.order.remove(job_class)
        self._starvation_guard.on_not_waiting(job_class)
        self._classes_by_priority[job_class.priority] -= 1
        if not self._classes_by_priority[job_class.priority]:
            del self._classes_by_priority[job_class.priority]
        remaining = self.waiting_classes_by_key.pop(job_class.key) - 1
        if remaining:
            self.waiting_classes_by_key[job_class.key] = remaining
        return True

    def record_start(self, job_class: JobClass, job_numbers: Sequence[int]) -> None:
        """Record that jobs that were just removed start, some of them before older ones."""
        self._starvation_guard.on_started(job_class, job_numbers)

    def count(self, job_class: JobClass) -> int:
        """Return how many jobs of a class wait."""
        backlog = self.by_class.get(job_class)
        return 0 if backlog is None else len(backlog)

    def classes(self) -> list[JobClass]:
        """Return the classes that have a waiting job."""
        return list(self.by_class)
