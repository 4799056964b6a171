"""Pure: what is asked, in which order, and what comes of it; no socket anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeVar

import pytest

import runner
from runner.bounds import SECONDS_MAX
from runner.client import operations
from runner.client.http_call import HttpCall, HttpResponse, Operation, Pause
from runner.client.models import Job
from runner.errors import JobFailed, NoServer, QueueFull, ShuttingDown
from tests.runner.client.fake_server import ID, job

T = TypeVar("T")
JSON = {"content-type": "application/json"}


class Clock:
    """Time that passes only by pauses and by what calls are said to take."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def answered(document: Any, status: int = 200) -> HttpResponse:
    return HttpResponse(status, JSON, json.dumps(document).encode())


def perform(
    operation: Operation[T], answer: Callable[[HttpCall], HttpResponse | NoServer], clock: Clock | None = None
) -> tuple[T, list[HttpCall]]:
    calls: list[HttpCall] = []
    given: HttpResponse | NoServer | None = None
    while True:
        try:
            step = operation.throw(given) if isinstance(given, NoServer) else operation.send(given)
        except StopIteration as stop:
            return stop.value, calls
        given = None
        if isinstance(step, Pause):
            assert clock is not None
            clock.now += step.seconds
        else:
            calls.append(step)
            given = answer(step)


#: 2026-01-01.
NOW = 1767225600.0


def test_options_are_sent_with_their_units_resolved() -> None:
    body = operations.submit_body(
        "paint",
        {"a": 1},
        {"timeout": "5m", "delay": 2, "vram": "6GiB", "run_at": datetime(2026, 1, 31, 9, 5, tzinfo=UTC)},
        now=NOW,
    )
    assert body == {
        "handler": "paint",
        "input": {"a": 1},
        "timeout_s": 300.0,
        "delay_s": 2.0,
        "vram": 6 << 30,
        "run_at": "2026-01-31T09:05:00.000Z",
    }


def test_an_option_that_does_not_exist_is_named() -> None:
    options: Any = {"prioritty": 1}
    with pytest.raises(TypeError, match="prioritty"):
        operations.submit_body("paint", None, options, now=NOW)


@pytest.mark.parametrize(
    "at",
    [
        datetime.max, datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))), NOW + SECONDS_MAX + 1,
        1e300, -1e300, float("nan"), float("inf"), 10**400,
    ],
)  # fmt: skip
def test_a_start_that_no_server_takes_is_refused_by_name(at: Any) -> None:
    with pytest.raises(ValueError, match=r"^run_at: .* (years ahead|within the years 1 to 9999 in UTC)$"):
        operations.submit_body("paint", None, {"run_at": at}, now=NOW)


def test_result_asks_again_until_the_job_has_ended() -> None:
    answers = [answered(job("queued")), answered(job("running")), answered(job(output=7))]
    operation = operations.result(ID, timeout_s=None, clock=Clock(), known=True)
    value, calls = perform(operation, lambda _: answers.pop(0))
    assert value == 7
    assert [call.headers["Prefer"] for call in calls] == ["wait=60"] * 3


def test_a_wait_ends_with_its_time() -> None:
    clock = Clock()

    def slow(call: HttpCall) -> HttpResponse:
        clock.now += 1.0
        return answered(job("running"))

    with pytest.raises(TimeoutError, match=ID):
        perform(operations.result(ID, timeout_s=2.5, clock=clock, known=True), slow, clock)
    assert clock.now == 3.0


def test_a_wait_outlives_a_restart_of_the_server() -> None:
    clock = Clock()
    answers: list[HttpResponse | NoServer] = [
        NoServer("gone"),
        answered({"code": "shutting_down"}, 503),
        answered(job(output="back")),
    ]
    operation = operations.result(ID, timeout_s=None, clock=clock, known=True)
    value, _ = perform(operation, lambda _: answers.pop(0), clock)
    assert value == "back"
    assert clock.now > 0


@pytest.mark.parametrize("failure", [NoServer("gone"), answered({"code": "shutting_down"}, 503)])
def test_a_wait_gives_up_on_a_server_that_stays_away(failure: HttpResponse | NoServer) -> None:
    clock = Clock()
    with pytest.raises((NoServer, ShuttingDown)):
        perform(operations.wait(ID, until=None, clock=clock, known=True), lambda _: failure, clock)
    assert 30 < clock.now < 40


