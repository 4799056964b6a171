"""Pure: every broken promise about a job has its word, and a job that is well has none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.soak.execution_stamps import ExecutionStamp
from benchmarks.soak.job_checks import InjectedFaults, JobCase, StoredEvent, find_violations
from benchmarks.soak.job_mix import JobDraft
from benchmarks.soak.ledger import SubmittedJob

JOB: dict[str, Any] = {
    "state": "succeeded",
    "reason": None,
    "error": None,
    "attempt": 2,
    "output": {"attempt": 2},
}
ATTEMPTS: list[dict[str, Any]] = [
    {"attempt": 1, "ended_at": "then", "error": {"code": "handler_error"}},
    {"attempt": 2, "ended_at": "then", "error": None},
]
EVENTS = [
    StoredEvent(1, "status", {}, 11),
    StoredEvent(2, "log", {}, 12),
    StoredEvent(3, "done", {"state": "succeeded"}, 13),
]
STAMPS = [ExecutionStamp(1, 70, 1.0, 0.0, 2.0, "ValueError"), ExecutionStamp(2, 70, 3.0, 0.0, 4.0, "ok")]


def _entry(*, kind: str = "flaky", ends: str = "succeeded", **known: Any) -> SubmittedJob:
    order = JobDraft(kind, "act", {}, frozenset(ends.split()))
    entry = SubmittedJob("tag", order, 0.0, "id", "accepted", seen={1: 11, 3: 13})
    return replace(entry, **known)


def _case(entry: SubmittedJob | None = None, **known: Any) -> JobCase:
    return replace(JobCase(entry or _entry(), JOB, ATTEMPTS, EVENTS, 0, STAMPS), **known)


def _job(state: str, code: str | None) -> dict[str, Any]:
    error = {"code": code, "message": "m"} if code else None
    return {**JOB, "state": state, "error": error, "output": None}


def _done(state: str) -> list[StoredEvent]:
    return [*EVENTS[:2], StoredEvent(3, "done", {"state": state}, 13)]


def _crashed() -> JobCase:
    attempts = [{"attempt": 1, "ended_at": "then", "error": {"code": "worker_crashed"}}]
    job = {**_job("failed", "worker_crashed"), "attempt": 1}
    return _case(job=job, attempts=attempts, events=_done("failed"), stamps=[ExecutionStamp(1, 70, 1.0, 0.0)])


WELL = {
    "as it should be": _case(),
    "retried on request": _case(
        _entry(retries=1), events=[*EVENTS, StoredEvent(4, "done", {"state": "succeeded"}, 14)]
    ),
    "a retry that was not answered": _case(_entry(retries_unknown=1)),
    "deleted by a user": JobCase(_entry(deleted="maybe"), None),
    "never accepted": JobCase(_entry(answer="refused"), None),
    "cancelled as asked": _case(
        _entry(cancelled=True), job=_job("cancelled", "cancelled"), events=_done("cancelled")
    ),
}
BROKEN = {
    "I1: it was accepted and is not there": JobCase(_entry(), None),
    "I2: it was deleted and is there": _case(_entry(deleted="yes")),
    "I7: it has not ended: queued": _case(job={**JOB, "state": "queued"}),
    "I2: 2 ends were told, 1 to 1 are right": _case(events=[*EVENTS, replace(EVENTS[2], seq=4)]),
    "I2: 1 ends were told, 2 to 2 are right": _case(_entry(retries=1)),
    "I5: its last event is log, not done": _case(
        events=[EVENTS[0], replace(EVENTS[2], seq=2), StoredEvent(3, "log", {}, 13)]
    ),
    "I2: it is succeeded, but done said failed": _case(events=_done("failed")),
    "I2: it succeeded with an error cancelled": _case(
        job={**JOB, "error": {"code": "cancelled", "message": ""}}
    ),
    "I7: its code oops is none of the public ones": _case(
        _entry(ends="oops"), job=_job("failed", "oops"), events=_done("failed")
    ),
    "I2: its cancel was answered with 200, and it is succeeded": _case(_entry(must_be_cancelled=True)),
    "I2: a flaky ended as timeout": _case(job=_job("failed", "timeout"), events=_done("failed")),
    "I2: a flaky ended as cancelled": _case(job=_job("cancelled", "cancelled"), events=_done("cancelled")),
    "I2: a flaky ended as interrupted": _case(job=_job("failed", "interrupted"), events=_done("failed")),
    "I2: a flaky ended as worker_crashed": _crashed(),
    "I3: attempt 2 ran twice": _case(stamps=[*STAMPS, ExecutionStamp(2, 71, 5.0, 0.0, 6.0, "ok")]),
    "I3: attempt 1 ran twice": _case(stamps=[ExecutionStamp(1, 69, 0.1, 0.0, 0.2, "ok"), *STAMPS]),
    "I3: attempt 3 ran, but only 2 are known": _case(
        stamps=[*STAMPS, ExecutionStamp(3, 70, 5.0, 0.0, 6.0, "ok")]
    ),
    "I3: 2 starts, but these attempts: [2, 2]": _case(attempts=[ATTEMPTS[1], ATTEMPTS[1]]),
    "I3: it succeeded, but the execution of attempt 2 did not": _case(stamps=STAMPS[:1]),
    "I3: its output is not that of attempt 2": _case(job={**JOB, "output": [{"attempt": 1}]}),
    "I3: attempt 1 succeeded and was followed": _case(
        attempts=[{"attempt": 1, "ended_at": "then", "error": None}, ATTEMPTS[1]]
    ),
    "I3: attempt 1 never ended and was followed": _case(
        attempts=[{"attempt": 1, "ended_at": None, "error": None}, ATTEMPTS[1]]
    ),
    "I4: attempt 2 began 1.5 s before": _case(stamps=[STAMPS[0], replace(STAMPS[1], waited_s=1.5)]),
    "I4: attempts 1 and 2 ran at the same time": _case(stamps=[replace(STAMPS[0], ended_at=3.5), STAMPS[1]]),
    "I5: its events are not numbered from 1": _case(events=[EVENTS[0], EVENTS[2]]),
    "I5: its events up to 1 are gone": _case(gap_to=1, events=EVENTS[1:]),
    "I5: event 1 was seen by a reader and is not the same now": _case(_entry(seen={1: 99})),
    "I5: 1 of 2 chunks": _case(
        replace(_entry(), draft=JobDraft("chunks", "chunks", {"n": 2}, frozenset({"succeeded"}))),
        events=[StoredEvent(1, "output", {"chunk": {"n": 0, "attempt": 2}}, 11), EVENTS[1], EVENTS[2]],
    ),
}


@pytest.mark.parametrize("name", WELL)
def test_what_is_well_has_no_fault(name: str) -> None:
    assert find_violations(WELL[name], InjectedFaults()) == []


@pytest.mark.parametrize("word", BROKEN)
def test_what_is_broken_is_told(word: str) -> None:
    assert [text for text in find_violations(BROKEN[word], InjectedFaults()) if text.startswith(word)]


def test_what_the_run_did_itself_excuses_what_came_of_it() -> None:
    facts = InjectedFaults()
    facts.record_kill("executor", 70, 0.9)
    assert find_violations(_crashed(), facts) == []
    facts.fills.append(0.7)
    assert find_violations(_case(job=_job("failed", "handler_error"), events=_done("failed")), facts) == []
    facts.record_kill("coordinator", 1, 0.5)
    again = _case(stamps=[ExecutionStamp(1, 69, 0.1, 0.0), *STAMPS])
    assert find_violations(again, facts) == []
