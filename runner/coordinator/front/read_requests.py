"""Effect: reads jobs and all other documents for fronts."""

from __future__ import annotations

import msgspec

from runner.coordinator.front.event_reader import load_live_job, read_event_page
from runner.coordinator.front.replies import JobReplies, make_reply_once
from runner.coordinator.jobs import job_json
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.lifecycle.job_reader import JobReader
from runner.coordinator.lifecycle.shown_job import shown_job
from runner.coordinator.observability.job_explainer import JobExplainer
from runner.coordinator.observability.metrics import Metrics
from runner.coordinator.observability.resources import ResourceViews
from runner.coordinator.observability.wait_statuses import WaitStatuses
from runner.coordinator.processes.front_pool import FrontHandle
from runner.coordinator.queue.queue_manager import QueueManager
from runner.coordinator.reload.handler_activator import HandlerActivator
from runner.coordinator.storage.files import FileStore
from runner.errors import JobNotFinished
from runner.jobs.job import ENDED, Job
from runner.protocol import front as front_protocol

_encode = front_protocol.encode
_json = msgspec.json.Encoder().encode


class ReadRequests:
    """Answers reads, one method per request type; no job or device is changed.

    Jobs are read from memory while they are live, and from the store after that.
    """

    def __init__(
        self,
        *,
        lifecycle: JobLifecycle,
        queue_manager: QueueManager,
        job_reader: JobReader,
        files: FileStore,
        replies: JobReplies,
        resource_views: ResourceViews,
        metrics: Metrics,
        explainer: JobExplainer,
        handler_activator: HandlerActivator,
        wait_statuses: WaitStatuses,
    ) -> None:
        self._lifecycle = lifecycle
        self._queue_manager = queue_manager
        self._job_reader = job_reader
        self._files = files
        self._replies = replies
        self._resource_views = resource_views
        self._metrics = metrics
        self._explainer = explainer
        self._handler_activator = handler_activator
        self._wait_statuses = wait_statuses

    async def get_job(self, front: FrontHandle, request: front_protocol.GetJob) -> None:
        """Reply with a job: at once, or with `wait_s` when it has ended or the time is over.

        Raises:
            NotFound: there is no such job.
        """
        live = await load_live_job(
            self._lifecycle,
            self._queue_manager,
            self._job_reader,
            request.job_id,
            load_spilled=request.wait_s is not None,
        )
        if live is None:
            job = await self._job_reader.require_job(request.job_id)
            body = await self._job_reader.job_json(
                job,
                self._queue_manager.reasons.for_stored_job(job),
                wait=self._wait_statuses.status_of(job, None),
            )
            front.send(_encode(front_protocol.Reply(request.request_id, 200, body)))
            return
        if request.wait_s is not None and self._lifecycle.registry.by_id.get(request.job_id) is live:
            self._replies.reply_at_end(
                make_reply_once(front, request.request_id), live, request.wait_s, timeout_status=200
            )
            return
        body = self._replies.job_json(live, with_forecast=True)
        front.send(_encode(front_protocol.Reply(request.request_id, 200, body)))

    async def list_jobs(self, front: FrontHandle, request: front_protocol.ListJobs) -> None:
        """Reply with a page of jobs."""
        body = await self._job_reader.list_json(request.query, self._lifecycle.registry, self._queue_manager)
        front.send(_encode(front_protocol.Reply(request.request_id, 200, body)))

    async def read_events(self, front: FrontHandle, request: front_protocol.ReadEvents) -> None:
        """Reply with a page of a job's events."""
        page = await read_event_page(
            self._lifecycle, self._queue_manager, self._job_reader, self._wait_statuses, request
        )
        front.send(_encode(page))

    async def await_handler(self, front: FrontHandle, request: front_protocol.AwaitHandler) -> None:
        """Reply once the handler is known, with a wait of 30 s at most.

        Raises:
            UnknownHandler: it does not exist.
        """
        await self._handler_activator.wait_for_handler(request.name)
        if request.name not in self._queue_manager.handlers.specs:
            self._queue_manager.handlers.require(request.name)
        front.send(_encode(front_protocol.Reply(request.request_id, 200)))

    async def get_document(self, front: FrontHandle, request: front_protocol.GetDocument) -> None:
        """Reply with a document of a job or of the server.

        Raises:
            NotFound: there is no such job, file, device, handler or queue.
            JobNotFinished: the output of a job that has not ended was requested.
        """
        match request.document:
            case "output" | "file" | "files" | "attempts" | "explain":
                body = await self._job_document(request)
            case "metrics":
                body = self._metrics.render(self._resource_views.measure_devices())
            case "ready":
                status, document = self._resource_views.check_readiness()
                front.send(_encode(front_protocol.Reply(request.request_id, status, _json(document))))
                return
            case _:
                body = _json(self._resource_views.build_document(request.document, request.subject))
        front.send(_encode(front_protocol.Reply(request.request_id, 200, body)))

    async def _job_document(self, request: front_protocol.GetDocument) -> bytes:
        job_id = request.subject or ""
        live = self._lifecycle.registry.by_id.get(job_id)
        job = live.job if live is not None else await self._job_reader.require_job(job_id)
        match request.document:
            case "attempts":
                shown = job if live is None else shown_job(live, self._lifecycle.journal)
                return job_json.attempts_document(shown)
            case "files":
                return job_json.files_document(job)
            case "explain":
                return _json(self._explainer.explain(job, live))
            case "output":
                return await self._output(job, live)
            case _:
                return self._files.file_json(job, request.name or "")

    async def _output(self, job: Job, live: LiveJob | None) -> bytes:
        """Return the output as JSON text, once the end of the job is durable."""
        if job.state not in ENDED:
            raise JobNotFinished(f"job {job.id} is {job.state} and has no output yet", state=job.state)
        if live is not None and live.output is not None:
            await self._lifecycle.journal.flush()
            return live.output
        return await self._job_reader.load_output(job)
