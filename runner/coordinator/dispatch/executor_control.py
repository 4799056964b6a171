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
        self, *, executors: ExecutorTable, view: SchedulerState, fleet: WorkerPool, wake: Callable[[], None]
    ) -> None:
        self._executors = executors
        self._view = view
        self._fleet = fleet
        #: Asks for a turn of the plan.
        self._wake = wake
        #: Retired ones that still have something to end.
        self._retiring: list[ExecutorHandle] = []

    def kill(self, post: ExecutorHandle, code: str, message: str, detail: Any) -> None:
        """End an executor, whatever it does; its attempt ends with this code."""
        self.close(post)
        self._fleet.post(
            post.worker, encode(KillExecutor(post.number, code, message, detail, only_if_idle=False))
        )

    def unload(self, number: int) -> None:
        """End an idle executor; its bytes count until its process is gone."""
        post = self._executors.get(number)
        if post is None or post.is_closing:
            return
        self.close(post)
        self._fleet.post(post.worker, encode(UnloadExecutor(number)))

    def close(self, post: ExecutorHandle, *, finish_running: bool = False) -> None:
        """The executor takes no further attempt; its worker says when it is gone. One that `lingers` ends
        what it runs first."""
        if not post.is_closing:
            post.is_closing = True
            self._view.evict(post.number, finishes_first=finish_running)

    def retire_handler(self, handler: str, *, is_replaced: bool) -> None:
        """The handler is another now: its executors go. One that still loads is not waited for where it is
        `replaced`."""
        for post in self._executors.of_handler(handler):
            self.retire(post, is_replaced=is_replaced)
        self._wake()

    def retire(self, post: ExecutorHandle, *, is_replaced: bool = False) -> None:
        """The executor ends what runs in it; what has not started goes back to the queue, and it goes."""
        if post.is_retired:
            return
        post.is_retired = True
        is_killed = is_replaced and not post.is_loaded
        # Also one that is to be killed: it may be spared, and end a long job first.
        self.close(post, finish_running=True)
        self._retiring.append(post)
        if is_killed:
            why = "its handler was reloaded while it loaded"
            # Word that it has loaded may be on its way: then its first job ends in the old code.
            self._fleet.post(post.worker, encode(KillExecutor(post.number, "interrupted", why)))
        elif post.is_loaded and post.sent_count:
            self._fleet.post(post.worker, encode(RecallAttempts(post.number)))

    def unload_retired(self) -> None:
        """End the retired executors that have nothing left to do."""
        if not self._retiring:
            return
        alive = [post for post in self._retiring if post.number in self._executors]
        for post in alive:
            if not post.attempts:
                self._fleet.post(post.worker, encode(UnloadExecutor(post.number)))
        self._retiring = [post for post in alive if post.attempts]

    def recall_staged(self, post: ExecutorHandle) -> None:
        """The running attempt takes long: what is staged behind it goes elsewhere."""
        if len(post.attempts) > 1 and not post.is_closing:
            self._fleet.post(post.worker, encode(RecallAttempts(post.number)))

    def recall_all_staged(self) -> None:
        """What is staged anywhere shall not start."""
        for post in self._executors.values():
            self.recall_staged(post)
        self._fleet.flush()
