"""Pure: jobs as the JSON documents of the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from runner.coordinator.jobs.event_json import (
    INLINE_MAX_BYTES,
    error_document,
    error_fields,
    retries_left,
)
from runner.coordinator.jobs.explanations import WaitStatus
from runner.formats.timestamps import format_rfc3339
from runner.jobs.job import ENDED, AttemptRecord, AttemptUsage, FileRecord, Job

_encode = msgspec.json.Encoder().encode
_NULL = msgspec.Raw(b"null")


class JobDocument(msgspec.Struct):
    """The fields of a job, in the order in which people read them.

    Times are RFC 3339 in UTC. `input`, `output` and `metadata` are JSON texts that are copied as they are.
    """

    id: str
    handler: str
    queue: str
    state: str
    reason: str | None
    position: int | None
    eta_s: float | None
    priority: int
    input: msgspec.Raw
    input_bytes: int
    output: msgspec.Raw
    output_bytes: int | None
    error: dict[str, Any] | None
    last_error: dict[str, Any] | None
    progress: msgspec.Raw
    attempt: int
    retries_left: int
    vram_bytes: int | None
    devices: list[str]
    device_s: float
    byte_s: float
    run_id: str | None
    tenant: str | None
    tags: tuple[str, ...]
    metadata: msgspec.Raw
    created_at: str
    ready_at: str
    started_at: str | None
    finished_at: str | None
    urls: dict[str, str]


def job_document(
    job: Job,
    reason: str | None,
    input_: bytes | None,
    output: bytes | None,
    *,
    full: bool = True,
    wait: WaitStatus | None = None,
) -> bytes:
    """The job as JSON text. `full=False` leaves an input or output over 64 KiB out (null).

    `wait` has the position and the expected start of a queued job; without it, both are null.
    """
    return _encode(_document(job, reason, input_, output, full, wait))


def list_document(jobs: list[bytes], next_cursor: str | None, damaged_ids: Sequence[str] = ()) -> bytes:
    """Build `{"data": [...], "next_cursor": ...}` from encoded documents; the last page has no cursor.

    `damaged` names the jobs between these that can't be read; without one it is left out.
    """
    damaged = b',"damaged":%s' % _encode(damaged_ids) if damaged_ids else b""
    return b'{"data":[%s],"next_cursor":%s%s}' % (b",".join(jobs), _encode(next_cursor), damaged)


def attempts_document(job: Job) -> bytes:
    """Build the document of /jobs/{id}/attempts: the latest 100, oldest first."""
    return _encode({"data": [attempt_document(record) for record in job.attempts]})


def files_document(job: Job) -> bytes:
    """Build the document of /jobs/{id}/files: references to all files that the job has saved."""
    return _encode({"data": [file_document(job.id, record) for record in job.files]})


def attempt_document(record: AttemptRecord) -> dict[str, Any]:
    """Build the document of one attempt."""
    error = record.error
    return {
        "attempt": record.attempt,
        "worker": record.worker,
        "devices": record.devices,
        "started_at": format_rfc3339(record.started_at),
        "ended_at": rfc3339_or_null(record.ended_at),
        "load_s": record.load_s,
        "run_s": record.run_s,
        "vram_peak_bytes": record.vram_peak_bytes,
        "granted_bytes": record.granted_bytes,
        "alone": record.alone,
        **usage_fields(record.spent),
        "error": None
        if error is None
        else {
            "code": error.code,
            "message": error.message,
            "retryable": error.retryable,
            "detail": error.detail,
        },
    }


def usage_fields(usage: AttemptUsage | None) -> dict[str, Any]:
    """The device time of an attempt or a job: seconds, and bytes granted times seconds; 0 if not measured."""
    return {
        "device_s": 0.0 if usage is None else round(usage.device_s, 6),
        "byte_s": 0.0 if usage is None else round(usage.byte_s),
    }


def file_document(job_id: str, file: FileRecord) -> dict[str, Any]:
    """A file reference, as outputs contain it."""
    return {
        "$file": file.id,
        "id": file.id,
        "name": file.name,
        "size": file.size,
        "sha256": file.sha256,
        "content_type": file.content_type,
        "url": f"/v1/jobs/{job_id}/files/{quote(file.name, safe='')}",
    }


def rfc3339_or_null(at: float | None) -> str | None:
    """Format a time as RFC 3339, or null."""
    return None if at is None else format_rfc3339(at)


def _document(
    job: Job,
    reason: str | None,
    input_: bytes | None,
    output: bytes | None,
    full: bool,
    wait: WaitStatus | None,
) -> JobDocument:
    base = f"/v1/jobs/{job.id}"
    last_attempt = job.attempts[-1] if job.attempts else None
    failure = job.last_failure
    last_error = None if failure is None else failure.error
    urls = {
        "self": base,
        "events": f"{base}/events",
        "output": f"{base}/output",
        "attempts": f"{base}/attempts",
        "cancel": f"{base}/cancel",
    }
    return JobDocument(
        id=job.id,
        handler=job.handler,
        queue=job.queue,
        state=job.state,
        reason=reason,
        position=None if wait is None else wait.position,
        eta_s=None if wait is None or wait.eta_s is None else round(wait.eta_s, 1),
        priority=job.priority,
        input=_inline_payload(input_, full),
        input_bytes=job.input_bytes,
        output=_inline_payload(output, full) if job.state == "succeeded" else _NULL,
        output_bytes=job.output_bytes if job.state == "succeeded" else None,
        error=error_document(job) if job.state in ENDED else None,
        last_error=None if last_error is None else error_fields(last_error),
        progress=_NULL if job.progress is None else msgspec.Raw(job.progress),
        attempt=job.attempt,
        retries_left=retries_left(job),
        vram_bytes=job.terms.vram_bytes,
        **usage_fields(job.spent),
        devices=last_attempt.devices if last_attempt is not None and job.state != "queued" else [],
        run_id=None,
        tenant=job.terms.tenant or None,
        tags=job.terms.tags,
        metadata=msgspec.Raw(job.terms.metadata),
        created_at=format_rfc3339(job.created_at),
        ready_at=format_rfc3339(job.ready_at),
        started_at=rfc3339_or_null(job.started_at),
        finished_at=rfc3339_or_null(job.finished_at),
        urls=urls,
    )


def _inline_payload(text: bytes | None, full: bool) -> msgspec.Raw:
    if text is None or (not full and len(text) > INLINE_MAX_BYTES):
        return _NULL
    return msgspec.Raw(text)
