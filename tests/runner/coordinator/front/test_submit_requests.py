"""The commit of a submitted job does not wait for the planning that the job causes."""

from __future__ import annotations

import asyncio
from typing import cast

from runner.coordinator.front.replies import JobReplies
from runner.coordinator.front.submit_requests import SubmitRequests
from runner.coordinator.processes.front_pool import FrontHandle
from runner.coordinator.runtime.submission_gate import SubmissionGate
from runner.jobs.job import Submission
from runner.protocol.front import Reply, SubmitJobs
from tests.runner.coordinator.lifecycle_harness import LifecycleHarness, run


class RecordingFront:
    def __init__(self) -> None:
        self.replies: list[Reply] = []

    def send_reply(self, reply: Reply) -> None:
        self.replies.append(reply)


def test_a_job_is_on_its_way_to_the_store_before_the_planning_cycle() -> None:
    front = RecordingFront()
    #: Per planning cycle: whether the job's row had been taken into a commit.
    taken: list[bool] = []

    async def body(harness: LifecycleHarness) -> None:
        def plan() -> None:
            (live,) = harness.lifecycle.registry.by_number.values()
            taken.append(harness.journal.is_written(live.job))

        harness.plan_trigger.connect(plan)
        requests = SubmitRequests(
            lifecycle=harness.lifecycle,
            queue_manager=harness.queue_manager,
            replies=JobReplies(harness.queue_manager, harness.journal, harness.wait_statuses),
            gate=SubmissionGate(),
        )
        request = SubmitJobs(7, [Submission("job-1", "h", b"1")])
        assert requests.submit(cast(FrontHandle, front), request) is None
        assert front.replies == []
        await harness.journal.flush()
        await asyncio.sleep(0)

    run(body)
    assert taken == [True]
    assert [(reply.request_id, reply.status) for reply in front.replies] == [(7, 202)]
