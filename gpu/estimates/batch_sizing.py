"""Pure: how many jobs run together in an executor: what a handler asks for, and what memory has shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gpu.job_class import JobClass

#: A size that was cut is raised by one after so many full batches that ended well; each further cut doubles
#: that, up to the second: what was too much once is tried again, but ever more seldom.
PATIENCE = 32
PATIENCE_MAX = 1024


class Terms(NamedTuple):
    """What a handler that takes batches asks for."""

    max: int
    #: A batch that is not full goes once its oldest job has waited so long.
    wait_s: float


@dataclass(slots=True)
class _Size:
    """What was learned of one kind of job."""

    cap: int
    patience: int
    #: Jobs that ended well in full batches since the size was changed.
    good: int = 0


class Batching:
    """The handlers that take batches or have slots, and the sizes that their batches may have now."""

    def __init__(self) -> None:
        self._terms: dict[tuple[str, str], Terms] = {}
        #: (handler, version) to how many attempts an executor runs side by side, where that is more than one.
        self._slots: dict[tuple[str, str], int] = {}
        self._sizes: dict[tuple[str, str, str], _Size] = {}

    def set(self, handler: str, version: str, terms: Terms | None, slots: int = 1) -> None:
        """A handler is known (anew)."""
        self._terms.pop((handler, version), None)
        self._slots.pop((handler, version), None)
        if terms is not None:
            self._terms[handler, version] = terms
        if slots > 1:
            self._slots[handler, version] = slots

    def slots(self, cls: JobClass) -> int:
        """How many of the class an executor runs side by side."""
        return (
            1
            if not self._slots or cls.single or cls.is_prewarm
            else self._slots.get((cls.handler, cls.version), 1)
        )

    def is_spread(self, handler: str, version: str) -> bool:
        """Whether an executor of it may run several at once."""
        return (handler, version) in self._terms or (handler, version) in self._slots

    def most(self, cls: JobClass) -> int:
        """How many jobs of the class go in one batch at most; 0: it has none."""
        terms = self._terms.get((cls.handler, cls.version)) if self._terms else None
        if terms is None or cls.is_prewarm:
            return 0
        size = self._sizes.get(_kind(cls))
        return 1 if cls.single else terms.max if size is None else min(size.cap, terms.max)

    def per_run(self, cls: JobClass) -> int:
        """How many of the class run at once in one executor."""
        return self.most(cls) or self.slots(cls)

    def runs(self, assigned: Mapping[int, JobClass]) -> int:
        """How many runs what an executor holds takes, one after the other."""
        cls = next(iter(assigned.values()), None)
        return 0 if cls is None else -(-len(assigned) // self.per_run(cls))

    def full_at(self, cls: JobClass, waiting: int, since: float) -> float:
        """From when on so many of them, the oldest of which waits `since` then, need wait for no more."""
        if waiting >= self.most(cls):
            return since
        return since + self._terms[cls.handler, cls.version].wait_s

    def ran_out(self, cls: JobClass, count: int) -> None:
        """A batch of so many ran out of memory; told for each of its jobs."""
        cap = max(1, count // 2)
        size = self._sizes.get(_kind(cls))
        if size is None:
            self._sizes[_kind(cls)] = _Size(cap, PATIENCE)
        elif cap < size.cap:
            size.cap, size.good = cap, 0
            size.patience = min(2 * size.patience, PATIENCE_MAX)

    def ran(self, cls: JobClass, count: int) -> None:
        """A job ended well in a batch of so many."""
        size = self._sizes.get(_kind(cls)) if self._sizes else None
        if size is None or count < size.cap:
            return
        size.good += 1
        if size.good >= size.patience * size.cap:
            size.cap, size.good = size.cap + 1, 0

    def sizes(self, handler: str) -> dict[tuple[str, str], int]:
        """(model, size) to how many go in one batch, where memory has taught that."""
        return {kind[1:]: size.cap for kind, size in self._sizes.items() if kind[0] == handler}


def _kind(cls: JobClass) -> tuple[str, str, str]:
    return cls.handler, cls.model, cls.size
