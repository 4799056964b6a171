"""Effect: cancels, retries and deletes jobs for fronts."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.front.event_reader import load_live_job
from runner.coordinator.front.replies import JobReplies
from runner.coordinator.lifecycle.damaged_jobs import DamagedJobs
from runner.coordinator.lifecycle.deletion import JobDeletion
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.lifecycle.job_reader import JobReader
from runner.coordinator.processes.front_pool import FrontHandle
from runner.coordinator.queue.queue_manager import QueueManager
from runner.coordinator.runtime.submission_gate import SubmissionGate
from runner.coordinator.storage.files import FileStore
from runner.errors import AlreadyFinished, JobDamaged, JobNotFinished, NotFound
from runner.jobs.job import ENDED, Job
from runner.protocol import front as front_protocol

_encode = front_protocol.encode


class JobActionRequests:
    """Cancels, retries and deletes jobs; actions on one job are serialized."""

    def __init__(
        self,
        *,
        lifecycle: JobLifecycle,
        queue_manager: QueueManager,
        dispatcher: Dispatcher,
        job_reader: JobReader,
        files: FileStore,
        replies: JobReplies,
        gate: SubmissionGate,
        damaged_jobs: DamagedJobs,
    ) -> None:
        self._lifecycle = lifecycle
        self._queue_manager = queue_manager
        self._dispatcher = dispatcher
        self._job_reader = job_reader
        self._replies = replies
        self._gate = gate
        self._deletion = JobDeletion(lifecycle, files, damaged_jobs)
        #: Job id -> held during an action on that job.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def apply_action(self, front: FrontHandle, request: front_protocol.JobAction) -> None:
        """Apply the action, and reply when it is durable.

        Raises:
            NotFound: there is no such job.
            AlreadyFinished: a job to be cancelled has ended.
            JobNotFinished: a job to be retried or deleted has not ended.
            JobDamaged: a job to be cancelled or retried can't be read.
            ShuttingDown: retries are no longer accepted.
            StoreUnavailable: the store can't be read or written.
        """
        # Actions read the store before they change anything: two at once would both find the job there.
        lock = self._locks.get(request.job_id)
        if lock is None:
            lock = self._locks[request.job_id] = asyncio.Lock()
        async with lock:
            match request.action:
                case "cancel":
                    await self._cancel(front, request)
                case "retry":
                    await self._retry(front, request)
                case "delete":
                    await self._delete(front, request)

    async def _cancel(self, front: FrontHandle, request: front_protocol.JobAction) -> None:
        """Cancel a job: 200 if it has ended, 202 if its executor has yet to stop it."""
        live = await load_live_job(
            self._lifecycle, self._queue_manager, self._job_reader, request.job_id, load_spilled=True
        )
        if live is None or live.phase == "ended":
            job = live.job if live is not None else await self._job_reader.require_job(request.job_id)
            raise AlreadyFinished(f"job {job.id} has already ended as {job.state}", state=job.state)
        has_ended = self._dispatcher.cancel_job(
            live, request.reason or "cancelled by request", force=request.force
        )
        await self._lifecycle.journal.flush()
        front.send(
            _encode(
                front_protocol.Reply(
                    request.request_id, 200 if has_ended else 202, self._replies.job_json(live)
                )
            )
        )

    async def _retry(self, front: FrontHandle, request: front_protocol.JobAction) -> None:
        """Queue an ended job again under its id, with its stored input."""
        self._gate.check_open()
        job = await self._require_ended(request.job_id, "retried")
        input_ = await self._job_reader.load_input(job.number)
        if request.job_id in self._lifecycle.registry.by_id:
            raise JobNotFinished(f"job {job.id} is being retried already", state="queued")
        live = self._lifecycle.resubmit(job, input_)
        await self._lifecycle.journal.flush()
        front.send(_encode(front_protocol.Reply(request.request_id, 202, self._replies.job_json(live))))

    async def _delete(self, front: FrontHandle, request: front_protocol.JobAction) -> None:
        """Delete an ended job; a job that has not started is cancelled first."""
        live = await self._queue_manager.spill_pool.load_job(request.job_id)
        if live is not None and live.phase in ("waiting", "delayed", "behind"):
            self._dispatcher.cancel_job(live, "deleted", force=False)
            await self._lifecycle.journal.flush()
        try:
            job = await self._require_ended(request.job_id, "deleted")
        except JobDamaged:
            await self._delete_damaged(request.job_id)
        else:
            await self._deletion.delete(job)
        front.send(_encode(front_protocol.Reply(request.request_id, 204)))

    async def _delete_damaged(self, job_id: str) -> None:
        """Delete a job whose row can't be read, whatever its state was: it never runs again."""
        row = await self._job_reader.find_damaged(job_id)
        if row is not None:
            await self._deletion.delete_damaged(row)

    async def _require_ended(self, job_id: str, participle: str) -> Job:
        """Return the row of a job whose end is durable; `participle` names the action in the error."""
        if job_id in self._deletion:
            # The deletion is not durable yet: until then this is refused as the first request was.
            await self._lifecycle.journal.flush()
            raise NotFound(f"there is no job {job_id}")
        live = self._lifecycle.registry.by_id.get(job_id)
        if live is not None and live.phase == "ended":
            await self._lifecycle.journal.flush()
            live = None
        job = live.job if live is not None else await self._job_reader.require_job(job_id)
        if job.state not in ENDED:
            advice = "cancel it first" if participle == "deleted" else "wait for its end"
            message = f"job {job_id} is {job.state} and cannot be {participle} now: {advice}"
            raise JobNotFinished(message, state=job.state)
        return job
