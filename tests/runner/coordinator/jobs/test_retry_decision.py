"""What follows the end of an attempt: one table, and the edges beside it."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from gpu.planning.oom_escalation import OomCircumstances
from runner.bounds import SECONDS_MAX
from runner.coordinator.jobs.attempt_end import AttemptEnd
from runner.coordinator.jobs.retry_decision import (
    DEATHS_MAX,
    EXTRA_STARTS,
    LONE_WORKER_LOSSES_MAX,
    Finish,
    Requeue,
    decide,
    is_out_of_memory,
)
from runner.jobs.job import AttemptRecord, Job, JobError, JobTerms
from runner.jobs.retry import Backoff

NOW = 1_000.0
G = 1 << 30
FIXED = Backoff(kind="fixed", base_s=7.0, jitter=0.0)


def job(**changes: Any) -> Job:
    retries = changes.pop("retries", 0)
    made = Job(1, "j", "h", "default", 50, 0.0, JobTerms(retries=retries), 2, state="running", attempt=1)
    return msgspec.structs.replace(made, **changes)


def ended(code: str | None, **changes: Any) -> AttemptEnd:
    return AttemptEnd("j", 1, code, "why", **changes)


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
        ({}, ended("worker_crashed", executor_died=True), "worker_crashed"),
        ({"retries": 1}, ended("worker_crashed", executor_died=True), "again"),
        ({"retries": 9, "deaths": 1}, ended("worker_crashed", executor_died=True), "poisoned"),
        ({"retries": 0, "deaths": 1}, ended("worker_crashed", executor_died=True), "poisoned"),
        ({"retries": 9, "deaths": 1}, ended("handler_error"), "again"),
        ({}, ended("interrupted"), "again"),
        ({"attempt": EXTRA_STARTS}, ended("interrupted"), "interrupted"),
        ({"attempt": EXTRA_STARTS - 1}, ended("interrupted"), "again"),
        ({}, ended("cancelled"), "cancelled"),
        ({}, ended("handler_error", is_blame_unknown=True, batch_size=3), "again"),
        ({}, ended("timeout", is_blame_unknown=True, batch_size=3), "again"),
        ({"deaths": 1}, ended("worker_crashed", executor_died=True, is_blame_unknown=True), "again"),
        ({"attempt": EXTRA_STARTS}, ended("handler_error", is_blame_unknown=True), "interrupted"),
        ({"cancel_reason": "by hand"}, ended(None), "cancelled"),
        (
            {"cancel_reason": "by hand", "retries": 3},
            ended("worker_crashed", executor_died=True),
            "cancelled",
        ),
        ({"retries": 50, "attempt": 60}, ended("handler_error"), "handler_error"),
    ],
)
def test_each_end_has_its_consequence(state: dict[str, Any], end: AttemptEnd, expected: str) -> None:
    verdict = decide(job(**state), end, FIXED, NOW, 0.5)
    if isinstance(verdict, Requeue):
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
        ({}, ended("device_out_of_memory"), "device_out_of_memory"),
        ({"retries": 1}, ended("device_out_of_memory"), "counted"),
        ({}, ended("device_lost"), "for nothing"),
        ({"attempt": EXTRA_STARTS}, ended("device_lost"), "interrupted"),
        ({}, ended("handler_error", detail=LOST), "for nothing"),
        ({}, ended("handler_error", detail=LOST, retryable=False), "handler_error"),
        ({}, ended("handler_error", detail=["not", "ours"]), "handler_error"),
        ({"attempts": attempted("handler_error")}, ended("handler_error", detail=LOST), "for nothing"),
        (
            {"attempts": attempted("handler_error", LOST)},
            ended("handler_error", detail=LOST),
            "handler_error",
        ),
        (
            {"attempts": attempted("handler_error", LOST), "retries": 1},
            ended("handler_error", detail=LOST),
            "counted",
        ),
    ],
)
def test_what_the_device_did_is_forgiven_once(state: dict[str, Any], end: AttemptEnd, expected: str) -> None:
    verdict = decide(job(**state), end, FIXED, NOW, 0.5)
    if isinstance(verdict, Requeue):
        assert expected == ("counted" if verdict.uses_retry else "for nothing")
    else:
        assert verdict.error is not None and verdict.error.code == expected


def test_a_failure_waits_for_its_backoff_and_uses_up_a_retry() -> None:
    verdict = decide(job(retries=1), ended("handler_error"), FIXED, NOW, 0.5)
    assert isinstance(verdict, Requeue)
    assert (verdict.ready_at, verdict.reason, verdict.uses_retry) == (NOW + 7.0, "retry_backoff", True)


def test_an_interrupted_attempt_starts_again_at_once_and_uses_up_no_retry() -> None:
    verdict = decide(job(), ended("interrupted"), FIXED, NOW, 0.5)
    assert isinstance(verdict, Requeue)
    assert (verdict.ready_at, verdict.reason, verdict.uses_retry) == (NOW, "ready", False)


def squeeze(grant: int, *, alone: bool = True) -> OomCircumstances:
    return OomCircumstances(("gpu0",), grant, alone, 24 * G, G, [])


def test_who_ran_out_of_device_memory_is_given_more_and_uses_up_no_retry() -> None:
    end = ended("device_out_of_memory")
    verdict = decide(job(), end, FIXED, NOW, 0.5, oom=squeeze(4 * G, alone=False))
    assert isinstance(verdict, Requeue)
    assert (verdict.ready_at, verdict.reason, verdict.uses_retry, verdict.rung) == (NOW, "ready", False, 1)
    verdict = decide(job(rung=1), end, FIXED, NOW, 0.5, oom=squeeze(4 * G))
    assert isinstance(verdict, Requeue) and verdict.rung == 2


def test_who_has_had_all_there_is_fails_with_a_report_whatever_its_retries() -> None:
    tried = job(
        retries=9,
        rung=3,
        ran_out=(4 * G, 6 * G),
        attempts=[
            AttemptRecord(1, "w", ["gpu0"], 0.0, vram_peak_bytes=5 * G),
            AttemptRecord(2, "w", [], 1.0),
        ],
    )
    end = ended("memory_exceeded", detail={"limit": "grant", "used_bytes": 25}, peak_bytes=3 * G)
    verdict = decide(tried, end, FIXED, NOW, 0.5, oom=squeeze(24 * G))
    assert isinstance(verdict, Finish) and verdict.error is not None
    assert (verdict.error.code, verdict.error.retryable) == ("device_out_of_memory", False)
    assert verdict.error.message == (
        "ran out of device memory 3 times, granted 4 GiB, 6 GiB, 24 GiB; last: why"
    )
    detail = verdict.error.detail
    assert detail["granted_bytes"] == [4 * G, 6 * G, 24 * G]
    assert (detail["peak_bytes"], detail["foreign_bytes"], detail["used_bytes"]) == (5 * G, G, 25)


def test_also_the_ladder_is_within_the_bound_of_starts() -> None:
    tried = job(attempt=EXTRA_STARTS)
    verdict = decide(tried, ended("device_out_of_memory"), FIXED, NOW, 0.5, oom=squeeze(4 * G))
    assert isinstance(verdict, Finish) and verdict.error is not None
    assert verdict.error.code == "device_out_of_memory" and verdict.error.detail["peak_bytes"] is None


@pytest.mark.parametrize(
    ("end", "grant", "expected"),
    [
        (ended("device_out_of_memory"), G, True),
        (ended("device_out_of_memory"), 0, False),
        (ended("device_out_of_memory", retryable=False), G, False),
        (ended("memory_exceeded", detail={"limit": "grant"}), G, True),
        (ended("memory_exceeded", detail={"limit": "ram"}), G, False),
        # The kernel did it.
        (ended("memory_exceeded", executor_died=True, detail={"signal": "SIGKILL"}), G, False),
        (ended("memory_exceeded"), G, False),
        (ended("handler_error", detail={"limit": "grant"}), G, False),
    ],
)
def test_what_counts_as_running_out_of_device_memory(end: AttemptEnd, grant: int, expected: bool) -> None:
    assert is_out_of_memory(end, grant_bytes=grant) is expected


def test_a_handler_may_name_its_next_start() -> None:
    end = ended("handler_error", retry_at=NOW + 60)
    verdict = decide(job(retries=1), end, FIXED, NOW, 0.5)
    assert isinstance(verdict, Requeue)
    assert verdict.ready_at == NOW + 60


def test_a_next_start_in_the_past_is_now() -> None:
    verdict = decide(job(retries=1), ended("handler_error", retry_at=NOW - 60), FIXED, NOW, 0.5)
    assert isinstance(verdict, Requeue)
    assert verdict.ready_at == NOW


@pytest.mark.parametrize("retry_at", [None, 1e16, math.inf])
@pytest.mark.parametrize(
    "backoff", [Backoff("fixed", 1e18, 1e18), Backoff(base_s=1e300, max_s=1e308, jitter=1)]
)
def test_a_next_start_is_at_most_ten_years_ahead(retry_at: float | None, backoff: Backoff) -> None:
    end = ended("handler_error", retry_at=retry_at)
    verdict = decide(job(retries=1), end, backoff, NOW, 0.9)
    assert isinstance(verdict, Requeue)
    assert verdict.ready_at == NOW + SECONDS_MAX


def test_a_next_start_that_is_no_number_is_now() -> None:
    verdict = decide(job(retries=1), ended("handler_error", retry_at=math.nan), FIXED, NOW, 0.5)
    assert isinstance(verdict, Requeue)
    assert verdict.ready_at == NOW


def test_a_poisoned_job_tells_of_its_last_death() -> None:
    verdict = decide(job(retries=9, deaths=1), ended("worker_crashed", executor_died=True), FIXED, NOW, 0.5)
    assert isinstance(verdict, Finish)
    assert verdict.error is not None
    assert verdict.error.message.startswith(f"{DEATHS_MAX} attempts killed their executor")


@pytest.mark.parametrize(
    ("code", "apart"),
    [
        ("handler_error", True),
        ("worker_crashed", True),
        ("timeout", True),
        ("device_out_of_memory", False),
        ("memory_exceeded", False),
        ("interrupted", False),
    ],
)
def test_who_ran_together_is_not_blamed_and_goes_alone_but_for_want_of_memory(code: str, apart: bool) -> None:
    end = ended(code, is_blame_unknown=True, batch_size=4, detail={"traceback": "here"})
    verdict = decide(job(retries=1), end, FIXED, NOW, 0.5)
    assert isinstance(verdict, Requeue)
    assert (verdict.uses_retry, verdict.ready_at, verdict.error.code) == (False, NOW, "interrupted")
    assert f"none of them is blamed: {code}: why" in verdict.error.message
    assert verdict.error.must_run_alone is apart
    assert verdict.error.detail["together"] == 4
    assert verdict.error.detail["detail"] == {"traceback": "here"}


def after_losses(*together: int, **changes: Any) -> Job:
    """A job whose worker ended under it as often as there are numbers: of the attempts that it had then."""
    errors = [JobError("interrupted", "why", True, {"worker_lost_with": number}) for number in together]
    records = [AttemptRecord(n, "w", ["cpu"], 1.0, error=error) for n, error in enumerate(errors, 1)]
    return job(
        attempt=len(together) + 1, attempts=[*records, AttemptRecord(99, "w", ["cpu"], 1.0)], **changes
    )


def lost(together: int) -> AttemptEnd:
    return ended("interrupted", detail={"worker_lost_with": together})


def test_a_worker_that_ends_beside_others_costs_none_of_them_a_start() -> None:
    many = [4] * 40
    for end in (lost(4), lost(1), ended("interrupted")):
        decision = decide(after_losses(*many), end, FIXED, NOW, 0.0)
        assert isinstance(decision, Requeue) and not decision.uses_retry
    # What it was started for otherwise still counts.
    again = after_losses(*many, *[0] * EXTRA_STARTS)
    assert isinstance(decide(again, ended("interrupted"), FIXED, NOW, 0.0), Finish)


def test_a_job_that_ends_its_worker_while_it_runs_alone_is_poisoned() -> None:
    for losses in range(LONE_WORKER_LOSSES_MAX - 1):
        assert isinstance(decide(after_losses(4, 4, *[1] * losses), lost(1), FIXED, NOW, 0.0), Requeue)
    poisoned = decide(after_losses(4, 4, *[1] * (LONE_WORKER_LOSSES_MAX - 1)), lost(1), FIXED, NOW, 0.0)
    assert isinstance(poisoned, Finish) and poisoned.error is not None and poisoned.error.code == "poisoned"
