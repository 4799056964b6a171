"""Fronts are told how followed jobs wait: on a change, and seldom."""

from __future__ import annotations

import itertools

from runner.coordinator.front.subscriptions import Subscriptions
from runner.coordinator.front.waiting_notifier import WaitingNotifier
from runner.coordinator.observability.wait_statuses import WaitStatuses
from runner.coordinator.processes.front_pool import FrontHandle
from runner.protocol.front import JobEvents, JobWaiting, to_front_decoder
from tests.runner.coordinator.lifecycle_harness import LifecycleHarness, make_submission, run


class RecordingFront(FrontHandle):
    """A front without a process; keeps what it is sent."""

    def __init__(self) -> None:
        self.subscribed_jobs = set()
        self.sent: list[bytes] = []

    def accepts_events(self) -> bool:
        return True

    def send(self, message: bytes) -> None:
        self.sent.append(message)

    def take(self) -> list[tuple[str, int, int | None]]:
        """Take the job, its last event and the position of each message about a wait."""
        decoded = [to_front_decoder.decode(message) for message in self.sent]
        self.sent.clear()
        return [(each.job_id, each.seq, each.position) for each in decoded if isinstance(each, JobWaiting)]


def connect(harness: LifecycleHarness, *, jobs_per_round: int = 1_000) -> Subscriptions:
    subscriptions = Subscriptions(harness.durable_events)
    notifier = WaitingNotifier(
        subscriptions,
        harness.lifecycle.registry,
        harness.journal,
        harness.wait_statuses,
        harness.timers,
        harness.clock,
        jobs_per_round=jobs_per_round,
    )
    subscriptions.connect(notifier)
    return subscriptions


def test_a_followed_job_is_told_once_a_second_at_most_and_on_a_change_only() -> None:
    async def body(harness: LifecycleHarness) -> None:
        front, subscriptions = RecordingFront(), connect(harness)
        first, second = [harness.lifecycle.submit(make_submission(number)) for number in (1, 2)]
        await harness.journal.flush()
        subscriptions.subscribe(front, "job-2")
        await harness.pass_time(0.5)
        assert front.take() == []
        await harness.pass_time(0.5)
        assert front.take() == [("job-2", 1, 2)]
        await harness.pass_time(1.0)
        assert front.take() == [], "nothing has changed"
        harness.start(first)
        await harness.pass_time(1.0)
        assert front.take() == [("job-2", 1, 1)]
        harness.start(second)
        await harness.pass_time(1.0)
        await harness.journal.flush()
        await harness.pass_time(1.0)
        assert front.take() == [], "it runs"

    run(body)


def test_a_job_that_is_queued_again_is_told_after_its_event() -> None:
    async def body(harness: LifecycleHarness) -> None:
        front, subscriptions = RecordingFront(), connect(harness)
        live = harness.lifecycle.submit(make_submission(retries=1))
        harness.start(live)
        await harness.journal.flush()
        subscriptions.subscribe(front, "job-1")
        harness.end(live, "timeout", retry_at=harness.clock.now() + 60.0)
        await harness.journal.flush()
        await harness.pass_time(1.0)
        kinds = [type(to_front_decoder.decode(message)) for message in front.sent]
        assert kinds == [JobEvents, JobWaiting]
        assert front.take() == [("job-1", 3, None)]

    run(body)


def test_jobs_that_nobody_follows_cost_nothing() -> None:
    async def body(harness: LifecycleHarness) -> None:
        moments = itertools.count(0.0)
        harness.wait_statuses = WaitStatuses(
            queue_manager=harness.queue_manager,
            scheduler_state=harness.scheduler_state,
            clock=harness.clock,
            monotonic=lambda: next(moments),
        )
        front, subscriptions = RecordingFront(), connect(harness)
        harness.lifecycle.submit(make_submission())
        await harness.journal.flush()
        subscriptions.subscribe(front, "job-1")
        subscriptions.unsubscribe(front, "job-1")
        for _ in range(2):
            await harness.pass_time(1.0)
        assert front.take() == []
        assert next(moments) == 0.0, "no forecast was made"

    run(body)


def test_a_round_is_bounded_and_the_next_one_goes_on_with_the_others() -> None:
    async def body(harness: LifecycleHarness) -> None:
        jobs_per_round, count = 6, 9
        front, subscriptions = RecordingFront(), connect(harness, jobs_per_round=jobs_per_round)
        for number in range(1, count + 1):
            harness.lifecycle.submit(make_submission(number))
        await harness.journal.flush()
        for number in range(1, count + 1):
            subscriptions.subscribe(front, f"job-{number}")
        told: set[str] = set()
        rounds = 0
        while len(told) < count:
            await harness.pass_time(1.0)
            rounds += 1
            found = [job_id for job_id, _, _ in front.take()]
            assert 0 < len(found) <= jobs_per_round
            assert told.isdisjoint(found), "the others come first"
            told |= set(found)
        assert rounds > 1

    run(body)
