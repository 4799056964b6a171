"""Pure: the JSON of events, built once for all their readers."""

from __future__ import annotations

from typing import Any

import msgspec

from runner.formats.timestamps import format_rfc3339
from runner.jobs.event import Event, EventType
from runner.jobs.job import Job, JobError

#: In lists, `snapshot` and `done`, a larger input or output is null beside its size.
INLINE_MAX_BYTES = 64 * 1024

_json = msgspec.json.Encoder()


def build_event(job: Job, kind: EventType, at: float, fields: bytes) -> Event:
    """Build the job's next event; `fields` is a JSON object's text. The job's `last_seq` rises by one."""
    job.last_seq = seq = job.last_seq + 1
    tail = b"}" if fields == b"{}" else b"," + fields[1:]
    head = f'{{"job_id":"{job.id}","seq":{seq},"at":"{format_rfc3339(at)}"'.encode()
    return Event(seq, kind, head + tail)


def status_fields(job: Job, reason: str | None) -> bytes:
    """The fields of a `status` event: `state`, `reason` and `attempt`."""
    return f'{{"state":"{job.state}","reason":{_json_string(reason)},"attempt":{job.attempt}}}'.encode()


def requeue_fields(job: Job, reason: str, error: JobError | None) -> bytes:
    """The fields of the `status` event of a job that is queued again; `error` is that of a failed attempt.

    Beside `error` there are the time `ready_at` from which the job may start again, and `retries_left` after
    this retry.
    """
    if error is None:
        return status_fields(job, reason)
    return _json.encode(
        {
            "state": job.state,
            "reason": reason,
            "attempt": job.attempt,
            "error": error_fields(error),
            "ready_at": format_rfc3339(job.ready_at),
            "retries_left": retries_left(job),
        }
    )


def retries_left(job: Job) -> int:
    """How many more failures a job may have before it fails itself."""
    return max(0, job.terms.retries - job.failures)


def done_fields(job: Job, output: bytes | None) -> bytes:
    """The fields of a `done` event; an output over 64 KiB is null beside `output_bytes`."""
    if output is not None and len(output) > INLINE_MAX_BYTES:
        inline_output = b"null"
    else:
        inline_output = output if output is not None else b"null"
    error = b"null" if job.error is None else _json.encode(error_document(job))
    return b'{"state":"%s","attempt":%d,"output":%s,"output_bytes":%s,"error":%s}' % (
        job.state.encode(),
        job.attempt,
        inline_output,
        b"null" if job.output_bytes is None else b"%d" % job.output_bytes,
        error,
    )


def error_document(job: Job) -> dict[str, Any] | None:
    """A job's error as the API shows it; None without one. A cancelled job has only code and message."""
    error = job.error
    if error is None:
        return None
    if job.state == "cancelled":
        return {"code": error.code, "message": error.message}
    return error_fields(error)


def error_fields(error: JobError) -> dict[str, Any]:
    """The error of a job or of an attempt as the API shows it; without a detail, `detail` is left out."""
    fields: dict[str, Any] = {"code": error.code, "message": error.message, "retryable": error.retryable}
    if error.detail is not None:
        fields["detail"] = error.detail
    return fields


def _json_string(value: str | None) -> str:
    return "null" if value is None else f'"{value}"'
