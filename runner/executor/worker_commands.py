"""Effect: carries out the commands of the worker, in the channel thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runner.executor import simulated_memory
from runner.executor.attempt_run import AttemptRun
from runner.executor.attempt_runner import AttemptRunner
from runner.executor.cancel_signal import CancelSignal
from runner.executor.environment import ExecutorEnvironment
from runner.executor.sender import Sender
from runner.executor.shared_page import SharedPage
from runner.protocol import worker as worker_protocol

if TYPE_CHECKING:
    from runner.executor.sequential_runs import SequentialRunner
    from runner.executor.slot_runs import SlotRunner


class WorkerCommands:
    """One method for each type of command; none of them blocks.

    The main thread reads `environment` and calls `set_runner`; the channel thread calls all other methods.
    """

    def __init__(
        self,
        page: SharedPage,
        sender: Sender,
        cancel_signal: CancelSignal,
        staged: deque[Any],
        attempt_runner: AttemptRunner,
        runner: SequentialRunner,
    ) -> None:
        self._page, self._sender, self._cancel_signal = page, sender, cancel_signal
        self._staged, self._attempt_runner = staged, attempt_runner
        #: None until the first command arrives.
        self.environment: ExecutorEnvironment | None = None
        #: Where commands find the runs; replaced once if attempts run in slots.
        self._runner: SequentialRunner | SlotRunner = runner
        self._is_unloading = False

    def set_runner(self, runner: SlotRunner) -> None:
        """Have commands act on the attempts of this runner from now on."""
        self._runner = runner
        # `_on_unload` sets the flag before it reads the runner: one of the two always sees the other's value.
        if self._is_unloading:
            runner.is_unloading = True

    def handlers_by_type(self) -> dict[type, Callable[[Any], None]]:
        """Return the function for each type of command."""
        return {
            worker_protocol.ConfigureExecutor: self._on_configure,
            worker_protocol.RunAttempts: self._on_run,
            worker_protocol.RecallAttempts: self._on_recall,
            worker_protocol.RequestCancel: self._on_flag,
            worker_protocol.RaiseCancelled: self._on_raise,
            worker_protocol.UnloadExecutor: self._on_unload,
            worker_protocol.SetGrant: self._on_grant,
            worker_protocol.AttemptReply: self._on_reply,
        }

    def flush_due_progress(self, now: float) -> float | None:
        """Send progress that is due by `now`; return when the next is due (None: nothing runs).

        Both are monotonic seconds.
        """
        return self._runner.flush_due_progress(now)

    def _on_configure(self, config: worker_protocol.ConfigureExecutor) -> None:
        """Create the environment, which the main thread waits for; always the first command."""
        simulated_memory.set_reporter(
            lambda size: self._sender.send_message(
                worker_protocol.encode(worker_protocol.SimulatedAllocation(config.executor, size))
            )
        )
        self.environment = ExecutorEnvironment(config, self._page, self._sender, self._cancel_signal)
        self._runner.wake()

    def _on_run(self, run: worker_protocol.RunAttempts) -> None:
        """Stage attempts, as one item if the handler takes batches."""
        assert self.environment is not None
        if self.environment.config.is_batched:
            self._staged.append(run.attempts)
        else:
            self._staged.extend(run.attempts)
        self._runner.wake()

    def _on_recall(self, recall: worker_protocol.RecallAttempts) -> None:
        """Return all staged attempts, taken from the end: the main thread may take one from the front."""
        returned: list[tuple[str, int]] = []
        while True:
            try:
                last = self._staged.pop()
            except IndexError:
                break
            for attempt in last[::-1] if isinstance(last, list) else (last,):
                returned.append((attempt.job_id, attempt.attempt))
        self._sender.send_message(
            worker_protocol.encode(worker_protocol.AttemptsRecalled(recall.executor, returned[::-1]))
        )

    def _on_flag(self, flag: worker_protocol.RequestCancel) -> None:
        """End a staged attempt as cancelled, or ask a running one to stop (first rung of the kill ladder)."""
        key = (flag.job_id, flag.attempt)
        for attempt in list(self._staged):
            # A cancelled item of a staged batch is left out when the batch starts.
            if not isinstance(attempt, list) and (attempt.job_id, attempt.attempt) == key:
                if self._withdraw(attempt, flag.reason):
                    return
                break
        # Keep the request, then look for its run; the main thread sets the run, then reads kept requests. One
        # of the two always matches them, even while the attempt is being taken from the queue.
        self._attempt_runner.keep_flag(flag)
        run = self._runner.find(key)
        if run is not None and not run.cancelled:
            run.request_cancel(flag.reason)

    def _withdraw(self, attempt: worker_protocol.AttemptSpec, reason: str) -> bool:
        """Remove a staged attempt and send its end; return False if the main thread has taken it."""
        try:
            self._staged.remove(attempt)
        except ValueError:
            return False
        assert self.environment is not None
        ended = worker_protocol.AttemptEnded(
            attempt.job_id, attempt.attempt, 0, "cancelled", reason, retryable=False
        )
        self._sender.add_ended([AttemptRun(attempt, self.environment)], [ended], None, may_wait=False)
        return True

    def _on_raise(self, message: worker_protocol.RaiseCancelled) -> None:
        """Interrupt a running attempt (second rung of the kill ladder)."""
        self._runner.raise_cancelled((message.job_id, message.attempt))

    def _on_unload(self, _: worker_protocol.UnloadExecutor) -> None:
        self._is_unloading = True
        self._runner.is_unloading = True
        self._runner.wake()

    def _on_grant(self, grant: worker_protocol.SetGrant) -> None:
        """Store the new grant; torch is held to it from the next attempt on."""
        if self.environment is not None:
            self.environment.config.grant_bytes = grant.grant_bytes
            self.environment.config.cap_bytes = grant.cap_bytes

    def _on_reply(self, reply: worker_protocol.AttemptReply) -> None:
        if self.environment is not None:
            self.environment.on_reply(reply)
