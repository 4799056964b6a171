"""A first attempt is shown once no start can forget it."""

from __future__ import annotations

import json

from runner.coordinator.front.replies import JobReplies
from runner.coordinator.lifecycle.shown_job import shown_job
from tests.runner.coordinator.lifecycle_harness import LifecycleHarness, make_submission, run


def test_a_first_attempt_whose_start_is_not_durable_is_not_shown() -> None:
    async def body(harness: LifecycleHarness) -> None:
        replies = JobReplies(harness.queue_manager, harness.journal, harness.wait_statuses)
        live = harness.lifecycle.submit(make_submission())
        await harness.journal.flush()
        harness.start(live)
        document = json.loads(replies.job_json(live))
        assert (document["state"], document["reason"], document["attempt"]) == ("queued", "ready", 0)
        assert document["started_at"] is None and shown_job(live, harness.journal).attempts == []
        await harness.journal.flush()
        document = json.loads(replies.job_json(live))
        assert (document["state"], document["reason"], document["attempt"]) == ("running", "running", 1)
        # It stays shown while what followed is not durable.
        harness.end(live, "interrupted")
        assert json.loads(replies.job_json(live))["attempt"] == 1

    run(body)


def test_a_later_attempt_is_shown_at_once() -> None:
    """It is durable before a worker gets it."""

    async def body(harness: LifecycleHarness) -> None:
        live = harness.lifecycle.submit(make_submission())
        harness.start(live)
        harness.end(live, "interrupted")
        await harness.journal.flush()
        harness.start(live)
        assert shown_job(live, harness.journal) is live.job and live.job.attempt == 2

    run(body)
