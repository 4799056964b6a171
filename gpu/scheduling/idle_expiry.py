"""Pure: which idle executors have exceeded their keep-alive time."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from heapq import heappop, heappush

from gpu.job_class import Key
from gpu.scheduling.resident_executor import ResidentExecutor


class IdleExpiry:
    """A heap of (due, executor) with at most one entry for each executor, however often it idles and resumes.

    An entry that comes up too early is rescheduled then.
    """

    def __init__(
        self,
        executors: Mapping[int, ResidentExecutor],
        wanted: Container[Key],
        is_kept_loaded: Callable[[ResidentExecutor, Container[int]], bool],
    ) -> None:
        """Watch these executors; `wanted` are the keys of which a job waits.

        `is_kept_loaded` decides for an executor whether it outlasts its keep-alive time, given the executors
        that are about to leave.
        """
        self._executors = executors
        self._wanted = wanted
        self._is_kept_loaded = is_kept_loaded
        self._heap: list[tuple[float, int]] = []
        self._scheduled: set[int] = set()

    def schedule(self, resident: ResidentExecutor) -> None:
        """Schedule the expiry of an executor that idles now."""
        if not resident.is_worn_out and (resident.is_pinned or resident.executor in self._scheduled):
            return
        self._scheduled.add(resident.executor)
        heappush(self._heap, (_due_at(resident), resident.executor))

    def pop_due(self, now: float) -> list[int]:
        """Return the executors to unload now: each is returned once, and the caller evicts it.

        They are worn out, or have idled beyond their keep-alive time while no job of their key waits.
        """
        due: list[int] = []
        while self._heap and self._heap[0][0] <= now:
            resident = self._pop()
            if resident is None or resident.state != "idle":
                continue
            if _due_at(resident) > now:
                self.schedule(resident)
            elif resident.is_worn_out or not (
                resident.key in self._wanted or self._is_kept_loaded(resident, due)
            ):
                due.append(resident.executor)
        return due

    def next_at(self) -> float | None:
        """Return the earliest time at which `pop_due` may return something; it may prove too early."""
        while self._heap:
            due_at, executor = self._heap[0]
            resident = self._executors.get(executor)
            if resident is not None and resident.state == "idle":
                return due_at
            self._pop()
        return None

    def _pop(self) -> ResidentExecutor | None:
        _, executor = heappop(self._heap)
        self._scheduled.discard(executor)
        return self._executors.get(executor)


def _due_at(resident: ResidentExecutor) -> float:
    """Return when an idle executor expires: at once where it is worn out."""
    return resident.idle_since if resident.is_worn_out else resident.idle_since + resident.keep_alive_s
