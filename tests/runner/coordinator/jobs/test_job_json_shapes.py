"""Pure: pages, attempts, files and ends as the API shows them, key by key."""

from __future__ import annotations

import json

from runner.coordinator.jobs import job_json
from runner.coordinator.jobs.event_json import INLINE_MAX_BYTES, done_fields, error_document
from runner.jobs.job import AttemptRecord, FileRecord, Job, JobError, JobTerms


def make_job() -> Job:
    return Job(7, "job-7", "h", "default", 50, 1_700_000_000.0, JobTerms(), 2)


def test_a_page_joins_what_is_encoded_and_names_the_next_one() -> None:
    assert json.loads(job_json.list_document([b'{"n":1}', b'{"n":2}'], "c")) == {
        "data": [{"n": 1}, {"n": 2}],
        "next_cursor": "c",
    }
    assert json.loads(job_json.list_document([], None)) == {"data": [], "next_cursor": None}
    assert json.loads(job_json.list_document([], None, ["job-1"]))["damaged"] == ["job-1"]


def test_an_attempt_shows_its_times_and_how_it_failed() -> None:
    job = make_job()
    job.attempts = [
        AttemptRecord(1, "gpu0-ab", ["gpu0"], 0.0, 1.5, 1.0, 0.5, 1024, JobError("timeout", "late", True)),
        AttemptRecord(2, "gpu0-ab", ["gpu0"], 2.0),
    ]
    first, second = json.loads(job_json.attempts_document(job))["data"]
    assert first["error"] == {"code": "timeout", "message": "late", "retryable": True, "detail": None}
    assert (first["started_at"], first["ended_at"]) == (
        "1970-01-01T00:00:00.000Z",
        "1970-01-01T00:00:01.500Z",
    )
    assert (first["load_s"], first["run_s"], first["vram_peak_bytes"]) == (1.0, 0.5, 1024)
    assert (second["ended_at"], second["error"], second["devices"]) == (None, None, ["gpu0"])


def test_a_file_is_reached_by_a_name_that_is_quoted() -> None:
    shown = job_json.file_document("job-7", FileRecord("f1", "a b/ü.png", 9, "00", "image/png", 1))
    assert shown["url"] == "/v1/jobs/job-7/files/a%20b%2F%C3%BC.png"
    assert (shown["$file"], shown["id"], shown["size"]) == ("f1", "f1", 9)


def test_an_end_without_output_or_error_shows_null_for_both() -> None:
    job = make_job()
    shown = json.loads(done_fields(job, None))
    assert (shown["output"], shown["output_bytes"], shown["error"]) == (None, None, None)
    assert error_document(job) is None


def test_an_end_shows_an_output_up_to_the_bound() -> None:
    job = make_job()
    text = b'"' + b"x" * (INLINE_MAX_BYTES - 2) + b'"'
    job.output_bytes = len(text)
    assert json.loads(done_fields(job, text))["output_bytes"] == INLINE_MAX_BYTES
    assert json.loads(done_fields(job, text))["output"] == "x" * (INLINE_MAX_BYTES - 2)


def test_the_error_of_a_failed_job_has_its_detail() -> None:
    job = make_job()
    job.state, job.error = "failed", JobError("handler_error", "bad", True, {"traceback": "t"})
    assert error_document(job) == {
        "code": "handler_error",
        "message": "bad",
        "retryable": True,
        "detail": {"traceback": "t"},
    }
    job.error = JobError("timeout", "late")
    assert error_document(job) == {"code": "timeout", "message": "late", "retryable": False}
