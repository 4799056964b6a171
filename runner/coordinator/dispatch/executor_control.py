"""Effect: ends executors and recalls staged attempts from them."""

from __future__ import annotations

from typing import Any

from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.coordinator.dispatch.executor_table import ExecutorTable
from runner.coordinator.processes.worker_pool import WorkerPool
from runner.coordinator.runtime.plan_trigger import PlanTrigger
from runner.protocol.worker import KillExecutor, RecallAttempts, UnloadExecutor, encode


class ExecutorControl:
    """Closes, retires and kills executors by sending commands to their workers.

    An executor stays in the table until its worker reports that it is gone.
    """

    def __init__(
        self,
        *,
        executors: ExecutorTable,
        scheduler_state: SchedulerState,
        worker_pool: WorkerPool,
        plan_trigger: PlanTrigger,
    ) -> None:
        self._executors = executors
        self._scheduler_state = scheduler_state
        self._worker_pool = worker_pool
        self._plan_trigger = plan_trigger
        #: Retired executors that still hold attempts.
        self._retiring: list[ExecutorHandle] = []

    def kill(self, executor: ExecutorHandle, code: str, message: str, detail: Any) -> None:
        """Kill an executor, idle or not. Its running attempt ends with this code, message and detail."""
        self.close(executor)
        self._worker_pool.post(
            executor.worker, encode(KillExecutor(executor.number, code, message, detail, only_if_idle=False))
        )

    def unload(self, number: int) -> None:
        """Unload an idle executor; no effect if it is closing or gone. Its bytes stay charged until its
        process has ended."""
        executor = self._executors.get(number)
        if executor is None or executor.is_closing:
            return
        self.close(executor)
        self._worker_pool.post(executor.worker, encode(UnloadExecutor(number)))

    def close(self, executor: ExecutorHandle, *, finish_running: bool = False) -> None:
        """Assign no further attempts to the executor; its worker reports when it is gone. With
        `finish_running` the executor first finishes the attempts that it runs."""
        if executor.mark_closing():
            self._scheduler_state.evict(executor.number, finishes_first=finish_running)

    def retire_handler(self, handler: str, *, is_replaced: bool) -> None:
        """Retire all executors of a changed handler. If it is replaced by another version (`is_replaced`),
        executors that are still loading are killed."""
        for executor in self._executors.of_handler(handler):
            self.retire(executor, is_replaced=is_replaced)
        self._plan_trigger.wake()

    def retire(self, executor: ExecutorHandle, *, is_replaced: bool = False) -> None:
        """Let the executor finish its running attempts, return the others to the queue, and unload it."""
        if not executor.mark_retired():
            return
        is_killed = is_replaced and not executor.is_loaded
        # Also for an executor that is about to be killed: it may survive the kill and finish a long job
        # first.
        self.close(executor, finish_running=True)
        self._retiring.append(executor)
        if is_killed:
            why = "its handler was reloaded while it loaded"
            # The executor may have loaded meanwhile, with its report under way: then its first job runs the
            # old code to its end.
            self._worker_pool.post(executor.worker, encode(KillExecutor(executor.number, "interrupted", why)))
        elif executor.is_loaded and executor.sent_count:
            self._worker_pool.post(executor.worker, encode(RecallAttempts(executor.number)))

    def unload_retired(self) -> None:
        """Unload the retired executors that no longer hold an attempt."""
        if not self._retiring:
            return
        alive = [executor for executor in self._retiring if executor.number in self._executors]
        for executor in alive:
            if not executor.attempts:
                self._worker_pool.post(executor.worker, encode(UnloadExecutor(executor.number)))
        self._retiring = [executor for executor in alive if executor.attempts]

    def recall_staged(self, executor: ExecutorHandle) -> None:
        """Recall the attempts staged behind a long-running one, so that they can start elsewhere."""
        if len(executor.attempts) > 1 and not executor.is_closing:
            self._worker_pool.post(executor.worker, encode(RecallAttempts(executor.number)))

    def recall_all_staged(self) -> None:
        """Recall the staged attempts of all executors."""
        for executor in self._executors.with_attempts():
            self.recall_staged(executor)
        self._worker_pool.flush()
