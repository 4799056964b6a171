"""Jobs as the API shows them."""

from __future__ import annotations

import json

from runner.coordinator.jobs import job_json
from runner.coordinator.jobs.event_json import INLINE_MAX_BYTES, build_event, done_fields
from runner.coordinator.jobs.explanations import WaitStatus
from runner.jobs.job import FileRecord, Job, JobError, JobTerms


def make_job() -> Job:
    return Job(7, "job-7", "h", "default", 50, 1_700_000_000.25, JobTerms(retries=2, tags=("a",)), 2)


def test_a_job_shows_times_with_milliseconds_and_z() -> None:
    shown = json.loads(job_json.job_document(make_job(), "ready", b"{}", None))
    assert shown["created_at"] == "2023-11-14T22:13:20.250Z"
    assert (shown["state"], shown["reason"], shown["retries_left"]) == ("queued", "ready", 2)
    assert (shown["input"], shown["output"], shown["error"]) == ({}, None, None)


def test_a_queued_job_shows_its_place_where_it_was_forecast() -> None:
    shown = json.loads(job_json.job_document(make_job(), "ready", b"{}", None))
    assert (shown["position"], shown["eta_s"]) == (None, None)
    wait = WaitStatus("ready", 2, 9.87, "")
    shown = json.loads(job_json.job_document(make_job(), "ready", b"{}", None, wait=wait))
    assert (shown["position"], shown["eta_s"]) == (2, 9.9)


def test_files_are_listed_as_references() -> None:
    job = make_job()
    job.files = [FileRecord("f-1", "a.png", 3, "0" * 64, "image/png", 1)]
    (shown,) = json.loads(job_json.files_document(job))["data"]
    assert (shown["$file"], shown["name"], shown["size"]) == ("f-1", "a.png", 3)
    assert shown["url"] == "/v1/jobs/job-7/files/a.png"


def test_a_large_input_is_null_beside_its_size_in_lists_only() -> None:
    job = make_job()
    text = b'"' + b"x" * INLINE_MAX_BYTES + b'"'
    job.input_bytes = len(text)
    short = json.loads(job_json.job_document(job, None, text, None, full=False))
    assert (short["input"], short["input_bytes"]) == (None, len(text))
    assert json.loads(job_json.job_document(job, None, text, None))["input"] == "x" * INLINE_MAX_BYTES


def test_a_cancelled_job_has_its_reason_as_error() -> None:
    job = make_job()
    job.state, job.error = "cancelled", JobError("cancelled", "by hand")
    shown = json.loads(job_json.job_document(job, "cancelled", b"{}", None))
    assert shown["error"] == {"code": "cancelled", "message": "by hand"}


def test_an_event_is_one_json_line_with_its_head_first() -> None:
    job = make_job()
    made = build_event(job, "progress", 1_700_000_000.0, b'{"done":1}')
    assert (made.seq, job.last_seq) == (1, 1)
    assert json.loads(made.data) == {"job_id": "job-7", "seq": 1, "at": "2023-11-14T22:13:20.000Z", "done": 1}
    assert b"\n" not in made.data


def test_done_leaves_out_a_large_output() -> None:
    job = make_job()
    job.state, job.output_bytes = "succeeded", INLINE_MAX_BYTES + 1
    shown = json.loads(done_fields(job, b"1" * (INLINE_MAX_BYTES + 1)))
    assert (shown["output"], shown["output_bytes"]) == (None, INLINE_MAX_BYTES + 1)