def test_a_failed_job_raises_with_its_error() -> None:
    error = {"code": "handler_error", "message": "no luck", "retryable": True}
    with pytest.raises(JobFailed, match="no luck") as caught:
        perform(operations.read_outcome(runner_job("failed", error)), lambda _: answered(None))
    assert caught.value.error == error


def test_a_cancelled_job_is_caught_as_job_cancelled_and_as_an_error_of_runner() -> None:
    error = {"code": "cancelled", "message": "enough"}
    for kind in (runner.JobCancelled, runner.JobWasCancelled, runner.RunnerError, Exception):
        with pytest.raises(kind, match="enough"):
            perform(operations.read_outcome(runner_job("cancelled", error)), lambda _: answered(None))


def test_a_large_output_is_fetched_by_itself() -> None:
    document = Job(job(output=None, output_bytes=100_000))
    value, calls = perform(operations.read_outcome(document), lambda _: answered(["much"]))
    assert value == ["much"]
    assert calls[0].path == f"/v1/jobs/{ID}/output"


def test_many_go_in_parts_and_keep_their_order() -> None:
    bodies = [{"handler": "echo", "input": number} for number in range(25_000)]

    def accept(call: HttpCall) -> HttpResponse:
        sent = json.loads(call.body or b"")["jobs"]
        return answered({"jobs": [{"id": str(entry["input"])} for entry in sent]}, 202)

    ids, calls = perform(operations.submit_many(bodies), accept)
    assert ids == [str(number) for number in range(25_000)]
    assert len(calls) == 3


def test_a_refused_one_of_many_is_told_with_its_place() -> None:
    full = {"code": "queue_full", "status": 429, "detail": "too many wait"}
    with pytest.raises(QueueFull) as caught:
        perform(
            operations.submit_many([{"handler": "echo"}] * 2),
            lambda _: answered({"jobs": [{"id": ID}, full]}, 202),
        )
    assert caught.value.detail["index"] == 1
    assert caught.value.detail["accepted_ids"] == [ID]


def test_results_of_many_that_have_ended_come_by_the_page() -> None:
    ids = [f"{number:036}" for number in range(1200)]
    documents = [job(id=job_id, output=job_id) for job_id in ids]

    def answer(call: HttpCall) -> HttpResponse:
        if call.path != "/v1/jobs":
            return answered(documents[0])
        start = int(dict(call.params).get("cursor", "0"))
        last = start + 500 >= len(documents)
        page = documents[start : start + 500]
        return answered({"data": page, "next_cursor": None if last else str(start + 500)})

    outputs, calls = perform(operations.results(ids, timeout_s=None, clock=Clock()), answer)
    assert outputs == ids
    assert len(calls) == 4


def test_results_wait_for_each_that_has_not_ended() -> None:
    clock = Clock()

    def slow(call: HttpCall) -> HttpResponse:
        clock.now += 1.0
        return answered(job(output=call.path[-1]))

    outputs, calls = perform(operations.results(["a", "b"], timeout_s=None, clock=clock), slow, clock)
    assert outputs == ["a", "b"]
    assert [call.path for call in calls] == ["/v1/jobs/a", "/v1/jobs/b"]


def test_lists_follow_their_cursor_up_to_the_limit() -> None:
    pages = [
        {"data": [job()] * 500, "next_cursor": "more"},
        {"data": [job()] * 100, "next_cursor": "yet more"},
    ]
    filters = {"state": ["failed", "cancelled"], "tag": None, "input": {"model.name": "tiny"}}
    found, calls = perform(operations.list_jobs(filters, limit=600), lambda _: answered(pages.pop(0)))
    assert len(found) == 600
    assert calls[1].params == (
        ("state", "failed"),
        ("state", "cancelled"),
        ("input.model.name", "tiny"),
        ("limit", "100"),
        ("cursor", "more"),
    )


def runner_job(state: str, error: dict[str, Any]) -> Job:
    return Job(job(state, error=error))
