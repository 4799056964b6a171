"""Pure: the jobs that wait, by their classes, and the queues that are paused."""

from __future__ import annotations

from collections.abc import Sequence

from gpu.job_class import JobClass, Key
from gpu.scheduling.class_backlog import ClassBacklog
from gpu.scheduling.overtaking import Bypass
from gpu.scheduling.starvation import Seniority


class Backlog:
    """A line for each class of which a job waits. No method costs more for a longer line."""

    def __init__(self, bypass: Bypass) -> None:
        #: Only lines in which a job waits.
        self.lines: dict[JobClass, ClassBacklog] = {}
        #: How many classes of a key have a job waiting.
        self.wanted: dict[Key, int] = {}
        self.paused: set[str] = set()
        self._bypass = bypass
        self._seniority = Seniority(self.lines, self.paused, bypass)

    def pause_queue(self, name: str, paused: bool) -> None:
        """Jobs of a paused queue wait; those that started go on."""
        (self.paused.add if paused else self.paused.discard)(name)

    def add(self, cls: JobClass, n: int, *, first: bool, since: float) -> bool:
        """Put a job in the line of its class, or before the others there; True where no other waits in it.
        `since` when it waits is in seconds, by the plan's clock."""
        line = self.lines.get(cls)
        is_new = line is None
        if line is None:
            line = self.lines[cls] = ClassBacklog()
            self.wanted[cls.key] = self.wanted.get(cls.key, 0) + 1
        line.add(n, first=first, since=since)
        if first:
            self._seniority.joined(cls, n)
        return is_new

    def has(self, cls: JobClass, n: int) -> bool:
        """Whether the job waits."""
        line = self.lines.get(cls)
        return line is not None and n in line

    def take(self, cls: JobClass, ns: Sequence[int]) -> bool:
        """Take jobs out that are known to wait; True where no other of their class is left."""
        line = self.lines[cls]
        line.remove_all(ns)
        if self._bypass.counts:
            self._bypass.forget(ns)
        if line:
            return False
        del self.lines[cls]
        left = self.wanted.pop(cls.key) - 1
        if left:
            self.wanted[cls.key] = left
        return True

    def record_start(self, cls: JobClass, ns: Sequence[int]) -> None:
        """Count that jobs just taken out start before older ones."""
        self._seniority.started(cls, ns)

    def count(self, cls: JobClass) -> int:
        """How many of a class wait."""
        line = self.lines.get(cls)
        return 0 if line is None else len(line)

    def classes(self) -> list[JobClass]:
        """Those of which a job waits."""
        return list(self.lines)
