"""Effect: ends executors and takes staged attempts back from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.coordinator.dispatch.executor_table import ExecutorTable
from runner.coordinator.processes.worker_pool import WorkerPool
from runner.protocol.worker import KillExecutor, RecallAttempts, UnloadExecutor, encode


class ExecutorControl:
    """Which executors are about to go, and the orders by which they do.

    An executor stays in the table until its worker says that it is gone.
    """

    def __init__(
        self,
        *,
        executors: ExecutorTable,
        scheduler_state: SchedulerState,
        worker_pool: WorkerPool,
        wake: Callable[[], None],
    ) -> None:
        self._executors = executors
        self._scheduler_state = scheduler_state
        self._worker_pool = worker_pool
        #: Asks for a turn of the plan.
        self._wake = wake
        #: Retired ones that still have something to end.
        self._retiring: list[ExecutorHandle] = []

    def kill(self, executor: ExecutorHandle, code: str, message: str, detail: Any) -> None:
        """End an executor, whatever it does; its attempt ends with this code."""
        self.close(executor)
        self._worker_pool.post(
            executor.worker, encode(KillExecutor(executor.number, code, message, detail, only_if_idle=False))
        )

    def unload(self, number: int) -> None:
        """End an idle executor; its bytes count until its process is gone."""
        executor = self._executors.get(number)
        if executor is None or executor.is_closing:
            return
        self.close(executor)
        self._worker_pool.post(executor.worker, encode(UnloadExecutor(number)))

    def close(self, executor: ExecutorHandle, *, finish_running: bool = False) -> None:
        """The executor takes no further attempt; its worker says when it is gone. One that `lingers` ends
        what it runs first."""
        if not executor.is_closing:
            executor.is_closing = True
            self._scheduler_state.evict(executor.number, finishes_first=finish_running)

    def retire_handler(self, handler: str, *, is_replaced: bool) -> None:
        """The handler is another now: its executors go. One that still loads is not waited for where it is
        `replaced`."""
        for executor in self._executors.of_handler(handler):
            self.retire(executor, is_replaced=is_replaced)
        self._wake()

    def retire(self, executor: ExecutorHandle, *, is_replaced: bool = False) -> None:
        """The executor ends what runs in it; what has not started goes back to the queue, and it goes."""
        if executor.is_retired:
            return
        executor.is_retired = True
        is_killed = is_replaced and not executor.is_loaded
        # Also one that is to be killed: it may be spared, and end a long job first.
        self.close(executor, finish_running=True)
        self._retiring.append(executor)
        if is_killed:
            why = "its handler was reloaded while it loaded"
            # Word that it has loaded may be on its way: then its first job ends in the old code.
            self._worker_pool.post(executor.worker, encode(KillExecutor(executor.number, "interrupted", why)))
        elif executor.is_loaded and executor.sent_count:
            self._worker_pool.post(executor.worker, encode(RecallAttempts(executor.number)))

    def unload_retired(self) -> None:
        """End the retired executors that have nothing left to do."""
        if not self._retiring:
            return
        alive = [executor for executor in self._retiring if executor.number in self._executors]
        for executor in alive:
            if not executor.attempts:
                self._worker_pool.post(executor.worker, encode(UnloadExecutor(executor.number)))
        self._retiring = [executor for executor in alive if executor.attempts]

    def recall_staged(self, executor: ExecutorHandle) -> None:
        """The running attempt takes long: what is staged behind it goes elsewhere."""
        if len(executor.attempts) > 1 and not executor.is_closing:
            self._worker_pool.post(executor.worker, encode(RecallAttempts(executor.number)))

    def recall_all_staged(self) -> None:
        """What is staged anywhere shall not start."""
        for executor in self._executors.values():
            self.recall_staged(executor)
        self._worker_pool.flush()
