"""Effect: assigns attempts to an executor: reads inputs, makes starts durable, sends them to the worker."""

from __future__ import annotations

from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.dispatch.commands import attempt_spec, batch_length, split_attempts
from runner.coordinator.dispatch.executor_control import ExecutorControl
from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.coordinator.dispatch.executor_table import ExecutorTable
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.lifecycle.job_reader import JobReader
from runner.coordinator.processes.worker_pool import WorkerPool
from runner.coordinator.queue.queue_manager import QueueManager
from runner.coordinator.queue.spill import read_with_retry
from runner.coordinator.runtime.background_tasks import BackgroundTasks
from runner.coordinator.runtime.plan_trigger import PlanTrigger
from runner.jobs.job import JobError
from runner.protocol.worker import RunAttempts, encode


class Assigner:
    """Takes attempts from the plan to a worker.

    An attempt is assigned, then sent as soon as its input is in memory and, unless it is the first one of its
    job, its start is durable. An executor that is lost or retired meanwhile returns its attempts to the
    queue.
    """

    def __init__(
        self,
        *,
        lifecycle: JobLifecycle,
        queue_manager: QueueManager,
        scheduler_state: SchedulerState,
        worker_pool: WorkerPool,
        executors: ExecutorTable,
        control: ExecutorControl,
        job_reader: JobReader,
        plan_trigger: PlanTrigger,
    ) -> None:
        self._lifecycle = lifecycle
        self._queue_manager = queue_manager
        self._scheduler_state = scheduler_state
        self._worker_pool = worker_pool
        self._executors = executors
        self._control = control
        self._job_reader = job_reader
        self._plan_trigger = plan_trigger
        #: Reads of inputs that are not in memory.
        self._reads = BackgroundTasks()

    def assign(self, executor: ExecutorHandle, live_jobs: list[LiveJob]) -> None:
        """Assign the jobs to the executor; send them once their inputs are read and later starts are
        durable."""
        for live in live_jobs:
            live.mark_assigned(executor.number)
        executor.assign_attempts(live_jobs)
        if executor.is_batched:
            live_jobs = self._keep_batch_sendable(executor, live_jobs)
        if any(live.input is None for live in live_jobs):
            self._reads.start(self._read_and_send(executor, live_jobs))
            return
        self._send_when_durable(executor, live_jobs)

    def _keep_batch_sendable(self, executor: ExecutorHandle, live_jobs: list[LiveJob]) -> list[LiveJob]:
        """Return the first jobs of a batch, as many as one message to the worker may hold; the others go back
        to the front of their queue, for the next batch."""
        count = batch_length([live.job.input_bytes for live in live_jobs])
        for live in reversed(live_jobs[count:]):
            self._release_attempt(executor, live, done=False)
            self._lifecycle.return_unstarted(live)
        if count < len(live_jobs):
            self._plan_trigger.wake()
        return live_jobs[:count]

    async def _read_and_send(self, executor: ExecutorHandle, live_jobs: list[LiveJob]) -> None:
        """Read the missing inputs, retrying until the store answers, and send the attempts."""
        missing = [live.job.number for live in live_jobs if live.input is None]
        inputs = await read_with_retry(self._job_reader.load_inputs, missing, "inputs")
        for live in live_jobs:
            if live.input is None and live.job.number in inputs:
                self._queue_manager.spill_pool.keep_input(live, inputs[live.job.number])
        self._send_when_durable(executor, live_jobs)
        self._worker_pool.flush()

    def _send_when_durable(self, executor: ExecutorHandle, live_jobs: list[LiveJob]) -> None:
        """Send the attempts. A first attempt may be sent before its submit is durable; a later start is
        committed first, so that the count of executor deaths survives a job that kills the server."""
        first_attempts, later_attempts = executor.split_first_attempts(live_jobs)
        if first_attempts:
            self._send(executor, first_attempts)
        if not later_attempts:
            return
        for live in later_attempts:
            if live.attempt_in_flight and live.executor == executor.number and not executor.is_retired:
                self._start_attempt(executor, live)

        def send(_: object) -> None:
            self._send(executor, later_attempts)
            self._worker_pool.flush()

        self._lifecycle.journal.call_when_durable(send, is_patient=True)

    def _send(self, executor: ExecutorHandle, live_jobs: list[LiveJob]) -> None:
        """Send the attempts that the executor still holds: since the assignment, jobs may have been cancelled
        and the executor may have been lost or retired."""
        attempts, unstarted = [], []
        was_idle = executor.sent_count == 0
        number, options = executor.number, executor.spec.options
        is_alive = number in self._executors
        for live in live_jobs:
            if live.executor != number or live.phase == "ended":
                continue
            if not is_alive:
                unstarted.append(live)
            elif live.job.cancel_reason is not None:
                self._end_cancelled(executor, live)
            elif live.input is None:
                self._fail_without_input(executor, live)
            elif executor.is_retired:
                self._release_attempt(executor, live, done=False)
                unstarted.append(live)
            else:
                self._mark_sent(executor, live, was_idle=was_idle)
                attempts.append(attempt_spec(live, options))
        # Each is returned to the front of its queue, so the first one comes last.
        for live in reversed(unstarted):
            self._lifecycle.return_unstarted(live)
        if attempts:
            for part in [attempts] if executor.is_batched else split_attempts(attempts):
                self._worker_pool.post(executor.worker, encode(RunAttempts(number, part)))
            if self._scheduler_state.executors[number].long_job_number is not None:
                # The running attempt was marked as long-running while these inputs were read or starts
                # stored.
                self._control.recall_staged(executor)

    def _mark_sent(self, executor: ExecutorHandle, live: LiveJob, *, was_idle: bool) -> None:
        """Record that an attempt is sent: it starts at once, or is staged behind another."""
        starts_at_once = executor.mark_sent(was_idle=was_idle)
        if live.job.attempt < live.attempt_in_flight:
            if starts_at_once:
                self._start_attempt(executor, live)
            else:
                live.mark_staged()

    def _start_attempt(self, executor: ExecutorHandle, live: LiveJob) -> None:
        """Record the start of an attempt now."""
        self._lifecycle.start_attempt(
            live,
            at=self._lifecycle.clock.now(),
            worker=executor.worker.name,
            devices=executor.devices,
            is_loading=not executor.is_loaded,
            granted_bytes=executor.grant_bytes,
            meter=executor.meter,
        )

    def _end_cancelled(self, executor: ExecutorHandle, live: LiveJob) -> None:
        """End a job that was cancelled before its attempt was sent to the worker."""
        self._release_attempt(executor, live)
        self._lifecycle.cancel_unstarted(live, live.job.cancel_reason or "cancelled")
        self._plan_trigger.wake()

    def _fail_without_input(self, executor: ExecutorHandle, live: LiveJob) -> None:
        """Fail a job whose input can't be read, instead of holding its executor for ever."""
        self._release_attempt(executor, live)
        message = "the stored input is damaged and can't be read; submit the job again"
        self._lifecycle.clear_attempt(live)
        self._lifecycle.finish(live, "failed", JobError("invalid_input", message))
        self._plan_trigger.wake()

    def _release_attempt(self, executor: ExecutorHandle, live: LiveJob, *, done: bool = True) -> None:
        """Release an attempt that was never sent to the worker; `done`: its job needs no other attempt."""
        executor.remove_unsent(live.job.number)
        if live.job_class is not None:
            self._scheduler_state.on_attempt_ended(
                executor.number, live.job_class, live.job.number, self._lifecycle.clock.now(), has_run=done
            )
