"""The end of an attempt as one value, from the worker's message and the coordinator's own facts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from runner.coordinator.jobs.attempt_end import (
    LOST_DEVICE_CODES,
    AttemptEnd,
    build_attempt_end,
    interrupted_end,
    unreported_end,
)
from runner.coordinator.jobs.job_registry import LiveJob
from runner.jobs.job import CONTEXT_LOST, FileRecord, Job, JobTerms
from runner.protocol.worker import AttemptEnded

SUCCESS = AttemptEnded(
    "job-1",
    2,
    9,
    None,
    output=b"7",
    files=[FileRecord("f", "a.txt", 1, "sha", "text/plain", 2)],
    started_at=4.0,
    run_s=1.5,
    load_s=2.5,
    peak_bytes=100,
    batch_size=3,
)


def build(code: str | None, text: str = "why", lost: str | None = None, **changes: Any) -> AttemptEnd:
    message = AttemptEnded("job-1", 2, 9, code, text, **changes)
    return build_attempt_end(message, retry_at=None, peak_bytes=None, lost_device=lost)


def test_a_message_without_other_facts_is_taken_over_as_it_is() -> None:
    assert build_attempt_end(SUCCESS, retry_at=None, peak_bytes=100) == AttemptEnd(
        "job-1",
        9,
        None,
        output=b"7",
        files=SUCCESS.files,
        run_s=1.5,
        load_s=2.5,
        peak_bytes=100,
        batch_size=3,
    )


def test_every_field_of_a_failure_is_taken_over() -> None:
    end = build("handler_error", detail={"a": 1}, retryable=False, executor_died=True, is_blame_unknown=True)
    assert end == AttemptEnd(
        "job-1",
        9,
        "handler_error",
        "why",
        {"a": 1},
        retryable=False,
        executor_died=True,
        is_blame_unknown=True,
    )


def test_the_message_stays_as_it_was_and_the_end_cannot_be_changed() -> None:
    message = AttemptEnded("job-1", 2, 9, "stalled", "why", retry_at=5.0, peak_bytes=1)
    before = msgspec.structs.astuple(message)
    end = build_attempt_end(message, retry_at=6.0, peak_bytes=2, lost_device="gpu0")
    assert msgspec.structs.astuple(message) == before
    with pytest.raises(AttributeError):
        end.code = None  # type: ignore[misc]


@pytest.mark.parametrize("peak_bytes", [None, 200])
@pytest.mark.parametrize("retry_at", [None, 6.0])
def test_measured_memory_and_our_own_time_replace_those_of_the_message(
    peak_bytes: int | None, retry_at: float | None
) -> None:
    message = AttemptEnded("job-1", 2, 9, "handler_error", retry_at=5.0, peak_bytes=100)
    end = build_attempt_end(message, retry_at=retry_at, peak_bytes=peak_bytes)
    assert (end.retry_at, end.peak_bytes) == (retry_at, peak_bytes)


@pytest.mark.parametrize("code", sorted(LOST_DEVICE_CODES))
def test_a_failure_on_a_lost_device_is_the_devices(code: str) -> None:
    end = build(code, lost="gpu0", retryable=False, executor_died=True, detail={"a": 1})
    assert (end.code, end.message) == ("device_lost", f"gpu0 was lost; it ended with {code}: why")
    assert (end.retryable, end.executor_died, end.lost_device, end.detail) == (True, False, "gpu0", {"a": 1})


@pytest.mark.parametrize("code", [None, "cancelled", "timeout", "interrupted", "device_lost"])
def test_any_other_end_on_a_lost_device_stays_what_it_was(code: str | None) -> None:
    assert build(code, lost="gpu0", executor_died=True) == build(code, executor_died=True)
    assert build(code, lost="gpu0").lost_device is None


@pytest.mark.parametrize(
    ("detail", "text", "lost", "expected"),
    [
        ({CONTEXT_LOST: True}, "an illegal memory access", None, True),
        ({CONTEXT_LOST: True}, "CUDA error: Device-side assert triggered", None, False),
        ({CONTEXT_LOST: True}, "an illegal memory access", "gpu0", False),
        ({CONTEXT_LOST: False}, "an illegal memory access", None, False),
        ({}, "an illegal memory access", None, False),
        ([CONTEXT_LOST], "an illegal memory access", None, False),
        (None, "an illegal memory access", None, False),
    ],
)
def test_a_lost_context_may_be_the_devices_fault(
    detail: Any, text: str, lost: str | None, expected: bool
) -> None:
    assert build("handler_error", text, lost, detail=detail).may_blame_device is expected


def test_an_end_that_nobody_reported_is_an_interruption() -> None:
    assert interrupted_end("job-1", 4, "cut") == AttemptEnd("job-1", 4, "interrupted", "cut")


def running(timeout_s: float | None, *, since_mono: float = 100.0) -> LiveJob:
    """A job whose user code was reported to run."""
    job = Job(1, "job-1", "h", "q", 50, 0.0, JobTerms(timeout_s=timeout_s), 2, applied_seq=4)
    live = LiveJob(job, None, "assigned")
    live.mark_running(since_mono)
    return live


@pytest.mark.parametrize(
    ("timeout_s", "now_mono", "code"),
    [(2.0, 102.6, "timeout"), (2.0, 102.4, "interrupted"), (None, 9_999.0, "interrupted")],
)
def test_an_attempt_whose_time_was_over_when_its_worker_ended_has_timed_out(
    timeout_s: float | None, now_mono: float, code: str
) -> None:
    end = unreported_end(running(timeout_s), "worker w hung", now_mono=now_mono, grace_s=0.5)
    assert (end.code, end.seq, end.retryable, end.executor_died) == (code, 4, True, False)
    assert end.message.endswith("worker w hung")


def test_an_attempt_that_still_loads_has_no_timeout_yet() -> None:
    live = LiveJob(Job(1, "job-1", "h", "q", 50, 0.0, JobTerms(timeout_s=0.1), 2), None, "assigned")
    live.mark_starting()
    assert unreported_end(live, "why", now_mono=9_999.0, grace_s=0.0).code == "interrupted"
