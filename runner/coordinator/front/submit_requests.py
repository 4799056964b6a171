"""Effect: accepts the jobs that fronts submit, one by one or in bulk."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from runner.coordinator.front.replies import STORE_RETRY_S, JobReplies, make_reply_once, problem_json
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.processes.front_pool import FrontHandle
from runner.coordinator.queue.queue_manager import QueueManager
from runner.coordinator.runtime.submission_gate import SubmissionGate
from runner.errors import Conflict, RunnerError, StoreUnavailable
from runner.protocol import front as front_protocol

_encode = front_protocol.encode
#: Jobs of a bulk accepted per iteration of the event loop: other work goes on in between.
BULK_CHUNK_JOBS = 500


class SubmitRequests:
    """Accepts jobs. A job is accepted once it is durable; a job that the store refuses is withdrawn."""

    def __init__(
        self,
        *,
        lifecycle: JobLifecycle,
        queue_manager: QueueManager,
        replies: JobReplies,
        gate: SubmissionGate,
    ) -> None:
        self._lifecycle = lifecycle
        self._queue_manager = queue_manager
        self._replies = replies
        self._gate = gate

    def submit(
        self, front: FrontHandle, request: front_protocol.SubmitJobs
    ) -> Coroutine[Any, Any, None] | None:
        """Accept the jobs of a request, and reply when they are durable.

        With `wait_s` the reply to a single job is sent when it has ended, or after that time. In a bulk each
        job is accepted or refused by itself; the reply lists null or a problem document for each, in order.

        Raises:
            ShuttingDown: no jobs are accepted any more.
            StoreUnavailable: the store refuses writes.
            RunnerError: a single job is refused, see `JobLifecycle.submit`; Conflict if its id is taken.
        """
        self._gate.check_open()
        if self._lifecycle.journal.failure is not None:
            raise StoreUnavailable(self._lifecycle.journal.failure.message)
        if request.bulk:
            return self._submit_bulk(front, request)
        self._check_new(request.jobs[0].id)
        if request.wait_s is None:
            # Before the planning cycle that the job asks for: the cycle runs while the writer syncs.
            self._lifecycle.journal.commit_soon()
        live = self._lifecycle.submit(request.jobs[0])
        self._lifecycle.statistics.submitted_count += 1
        answer = make_reply_once(front, request.request_id)
        if request.wait_s is not None:
            self._replies.reply_at_end(answer, live, request.wait_s, timeout_status=202)

        def on_durable(failure: StoreUnavailable | None) -> None:
            if failure is not None:
                self._withdraw(live)
                answer(failure.status, problem_json(failure), STORE_RETRY_S)
            elif request.wait_s is None:
                answer(202, self._replies.job_json(live))

        # A reply at the end needs no urgent commit of the start: mostly one commit holds both.
        self._lifecycle.journal.call_when_durable(
            on_durable, is_urgent=request.wait_s is None
        )  # guard: answer-when-durable
        return None

    def _check_new(self, job_id: str) -> None:
        """Raise Conflict if a live job has this id."""
        if job_id in self._lifecycle.registry.by_id:
            raise Conflict(f"job {job_id} already exists")

    def _withdraw(self, live: LiveJob) -> None:
        """Withdraw a job that the store refused: it was never accepted, and its submitter gets an error.

        A job that an executor holds by now is left to end.
        """
        # A part of a bulk may be stored and spilled; then only the queue still knows of the job.
        live = self._lifecycle.registry.by_number.get(live.job.number, live)
        if live.phase == "spilled" and self._queue_manager.stored_phase(live.job) is None:
            return
        if live.executor is None and live.phase != "ended":
            self._queue_manager.dequeue(live)
            self._queue_manager.spill_pool.drop_input(live)
            live.mark_ended()
            self._lifecycle.journal.withdraw(live.job)
            self._lifecycle.registry.uncount(live.job)
            self._lifecycle.registry.remove(live)

    async def _submit_bulk(self, front: FrontHandle, request: front_protocol.SubmitJobs) -> None:
        """Accept many jobs in portions of `BULK_CHUNK_JOBS`; if the store refuses a part, withdraw all."""
        answers: list[bytes] = []
        accepted: list[LiveJob] = []
        for index, submission in enumerate(request.jobs):
            try:
                self._check_new(submission.id)
                accepted.append(self._lifecycle.submit(submission))
                answers.append(b"null")
            except RunnerError as error:
                answers.append(problem_json(error))
            if index % BULK_CHUNK_JOBS == BULK_CHUNK_JOBS - 1:
                await asyncio.sleep(0)
        self._lifecycle.statistics.submitted_count += len(accepted)
        try:
            await self._lifecycle.journal.flush()
        except StoreUnavailable:
            for live in accepted:
                self._withdraw(live)
            raise
        front.send(_encode(front_protocol.Reply(request.request_id, 202, b"[%s]" % b",".join(answers))))
