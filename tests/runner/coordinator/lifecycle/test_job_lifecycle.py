"""A job's life, step by step."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest
from msgspec.structs import replace

from runner.coordinator.jobs.job_json import job_document
from runner.coordinator.jobs.queued_names import NameLimits
from runner.errors import HandlerBroken, QueueFull, TooManyNames, UnknownHandler, Unsatisfiable
from runner.handlers.spec import HandlerOptions, HandlerSpec, Source
from runner.jobs.job import Job, JobError
from runner.protocol.worker import AttemptEvents
from tests.runner.coordinator.lifecycle_harness import LifecycleHarness, make_submission, run, spec


def test_a_job_goes_its_straight_way() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = harness.lifecycle.submit(make_submission())
        assert (live.phase, live.job.state) == ("waiting", "queued")
        assert harness.queue_manager.reasons.for_live_job(live) == "ready"
        harness.start(live, loading=True)
        assert (live.job.state, harness.queue_manager.reasons.for_live_job(live), live.job.attempt) == (
            "running",
            "loading",
            1,
        )
        harness.lifecycle.mark_running(live, harness.clock.now())
        assert harness.queue_manager.reasons.for_live_job(live) == "running"
        harness.end(live, output=b"42")
        await harness.journal.flush()
        stored = await harness.read_stored("job-1")
        assert (stored.state, stored.output_bytes, stored.finished_at) == ("succeeded", 2, 1_000.0)
        assert "job-1" not in harness.lifecycle.registry.by_id

    harness = run(body)
    assert harness.published == [("job-1", ["status", "status", "status", "done"])]


def test_counts_follow_every_change() -> None:
    async def body(harness: LifecycleHarness) -> None:
        counts = harness.lifecycle.registry.counts
        live = harness.lifecycle.submit(make_submission())
        assert (counts["default", "queued"], harness.lifecycle.registry.queued_count) == (1, 1)
        harness.start(live)
        assert (counts["default", "queued"], counts["default", "running"]) == (0, 1)
        harness.end(live)
        assert (counts["default", "running"], counts["default", "succeeded"]) == (0, 1)
        assert harness.lifecycle.registry.queued_count == 0

    run(body)


def test_a_failure_with_retries_left_goes_back_and_waits() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = harness.lifecycle.submit(make_submission(retries=1))
        harness.start(live)
        harness.end(live, "handler_error")
        assert (live.phase, harness.queue_manager.reasons.for_live_job(live), live.job.failures) == (
            "delayed",
            "retry_backoff",
            1,
        )
        harness.start(live)
        harness.end(live, "handler_error")
        assert (live.job.state, live.job.reason, live.job.attempt) == ("failed", "handler_error", 2)
        assert [record.attempt for record in live.job.attempts] == [1, 2]

    run(body)


def test_a_job_shows_its_last_error_from_a_failed_attempt_to_the_next_start() -> None:
    def shown(job: Job) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(job_document(job, None, b"{}", None))
        return document

    async def body(harness: LifecycleHarness) -> None:
        live = harness.lifecycle.submit(make_submission(retries=1))
        assert shown(live.job)["last_error"] is None
        harness.start(live)
        harness.end(live, "timeout", detail={"limit_s": 2})
        error = {"code": "timeout", "message": "why", "retryable": True, "detail": {"limit_s": 2}}
        assert (shown(live.job)["last_error"], shown(live.job)["error"]) == (error, None)
        await harness.journal.flush()
        # A server that starts again has only what is stored.
        stored = await harness.read_stored("job-1")
        assert shown(stored)["last_error"] == error
        events = await harness.job_reader.load_events(live.job.number, 2, 1 << 20)
        told = json.loads(events[0].data)
        assert (told["state"], told["reason"], told["attempt"]) == ("queued", "retry_backoff", 1)
        assert (told["error"], told["retries_left"]) == (error, 0)
        assert told["ready_at"] == shown(live.job)["ready_at"]
        harness.start(live)
        assert shown(live.job)["last_error"] is None
        harness.end(live)
        assert (shown(live.job)["last_error"], shown(live.job)["error"]) == (None, None)

    run(body)


def test_a_returned_attempt_leaves_the_error_of_the_attempt_before() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = harness.lifecycle.submit(make_submission(retries=1))
        harness.start(live)
        harness.lifecycle.return_unstarted(live)
        assert live.job.last_failure is None, "the only attempt did not fail"
        harness.start(live)
        harness.end(live, "timeout")
        harness.start(live)
        harness.lifecycle.return_unstarted(live)
        failure = live.job.last_failure
        assert failure is not None and failure.error is not None
        assert (failure.attempt, failure.error.code) == (1, "timeout")

    run(body)


def test_a_success_that_runs_again_has_no_last_error() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = harness.lifecycle.submit(make_submission())
        harness.start(live)
        harness.end(live)
        await harness.journal.flush()
        again = harness.lifecycle.resubmit(live.job, b"{}")
        assert again.job.state == "queued" and again.job.last_failure is None

    run(body)


def test_the_log_says_when_a_job_is_retried_and_how_many_retries_are_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = harness.lifecycle.submit(make_submission(retries=2))
        for code in ("timeout", "interrupted", "timeout", "timeout"):
            harness.start(live)
            harness.end(live, code)

    with caplog.at_level(logging.INFO, "runner.coordinator.lifecycle"):
        run(body)
    *retried, last = [record.getMessage() for record in caplog.records]
    delays = [float(re.sub(r".*retrying in ([0-9.]+) s .*", r"\1", text)) for text in retried[::2]]
    assert min(delays) > 0
    assert retried == [
        f"h: timeout: why; retrying in {delays[0]:.1f} s (1 retry left)",
        "h: interrupted: why; retrying (not counted as a retry)",
        f"h: timeout: why; retrying in {delays[1]:.1f} s (0 retries left)",
    ]
    assert last == "h: timeout: why; job failed"


def test_what_did_not_start_goes_to_the_front_of_its_line() -> None:
    async def body(harness: LifecycleHarness) -> None:
        first, second = (
            harness.lifecycle.submit(make_submission(1)),
            harness.lifecycle.submit(make_submission(2)),
        )
        assert first.job_class is not None
        harness.stage(first)
        harness.lifecycle.return_unstarted(first)
        assert (first.phase, first.attempt_in_flight, first.executor, first.job.attempt) == (
            "waiting",
            0,
            None,
            0,
        )
        assert harness.scheduler_state.backlog.by_class[first.job_class].peek(2) == [
            first.job.number,
            second.job.number,
        ]
        assert second.phase == "waiting"

    run(body)


def test_a_start_that_was_counted_ahead_and_not_made_uses_up_no_number() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = harness.lifecycle.submit(make_submission(retries=1))
        harness.start(live)
        first_start = live.job.started_at
        harness.end(live, "handler_error")
        harness.clock.at += 60.0
        for _ in range(3):
            harness.start(live)
            assert (live.job.attempt, live.job.state, live.has_unused_attempt) == (2, "running", False)
            assert live.job.attempts[-1].error is None
            harness.lifecycle.return_unstarted(live)
            assert (live.attempt_in_flight, live.job.state, live.has_unused_attempt) == (0, "queued", True)
            assert live.job.started_at == first_start
            assert [record.attempt for record in live.job.attempts] == [1, 2]
            error = live.job.attempts[-1].error
            assert error is not None and error.code == "interrupted"
        harness.start(live)
        harness.end(live)
        await harness.journal.flush()
        stored = await harness.read_stored("job-1")
        assert (stored.state, stored.attempt) == ("succeeded", 2)
        assert [record.error for record in stored.attempts][1] is None

    run(body)


def test_a_cancel_before_a_start_that_was_counted_ahead_leaves_no_open_attempt() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = harness.lifecycle.submit(make_submission(retries=1))
        harness.start(live)
        harness.end(live, "handler_error")
        harness.start(live)
        harness.lifecycle.cancel_unstarted(live, "by hand")
        assert live.job.state == "cancelled"
        assert all(record.ended_at is not None for record in live.job.attempts)

    run(body)


def test_a_cancelled_waiting_job_ends_at_once() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = harness.lifecycle.submit(make_submission())
        harness.lifecycle.cancel_unstarted(live, "by hand")
        assert live.job_class is not None
        assert harness.scheduler_state.backlog.count(live.job_class) == 0
        assert (live.job.state, live.job.error) == ("cancelled", JobError("cancelled", "by hand"))

    run(body)


def test_a_job_of_an_unknown_handler_waits_for_it_after_a_restart() -> None:
    async def body(harness: LifecycleHarness) -> None:
        harness.queue_manager.set_handlers({})
        assert "h" not in harness.queue_manager.handlers.specs
        harness.queue_manager.set_handlers({"h": spec()})
        live = harness.lifecycle.submit(make_submission())
        harness.queue_manager.set_handlers({})
        harness.start(live)
        harness.end(live, "interrupted")
        assert (live.phase, harness.queue_manager.reasons.for_live_job(live)) == (
            "behind",
            "waiting_for_handler",
        )
        harness.queue_manager.set_handlers({"h": spec()})
        assert live.phase == "waiting"

    run(body)


def test_waiting_jobs_go_over_to_the_new_version_in_their_order() -> None:
    async def body(harness: LifecycleHarness) -> None:
        lives = [
            harness.lifecycle.submit(make_submission(n, priority=50 + 10 * (n > 3), vram_bytes=n))
            for n in range(1, 7)
        ]
        waiting, scheduler_state = harness.queue_manager, harness.scheduler_state
        assert lives[0].job_class is not None
        scheduler_state.remove_waiting(lives[0].job_class, 1)
        scheduler_state.add_waiting(lives[0].job_class, 1)
        assert scheduler_state.backlog.by_class[lives[0].job_class].peek(9) == [2, 3, 1]
        newer = replace(spec(), version="v2")
        waiting.set_handlers({"h": newer})
        assert {cls.version for cls in scheduler_state.backlog.classes()} == {"v2"}
        assert [
            scheduler_state.backlog.by_class[cls].peek(9) for cls in scheduler_state.backlog.classes()
        ] == [
            [2, 3, 1],
            [4, 5, 6],
        ]
        assert all(live.job_class in scheduler_state.backlog.by_class for live in lives)
        waiting.set_handlers({"h": replace(newer, state="broken")})
        assert scheduler_state.backlog.classes() == []
        assert {waiting.reasons.for_live_job(live) for live in lives} == {"waiting_for_handler"}
        harness.lifecycle.cancel_unstarted(lives[4], "by hand")
        waiting.set_handlers({"h": spec()})
        assert sorted(line.peek(9) for line in scheduler_state.backlog.by_class.values()) == [
            [1, 2, 3],
            [4, 6],
        ]

    run(body)


def test_two_lines_that_become_one_are_merged_by_age() -> None:
    async def body(harness: LifecycleHarness) -> None:
        gpu = HandlerOptions(gpus=1)
        harness.queue_manager.set_handlers({"h": replace(spec(), options=gpu)})
        for n in range(1, 7):
            harness.lifecycle.submit(make_submission(n, vram_bytes=1 + n % 2))
        assert len(harness.scheduler_state.backlog.classes()) == 2
        harness.queue_manager.set_handlers({"h": spec()})
        (cls,) = harness.scheduler_state.backlog.classes()
        assert harness.scheduler_state.backlog.by_class[cls].peek(9) == [1, 2, 3, 4, 5, 6]

    run(body)


def test_refusals_name_what_is_wrong() -> None:
    async def body(harness: LifecycleHarness) -> None:
        broken = HandlerSpec("b", "", "broken", Source("file", "/b.py", ""), error="Traceback")
        harness.queue_manager.set_handlers({"h": spec(gpus=0, ram_bytes=16 << 30), "b": broken})
        with pytest.raises(Unsatisfiable, match=r"h needs 16 GiB, but no device has more than 8 GiB \(cpu\)"):
            harness.lifecycle.submit(make_submission())
        with pytest.raises(UnknownHandler, match="there is no handler 'nope'"):
            harness.queue_manager.handlers.require("nope")
        with pytest.raises(HandlerBroken, match=r"/b\.py"):
            harness.queue_manager.handlers.require("b")
        assert len(harness.lifecycle.registry) == 0

    run(body)


def test_the_queue_has_a_bound() -> None:
    async def body(harness: LifecycleHarness) -> None:
        for number in range(10):
            harness.lifecycle.submit(make_submission(number))
        with pytest.raises(QueueFull, match="10 jobs are queued") as refusal:
            harness.lifecycle.submit(make_submission(10))
        assert refusal.value.detail["retry_after_s"] > 0

    run(body)


def test_the_names_in_use_have_a_bound_and_follow_the_jobs() -> None:
    async def body(harness: LifecycleHarness) -> None:
        harness.lifecycle.registry.names.limits = NameLimits(queues=1, tenants=1, models=1)
        live = harness.lifecycle.submit(make_submission(1, tenant="a", model="m"))
        for more in ({"queue": "other"}, {"tenant": "b"}, {"model": "n"}):
            with pytest.raises(TooManyNames):
                harness.lifecycle.submit(make_submission(2, **more))
        assert len(harness.lifecycle.registry) == 1
        harness.start(live)
        other = harness.lifecycle.submit(make_submission(2, tenant="b", model="n"))
        harness.lifecycle.cancel_unstarted(other, "no")
        harness.lifecycle.return_unstarted(live)
        with pytest.raises(TooManyNames):
            harness.lifecycle.submit(make_submission(3, tenant="b"))
        harness.start(live)
        harness.end(live)
        harness.lifecycle.submit(make_submission(3, tenant="c", model="o"))

    run(body)


def test_retention_takes_the_oldest_events_in_steps() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = harness.lifecycle.submit(make_submission())
        harness.start(live)
        lines: list[tuple[str, float, bytes]] = [("log", 0.0, b'{"text":"x"}')] * 150
        harness.lifecycle.record_events(live, AttemptEvents("job-1", 1, 1, lines))
        assert live.job.last_seq - live.job.first_seq <= 110
        assert live.job.first_seq > 1

    run(body)


def test_a_revived_job_keeps_its_id_and_its_attempts() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = harness.lifecycle.submit(make_submission())
        harness.start(live)
        harness.end(live, output=b"1")
        await harness.journal.flush()
        again = harness.lifecycle.resubmit(await harness.read_stored("job-1"), b"{}")
        assert (again.job.state, again.job.output_bytes, again.job.attempt) == ("queued", None, 1)
        harness.start(again)
        assert again.job.attempt == 2
        assert harness.lifecycle.registry.counts["default", "succeeded"] == 0

    run(body)


def test_a_job_that_waits_too_long_ends_as_queue_timeout() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = harness.lifecycle.submit(make_submission(queue_timeout_s=0.0))
        while live.phase != "ended":
            await harness.journal.flush()
        assert live.job.error is not None
        assert live.job.error.code == "queue_timeout"

    run(body)
