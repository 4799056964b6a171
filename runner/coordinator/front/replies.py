"""Effect: replies to fronts: refusals as problem documents, and jobs now or at their end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from runner.coordinator.jobs import job_json
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.processes.front_pool import FrontHandle
from runner.errors import RunnerError, StoreUnavailable
from runner.protocol import front as front_protocol

_json = msgspec.json.Encoder().encode
#: While the store refuses writes, clients are asked to try again after this time.
STORE_RETRY_S = 2.0

#: Status, body, and the seconds after which to try again.
Answer = Callable[..., None]


def problem(error: RunnerError) -> bytes:
    """The body of a refusal, as control.Reply has it; one of many jobs has no status but this."""
    head = {"status": error.status, "code": error.code, "title": error.title, "detail": error.message}
    return _json(head | error.detail)


def answer_once(front: FrontHandle, rid: int) -> Answer:
    """A callable that sends the first answer it is given, and no other."""
    open_ = True

    def answer(status: int, body: bytes, retry_after_s: float | None = None) -> None:
        nonlocal open_
        if open_:
            open_ = False
            front.send(front_protocol.encode(front_protocol.Reply(rid, status, body, retry_after_s)))

    return answer


class JobReplies:
    """Replies that show a live job."""

    def __init__(self, line: JobLifecycle) -> None:
        self._line = line

    def document(self, live: LiveJob) -> bytes:
        """The job as it is now."""
        reason = self._line.queue_manager.reasons.for_live_job(live)
        return job_json.job_document(live.job, reason, live.input, live.output)

    def answer_at_end(self, answer: Answer, live: LiveJob, wait_s: float, *, late_status: int) -> None:
        """Answer when the job's end is durable, or with what is known when `wait_s` is over."""

        def at_end(ended: LiveJob) -> None:
            timer.cancel()
            answer(200, self.document(ended))

        def late() -> None:
            if live.end_callbacks is not None and at_end in live.end_callbacks:
                live.end_callbacks.remove(at_end)
            self._line.journal.call_when_durable(accepted)
            self._line.queue_manager.spill_pool.maybe_spill(live)

        def accepted(failure: StoreUnavailable | None) -> None:
            if failure is not None:
                answer(failure.status, problem(failure), STORE_RETRY_S)
            else:
                answer(200 if live.phase == "ended" else late_status, self.document(live))

        timer = asyncio.get_running_loop().call_later(wait_s, late)
        if live.end_callbacks is None:
            live.end_callbacks = []
        live.end_callbacks.append(at_end)
        if live.phase == "ended":
            self._line.journal.commit_soon()
