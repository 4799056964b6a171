"""Pure: every error of runner as one tree; status and code are data on the class.

RunnerError
├── BadRequest              400  bad_request
│   └── ValidationFailed    422  validation_error
│       ├── Unsatisfiable   422  unsatisfiable
│       ├── HandlerBroken   422  handler_broken
│       └── ValidationTimeout 422  validation_timeout
├── Unauthorized            401  unauthorized
├── Forbidden               403  forbidden
│   └── WrongOrigin         403  wrong_origin
├── NotFound                404  not_found
│   └── UnknownHandler      404  unknown_handler
├── Conflict                409  conflict
│   ├── AlreadyFinished     409  already_finished
│   ├── JobNotFinished      409  job_not_finished
│   ├── ReloadRefused       409  reload_refused
│   └── NotLoaded           409  not_loaded
├── JobDamaged              410  damaged
├── PayloadTooLarge         413  payload_too_large
├── UnsupportedMediaType    415  unsupported_media_type
├── WrongHost               421  wrong_host
├── TooManyRequests         429  rate_limited
│   ├── QueueFull           429  queue_full
│   └── TooManyNames        429  too_many_names
├── Unavailable             503  unavailable
│   ├── ShuttingDown        503  shutting_down
│   └── StoreUnavailable    503  store_unavailable
│       ├── StoreFull       503  store_unavailable
│       ├── StoreGone       503  store_unavailable
│       ├── StoreCorrupt    503  store_corrupt
│       └── Fenced          503  fenced
├── RefusedStart            (exit 2) a server that cannot or must not start
│   └── StartDiskFull       (exit 75) a start that found no room on its disk; a later one may
├── NoServer                (exit 4) the client found no server
└── JobEnded                a job's own end, raised by a client's `result()`
    ├── JobFailed
    └── JobWasCancelled
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

#: Bound on the handlers that an error message lists.
KNOWN_LISTED = 20


class RunnerError(Exception):
    """Root of the tree; the message says what is wrong, with which id, and what to do.

    `status` is the HTTP status, `code` the stable word for programs, `exit_code` the exit code of the
    command line. `detail` holds machine-readable JSON values, such as figures or pointers; over HTTP they
    become members of the problem document.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"
    exit_code: ClassVar[int] = 5

    def __init__(self, message: str, **detail: Any) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class BadRequest(RunnerError):
    status, code, title = 400, "bad_request", "Bad request"


class ValidationFailed(BadRequest):
    """`detail["errors"]` is a list of `{pointer, message}`, with JSON pointers into the request."""

    status, code, title = 422, "validation_error", "The request is not valid"


class Unsatisfiable(ValidationFailed):
    """`detail` has the figures: bytes needed, and what each device could offer at most."""

    code, title = "unsatisfiable", "No device could ever fit this job"


class HandlerBroken(ValidationFailed):
    code, title = "handler_broken", "The handler could not be imported"


class ValidationTimeout(ValidationFailed):
    """The schema and the input together take too long to validate."""

    code, title = "validation_timeout", "The input could not be validated in time"


class Unauthorized(RunnerError):
    status, code, title = 401, "unauthorized", "A token is needed"


class Forbidden(RunnerError):
    status, code, title = 403, "forbidden", "Not allowed"


class WrongOrigin(Forbidden):
    code, title = "wrong_origin", "Origin not allowed"


class NotFound(RunnerError):
    status, code, title, exit_code = 404, "not_found", "Not found", 3


class UnknownHandler(NotFound):
    """No handler has the name in the request."""

    code, title = "unknown_handler", "Unknown handler"


def unknown_handler_text(name: str, known: Iterable[str]) -> str:
    """Return the message about a handler that does not exist; it lists at most 20 of the known names."""
    names = sorted(known)
    listed = ", ".join(names[:KNOWN_LISTED]) or "none"
    return f"there is no handler {name!r}; known are: {listed}{', ...' if len(names) > KNOWN_LISTED else ''}"


class Conflict(RunnerError):
    status, code, title = 409, "conflict", "Conflict"


class AlreadyFinished(Conflict):
    """The job has ended, so it can't be cancelled or changed."""

    code, title = "already_finished", "The job has already ended"


class JobNotFinished(Conflict):
    code, title = "job_not_finished", "The job has not ended"


class ReloadRefused(Conflict):
    """The sources are invalid; the handlers of before stay active."""

    code, title = "reload_refused", "The handlers were not reloaded"


class NotLoaded(Conflict):
    """`detail["error"]` is the error that a job would have got."""

    code, title, exit_code = "not_loaded", "The handler was not loaded", 1


class JobDamaged(RunnerError):
    """The job's row, input, output or events can't be read; the message says why. DELETE removes it."""

    code, title, status = "damaged", "The job is damaged", 410


class PayloadTooLarge(RunnerError):
    status, code, title = 413, "payload_too_large", "Payload too large"


class UnsupportedMediaType(RunnerError):
    status, code, title = 415, "unsupported_media_type", "Unsupported media type"


class WrongHost(RunnerError):
    status, code, title = 421, "wrong_host", "Host not allowed"


class TooManyRequests(RunnerError):
    """`detail["retry_after_s"]` is the time to wait before the next request."""

    status, code, title = 429, "rate_limited", "Too many requests"


class QueueFull(TooManyRequests):
    code, title = "queue_full", "Too many jobs are queued"


class TooManyNames(TooManyRequests):
    """A job would add a queue, tenant or model beyond the limits; `detail` has the `limit` and its `max`."""

    code, title = "too_many_names", "Too many names are in use"


class Unavailable(RunnerError):
    """The request may succeed later; `detail["retry_after_s"]` suggests when."""

    status, code, title = 503, "unavailable", "Not available now"


class ShuttingDown(Unavailable):
    code, title = "shutting_down", "The server is shutting down"


class StoreUnavailable(Unavailable):
    """The store accepts no writes now, such as on a full disk."""

    code, title = "store_unavailable", "The store does not take writes now"


class StoreFull(StoreUnavailable):
    """The disk, a quota or a limit on the file's size leaves no room for a write."""


class StoreGone(StoreUnavailable):
    """The store's file was removed or replaced under a running server, which must end."""


class StoreCorrupt(StoreUnavailable):
    """The store's file can't be used; restore a backup or choose another file."""

    code, title, exit_code = "store_corrupt", "The store's file is damaged", 2


class Fenced(StoreUnavailable):
    """A newer coordinator owns the store; this one must exit at once."""

    code, title, exit_code = "fenced", "Another coordinator took over", 3


class RefusedStart(RunnerError):
    """The server cannot or must not start; the message names the setting to change."""

    code, title, exit_code = "refused_start", "The server did not start", 2


class StartDiskFull(RefusedStart):
    """The disk was full all the time that a start waits for room; `EX_TEMPFAIL` of sysexits.h."""

    exit_code = 75


class NoServer(RunnerError):
    """No server answers at the client's address."""

    code, title, exit_code = "no_server", "No server answers", 4


class JobEnded(RunnerError):
    """A job that did not succeed; `error` is the job's error as the API returns it."""

    title, exit_code = "The job did not succeed", 1

    def __init__(self, job_id: str, error: dict[str, Any]) -> None:
        super().__init__(f"job {job_id}: {error.get('code')}: {error.get('message')}")
        self.job_id = job_id
        self.error = error


class JobFailed(JobEnded):
    """The job failed, after all retries that it had."""

    code = "job_failed"


class JobWasCancelled(JobEnded):
    code, exit_code = "cancelled", 7
