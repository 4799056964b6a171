"""Effect: sends executors their grants whenever the ledger changes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from gpu.job_class import JobClass
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.coordinator.processes.worker_pool import WorkerPool
from runner.protocol.worker import SetGrant, encode


class MemoryCaps(Protocol):
    """Computes the part of a grant that torch may reserve; the rest is context overhead."""

    def cap_bytes(self, devices: Sequence[str], grant_bytes: int, executor: int | None) -> int | None:
        """Return the bytes that torch in an executor may reserve on each of its devices; None sets no limit.

        `executor` is None before the executor exists.
        """


class Grants:
    """Keeps an executor's own record, the planner's state and the worker at the same grant.

    Workers enforce the grant. Each change is sent with the frame of its cycle.
    """

    def __init__(self, *, scheduler_state: SchedulerState, worker_pool: WorkerPool, caps: MemoryCaps) -> None:
        self._scheduler_state = scheduler_state
        self._worker_pool = worker_pool
        self._caps = caps

    def set_grant(self, executor: ExecutorHandle, grant_bytes: int) -> None:
        """Set the bytes that an executor may use on each of its devices, and send them to the worker."""
        resident = self._scheduler_state.executors[executor.number]
        resident.raise_grant(grant_bytes)
        executor.set_grant(grant_bytes)
        cap = self._caps.cap_bytes(executor.devices, grant_bytes, executor.number)
        self._worker_pool.post(executor.worker, encode(SetGrant(executor.number, grant_bytes, cap)))

    def send_lowered_grants(self, executors: Mapping[int, ExecutorHandle]) -> None:
        """Send the grants that the ledger has lowered since the last call, because the executors were seen to
        need less. An executor keeps its mark: a job that needs more than the lowered grant must raise it
        first."""
        lowered, self._scheduler_state.ledger.lowered_grants = (
            self._scheduler_state.ledger.lowered_grants,
            set(),
        )
        for number in lowered & executors.keys():
            executors[number].mark_grant_lowered()
            self.set_grant(executors[number], self._scheduler_state.ledger.grant_bytes(number))

    def fit_grant(self, executor: ExecutorHandle, job_class: JobClass) -> None:
        """Raise the grant of an executor if jobs of this class may need more, and the device has that much:
        the grant was lowered to the need of other classes of its handler."""
        slots = self._scheduler_state.residency.slots
        need_bytes = max(
            self._scheduler_state.memory_needs.need_for_device(job_class, slots[each])
            for each in executor.devices
        )
        if need_bytes > executor.grant_bytes and self._scheduler_state.ledger.raise_grant(
            executor.number, need_bytes
        ):
            self.set_grant(executor, need_bytes)
