"""Waiters of one job's end get one document, made once."""

from __future__ import annotations

import asyncio
from typing import cast

from runner.coordinator.front.replies import SHARED_MIN_BYTES, JobReplies, make_reply_once
from runner.coordinator.processes.front_pool import FrontHandle
from runner.jobs.job import Submission
from runner.protocol.front import Reply
from tests.runner.coordinator.lifecycle_harness import LifecycleHarness, run


class RecordingFront:
    """Keeps the replies that are sent."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []

    def send_reply(self, reply: Reply) -> None:
        self.replies.append(reply)


def replies_at_end(input: bytes, waiters: int) -> list[Reply]:
    """The replies to this number of requests that wait for a job with this input."""
    front = RecordingFront()

    async def body(harness: LifecycleHarness) -> None:
        replies = JobReplies(harness.queue_manager, harness.journal, harness.wait_statuses)
        live = harness.lifecycle.submit(Submission("job-1", "h", input))
        for request_id in range(waiters):
            reply = make_reply_once(cast(FrontHandle, front), request_id)
            replies.reply_at_end(reply, live, 30.0, timeout_status=202)
        harness.lifecycle.cancel_unstarted(live, "by hand")
        await harness.journal.flush()
        await asyncio.sleep(0)
        assert replies.ended_json(live) is not front.replies[0].body

    run(body)
    return front.replies


def test_a_large_document_is_made_once_for_all_waiters() -> None:
    replies = replies_at_end(b'"%s"' % (b"x" * SHARED_MIN_BYTES), 3)
    assert [reply.request_id for reply in replies] == [0, 1, 2]
    assert len({id(reply.body) for reply in replies}) == 1 and len(replies[0].body) > SHARED_MIN_BYTES


def test_a_small_document_is_made_for_each_waiter() -> None:
    replies = replies_at_end(b"1", 3)
    assert len({id(reply.body) for reply in replies}) == 3 and len({reply.body for reply in replies}) == 1
