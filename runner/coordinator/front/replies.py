"""Effect: replies to fronts: refusals as problem documents, and jobs now or at their end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from runner.coordinator.jobs import job_json
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.lifecycle.shown_job import shown_job
from runner.coordinator.observability.wait_statuses import WaitStatuses
from runner.coordinator.processes.front_pool import FrontHandle
from runner.coordinator.queue.queue_manager import QueueManager
from runner.coordinator.storage.journal import Journal
from runner.errors import RunnerError, StoreUnavailable
from runner.protocol import front as front_protocol

_json = msgspec.json.Encoder().encode
#: `Retry-After` of refusals while the store refuses writes.
STORE_RETRY_S = 2.0
#: A job's document above this size is made once for all replies at its end.
SHARED_MIN_BYTES = 16 * 1024

#: Takes the status, the body, and the seconds after which to try again.
ReplyOnce = Callable[..., None]


def problem_json(error: RunnerError) -> bytes:
    """The body of a refusal: a problem document (RFC 9457) with the fields of the error's detail."""
    fields = {"status": error.status, "code": error.code, "title": error.title, "detail": error.message}
    return _json(fields | error.detail)


def make_reply_once(front: FrontHandle, request_id: int) -> ReplyOnce:
    """Return a callable that sends its first reply and ignores all later ones."""
    is_open = True

    def reply(status: int, body: bytes, retry_after_s: float | None = None) -> None:
        nonlocal is_open
        if is_open:
            is_open = False
            front.send_reply(front_protocol.Reply(request_id, status, body, retry_after_s))

    return reply


class JobReplies:
    """Replies that show a live job."""

    def __init__(self, queue_manager: QueueManager, journal: Journal, wait_statuses: WaitStatuses) -> None:
        self._queue_manager = queue_manager
        self._journal = journal
        #: The job whose large document was made last in this iteration of the loop, and the document.
        self._ended: tuple[LiveJob, bytes] | None = None
        self._wait_statuses = wait_statuses

    def job_json(self, live: LiveJob, *, with_forecast: bool = False) -> bytes:
        """The document of the job as it may be shown now, with its input and output in full.

        `with_forecast` shows the position and the expected start of a queued job. Replies to submissions
        leave them out: thousands of jobs per second are submitted.
        """
        job = shown_job(live, self._journal)
        if job is not live.job:
            return job_json.job_document(job, "ready", live.input, live.output)
        reason = self._queue_manager.reasons.for_live_job(live)
        wait = self._wait_statuses.status_of(job, live) if with_forecast else None
        return job_json.job_document(job, reason, live.input, live.output, wait=wait)

    def ended_json(self, live: LiveJob) -> bytes:
        """The document of a job that has ended; a large one is made once for all that await the end."""
        if self._ended is not None and self._ended[0] is live:
            return self._ended[1]
        document = self.job_json(live)
        if len(document) > SHARED_MIN_BYTES:
            self._ended = live, document
            asyncio.get_running_loop().call_soon(self._forget_ended)
        return document

    def _forget_ended(self) -> None:
        self._ended = None

    def reply_at_end(self, reply: ReplyOnce, live: LiveJob, wait_s: float, *, timeout_status: int) -> None:
        """Reply when the job's end is durable, or with its current state when `wait_s` is over.

        The current state is sent once it is durable too, with `timeout_status`. A job whose end is waited for
        is not spilled, so it may have to be spilled after the timeout.
        """

        def on_end(ended: LiveJob) -> None:
            timer.cancel()
            reply(200, self.ended_json(ended))

        def on_timeout() -> None:
            live.remove_end_callback(on_end)
            self._journal.call_when_durable(on_durable)
            self._queue_manager.spill_pool.maybe_spill(live)

        def on_durable(failure: StoreUnavailable | None) -> None:
            if failure is not None:
                reply(failure.status, problem_json(failure), STORE_RETRY_S)
            else:
                status = 200 if live.phase == "ended" else timeout_status
                reply(status, self.job_json(live, with_forecast=True))

        timer = asyncio.get_running_loop().call_later(wait_s, on_timeout)
        live.add_end_callback(on_end)
        if live.phase == "ended":
            self._journal.commit_soon()
