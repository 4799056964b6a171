"""What follows the end of an attempt: one table, and the edges beside it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from runner.coordinator.outcome import DEATHS_MAX, EXTRA_STARTS, Again, Finish, follow
from runner.job import AttemptRecord, Job, JobError, Terms
from runner.retry import Backoff
from runner.wire import Ended

NOW = 1_000.0
FIXED = Backoff(kind="fixed", base_s=7.0, jitter=0.0)


def job(**changes: Any) -> Job:
    retries = changes.pop("retries", 0)
    made = Job(1, "j", "h", "default", 50, 0.0, Terms(retries=retries), 2, state="running", attempt=1)
    return msgspec.structs.replace(made, **changes)


def ended(code: str | None, **changes: Any) -> Ended:
    return Ended("j", 1, 1, code, "why", **changes)


@pytest.mark.parametrize(
    ("state", "end", "expected"),
    [
        ({}, ended(None), "succeeded"),
        ({}, ended("handler_error"), "handler_error"),
        ({"retries": 1}, ended("handler_error"), "again"),
        ({"retries": 1, "failures": 1}, ended("handler_error"), "handler_error"),
        ({"retries": 5}, ended("permanent_error", retryable=False), "permanent_error"),
        ({"retries": 5}, ended("invalid_input", retryable=False), "invalid_input"),
        ({"retries": 1}, ended("timeout"), "again"),
        ({}, ended("timeout"), "timeout"),
        ({}, ended("worker_crashed", died=True), "worker_crashed"),
        ({"retries": 1}, ended("worker_crashed", died=True), "again"),
        ({"retries": 9, "deaths": 1}, ended("worker_crashed", died=True), "poisoned"),
        ({"retries": 0, "deaths": 1}, ended("worker_crashed", died=True), "poisoned"),
        ({"retries": 9, "deaths": 1}, ended("handler_error"), "again"),
        ({}, ended("interrupted"), "again"),
        ({"attempt": EXTRA_STARTS}, ended("interrupted"), "interrupted"),
        ({"attempt": EXTRA_STARTS - 1}, ended("interrupted"), "again"),
        ({}, ended("cancelled"), "cancelled"),
        ({"cancel_reason": "by hand"}, ended(None), "cancelled"),
        ({"cancel_reason": "by hand", "retries": 3}, ended("worker_crashed", died=True), "cancelled"),
        ({"retries": 50, "attempt": 60}, ended("handler_error"), "handler_error"),
    ],
)
def test_each_end_has_its_consequence(state: dict[str, Any], end: Ended, expected: str) -> None:
    verdict = follow(job(**state), end, FIXED, NOW, 0.5)
    if isinstance(verdict, Again):
        assert expected == "again"
    else:
        assert (verdict.error.code if verdict.error else verdict.state) == expected


LOST = {"context_lost": True}


def attempted(code: str, detail: Any = None) -> list[AttemptRecord]:
    """The record of an earlier attempt that ended so, and of one that is under way."""
    return [
        AttemptRecord(1, "w", ["gpu0"], 0.0, error=JobError(code, "why", True, detail)),
        AttemptRecord(2, "w", ["gpu0"], 0.0),
    ]


@pytest.mark.parametrize(
    ("state", "end", "expected"),
    [
        ({}, ended("device_out_of_memory"), "for nothing"),
        ({}, ended("handler_error", detail=LOST), "for nothing"),
        ({}, ended("handler_error", detail=["not", "ours"]), "handler_error"),
        ({}, ended("device_out_of_memory", retryable=False), "device_out_of_memory"),
        ({"attempts": attempted("handler_error")}, ended("device_out_of_memory"), "for nothing"),
        (
            {"attempts": attempted("device_out_of_memory")},
            ended("handler_error", detail=LOST),
            "handler_error",
        ),
        (
            {"attempts": attempted("handler_error", LOST)},
            ended("device_out_of_memory"),
            "device_out_of_memory",
        ),
        (
            {"attempts": attempted("handler_error", LOST), "retries": 1},
            ended("device_out_of_memory"),
            "counted",
        ),
    ],
)
def test_what_the_device_did_is_forgiven_once(state: dict[str, Any], end: Ended, expected: str) -> None:
    verdict = follow(job(**state), end, FIXED, NOW, 0.5)
    if isinstance(verdict, Again):
        assert expected == ("counted" if verdict.counts else "for nothing")
    else:
        assert verdict.error is not None and verdict.error.code == expected


def test_a_failure_waits_for_its_backoff_and_uses_up_a_retry() -> None:
    verdict = follow(job(retries=1), ended("handler_error"), FIXED, NOW, 0.5)
    assert isinstance(verdict, Again)
    assert (verdict.ready_at, verdict.reason, verdict.counts) == (NOW + 7.0, "retry_backoff", True)


def test_an_interrupted_attempt_starts_again_at_once_and_uses_up_no_retry() -> None:
    verdict = follow(job(), ended("interrupted"), FIXED, NOW, 0.5)
    assert isinstance(verdict, Again)
    assert (verdict.ready_at, verdict.reason, verdict.counts) == (NOW, "ready", False)


def test_our_own_misjudgement_uses_up_no_retry() -> None:
    verdict = follow(job(), ended("memory_exceeded"), FIXED, NOW, 0.5, blameless=True)
    assert isinstance(verdict, Again)
    assert not verdict.counts


def test_a_handler_may_name_its_next_start() -> None:
    end = ended("handler_error", retry_at=NOW + 60)
    verdict = follow(job(retries=1), end, FIXED, NOW, 0.5)
    assert isinstance(verdict, Again)
    assert verdict.ready_at == NOW + 60


def test_a_next_start_in_the_past_is_now() -> None:
    verdict = follow(job(retries=1), ended("handler_error", retry_at=NOW - 60), FIXED, NOW, 0.5)
    assert isinstance(verdict, Again)
    assert verdict.ready_at == NOW


def test_a_poisoned_job_tells_of_its_last_death() -> None:
    verdict = follow(job(retries=9, deaths=1), ended("worker_crashed", died=True), FIXED, NOW, 0.5)
    assert isinstance(verdict, Finish)
    assert verdict.error is not None
    assert verdict.error.message.startswith(f"{DEATHS_MAX} attempts killed their executor")
