"""Effect: reads jobs and all other documents for fronts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from runner.coordinator.front.event_reader import load_live_job, read_event_page
from runner.coordinator.front.replies import JobReplies, make_reply_once
from runner.coordinator.jobs import job_json
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.lifecycle.job_reader import JobReader
from runner.coordinator.observability.job_explainer import JobExplainer
from runner.coordinator.observability.resources import ResourceViews
from runner.coordinator.processes.front_pool import FrontHandle
from runner.errors import JobNotFinished
from runner.jobs.job import ENDED, Job
from runner.protocol import front as front_protocol

_encode = front_protocol.encode
_json = msgspec.json.Encoder().encode


class ReadRequests:
    """One method a request. None of them changes anything."""

    def __init__(
        self,
        *,
        line: JobLifecycle,
        archive: JobReader,
        replies: JobReplies,
        views: ResourceViews,
        explainer: JobExplainer,
        wait_for_handler: Callable[[str], Awaitable[None]],
    ) -> None:
        self._line = line
        self._archive = archive
        self._replies = replies
        self._views = views
        self._explainer = explainer
        self._wait_for_handler = wait_for_handler

    async def get_job(self, front: FrontHandle, ask: front_protocol.GetJob) -> None:
        """One job, at once or when it has ended."""
        live = await load_live_job(self._line, self._archive, ask.job_id, load_spilled=ask.wait_s is not None)
        if live is None:
            job = await self._archive.require_job(ask.job_id)
            body = await self._archive.job_json(job, self._line.queue_manager.reasons.for_stored_job(job))
            front.send(_encode(front_protocol.Reply(ask.request_id, 200, body)))
            return
        if ask.wait_s is not None and self._line.registry.by_id.get(ask.job_id) is live:
            self._replies.reply_at_end(
                make_reply_once(front, ask.request_id), live, ask.wait_s, timeout_status=200
            )
            return
        front.send(_encode(front_protocol.Reply(ask.request_id, 200, self._replies.job_json(live))))

    async def list_jobs(self, front: FrontHandle, ask: front_protocol.ListJobs) -> None:
        """A page of jobs."""
        body = await self._archive.list_json(ask.query, self._line.registry, self._line.queue_manager)
        front.send(_encode(front_protocol.Reply(ask.request_id, 200, body)))

    async def read_events(self, front: FrontHandle, ask: front_protocol.ReadEvents) -> None:
        """A page of a job's events."""
        front.send(_encode(await read_event_page(self._line, self._archive, ask)))

    async def await_handler(self, front: FrontHandle, ask: front_protocol.AwaitHandler) -> None:
        """Reply once it is known whether there is such a handler."""
        await self._wait_for_handler(ask.name)
        if ask.name not in self._line.queue_manager.handlers.specs:
            self._line.queue_manager.handlers.require(ask.name)
        front.send(_encode(front_protocol.Reply(ask.request_id, 200)))

    async def get_document(self, front: FrontHandle, ask: front_protocol.GetDocument) -> None:
        """A document of a job or of the server."""
        match ask.document:
            case "output" | "file" | "attempts" | "explain":
                body = await self._job_document(ask)
            case "metrics":
                body = self._views.render_metrics()
            case "ready":
                status, document = self._views.check_readiness()
                front.send(_encode(front_protocol.Reply(ask.request_id, status, _json(document))))
                return
            case _:
                body = _json(self._views.build_document(ask.document, ask.subject))
        front.send(_encode(front_protocol.Reply(ask.request_id, 200, body)))

    async def _job_document(self, ask: front_protocol.GetDocument) -> bytes:
        job_id = ask.subject or ""
        live = self._line.registry.by_id.get(job_id)
        job = live.job if live is not None else await self._archive.require_job(job_id)
        match ask.document:
            case "attempts":
                return job_json.attempts_document(job)
            case "explain":
                return _json(self._explainer.explain(job, live))
            case "output":
                return await self._output(job, live)
            case _:
                return self._archive.file_json(job, ask.name or "")

    async def _output(self, job: Job, live: LiveJob | None) -> bytes:
        if job.state not in ENDED:
            raise JobNotFinished(f"job {job.id} is {job.state}; its output is not there yet", state=job.state)
        if live is not None and live.output is not None:
            await self._line.journal.flush()
            return live.output
        return await self._archive.load_output(job)
