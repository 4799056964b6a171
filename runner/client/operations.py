"""Pure: all requests to a server, as operations that either client performs.

Times named `until` are on the `clock` passed by the client (monotonic seconds).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypedDict
from urllib.parse import quote

from runner.bounds import is_too_far
from runner.client.events import RECONNECT_S, EventFollower
from runner.client.http_call import (
    JSON_TYPE,
    HttpCall,
    HttpResponse,
    Operation,
    Pause,
    encode,
    post_call,
    problem_error,
    send_call,
)
from runner.client.models import Job
from runner.errors import JobFailed, JobWasCancelled, NoServer, RunnerError, Unavailable
from runner.formats.units import parse_bytes, parse_seconds
from runner.handlers.exceptions import JobCancelled

#: Length of one long poll, in seconds; the server allows 300, but a shorter one notices a dead connection.
WAIT_S = 60
#: Bounds of one bulk request, below the server's 10,000 jobs and 64 MiB.
BULK_JOBS = 10_000
BULK_BYTES = 32 << 20
#: Above this size a job's document may omit the output.
INLINE_BYTES = 64 << 10

#: A reply within this time was immediate, so the job had already ended.
NO_WAIT_S = 0.05

Clock = Callable[[], float]


class CancelledJob(JobWasCancelled, JobCancelled):
    """The error of `result()` for a cancelled job; `error` has the reason.

    One name serves both sides: `except runner.JobCancelled` catches this error as well as the one raised
    inside a handler. As a RunnerError it is an ordinary exception.
    """


class JobOptions(TypedDict, total=False):
    """Options of a submit besides the input; options left out are the handler's own."""

    queue: str
    #: 0 to 100, higher first, or "critical", "high", "normal", "low".
    priority: int | str
    #: Timeout of one attempt's run: seconds or "5m".
    timeout: float | str
    #: Timeout of the wait before the first start: seconds or "5m".
    queue_timeout: float | str
    #: Earliest start: a datetime or RFC 3339 text (UTC if no zone is given), or UTC epoch seconds.
    run_at: datetime | str | float
    #: Delay before the earliest start: seconds or "5m"; not together with `run_at`.
    delay: float | str
    #: Number of retries after failures.
    retries: int
    #: Seconds, a list of seconds, or `{kind, base_s, max_s, jitter}`.
    backoff: float | list[float] | dict[str, Any]
    #: Peak device memory: bytes or "6GiB".
    vram: int | str
    #: Tenant of the job: devices are shared between tenants by their weights.
    tenant: str
    tags: list[str]
    metadata: dict[str, Any]


def rfc3339_text(value: datetime | str | float) -> str:
    """Return the RFC 3339 text of a point in time.

    A naive datetime is UTC; a number is UTC epoch seconds.

    Raises:
        ValueError: a time outside the years 1 to 9999 in UTC, or not a finite number.
    """
    if isinstance(value, str):
        return value
    try:
        if isinstance(value, datetime):
            at = value if value.tzinfo else value.replace(tzinfo=UTC)
        else:
            at = datetime.fromtimestamp(value, UTC)
        at = at.astimezone(UTC)
    except (OverflowError, OSError, ValueError):
        raise ValueError(f"{value!r} is not a time within the years 1 to 9999 in UTC") from None
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def submit_body(handler: str, data: object, options: JobOptions, *, now: float) -> dict[str, Any]:
    """Return the JSON body of a submit; `now` is in UTC epoch seconds.

    Raises:
        TypeError: an option does not exist.
        ValueError: a duration, time or size can't be parsed, or a time is more than ten years ahead.
    """
    unknown = set(options) - set(JobOptions.__annotations__)
    if unknown:
        raise TypeError(f"submit() has no option {', '.join(sorted(unknown))}")
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    body: dict[str, Any] = {"handler": handler}
    if data is not None:
        body["input"] = data
    for name in ("timeout", "queue_timeout", "delay"):
        if name in given:
            body[f"{name}_s"] = _parse_option(name, parse_seconds, given.pop(name))
    if "run_at" in given:
        body["run_at"] = _parse_option("run_at", partial(_start_time, now=now), given.pop("run_at"))
    if "vram" in given:
        body["vram"] = _parse_option("vram", parse_bytes, given.pop("vram"))
    if isinstance(given.get("tags"), tuple):
        given["tags"] = list(given["tags"])
    return body | given


def _start_time(value: datetime | str | float, *, now: float) -> str:
    """Return the text of a start time; raises ValueError as `rfc3339_text`, and beyond ten years."""
    text = rfc3339_text(value)
    if not isinstance(value, str) and is_too_far(datetime.fromisoformat(text).timestamp(), now):
        raise ValueError(f"{text} is more than ten years ahead")
    return text


def _parse_option(name: str, parse: Callable[[Any], float | str], value: object) -> float | str:
    """Return the parsed value of an option; an error names the option."""
    try:
        return parse(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def submit(body: dict[str, Any]) -> Operation[Job]:
    """Submit one job; it is durable when this returns."""
    answer = yield from send_call(post_call("/v1/jobs", body))
    return Job(answer.json())


def submit_many(bodies: Sequence[dict[str, Any]]) -> Operation[list[str]]:
    """Submit several jobs in as few requests as the bounds allow; return their ids in the given order.

    Raises the error of the first job that was refused; its `detail` has the `index` and the `accepted_ids` of
    the others, which stay accepted.
    """
    ids: list[str] = []
    refused: list[tuple[int, dict[str, Any]]] = []
    index = 0
    for part in _bulk_parts([encode(body) for body in bodies]):
        text = b'{"jobs":[' + b",".join(part) + b"]}"
        answer = yield from send_call(
            HttpCall("POST", "/v1/jobs/bulk", body=text, headers={"Content-Type": JSON_TYPE})
        )
        for entry in answer.json()["jobs"]:
            if "id" in entry:
                ids.append(entry["id"])
            else:
                refused.append((index, entry))
            index += 1
    if refused:
        failed_index, document = refused[0]
        error = problem_error(document)
        error.detail |= {"index": failed_index, "accepted_ids": ids, "refused": len(refused)}
        raise error
    return ids


def run(body: dict[str, Any], *, timeout_s: float | None, clock: Clock) -> Operation[Any]:
    """Submit one job and return its output, in one round trip if the job is short."""
    until = None if timeout_s is None else clock() + timeout_s
    # Whole seconds, and no shorter read timeout: without the reply the job's id would be unknown.
    wait_s = WAIT_S if timeout_s is None else min(WAIT_S, int(timeout_s))
    prefer = {"Prefer": f"wait={wait_s}"} if wait_s > 0 else {}
    answer = yield from send_call(post_call("/v1/jobs", body, headers=prefer, timeout_s=wait_s + 15.0))
    job = Job(answer.json())
    if not job.ended:
        job = yield from wait(job.id, until=until, clock=clock, known=True)
    return (yield from read_outcome(job))


def get(job_id: str) -> Operation[Job]:
    """Return the job as it is now; raises NotFound."""
    answer = yield from send_call(HttpCall("GET", _job(job_id)))
    return Job(answer.json())


def wait(job_id: str, *, until: float | None, clock: Clock, known: bool) -> Operation[Job]:
    """Return the job once it has ended.

    `known` means that the server has answered before: its restart is then bridged by retries.

    Raises:
        TimeoutError: the time is over; the job continues.
        NoServer: no answer, or none for RECONNECT_S if the server is known.
    """
    silent_since: float | None = None
    failures = 0
    while True:
        remaining_s = None if until is None else until - clock()
        prefer, silence_s = _wait_bounds(remaining_s)
        try:
            answer = yield from send_call(HttpCall("GET", _job(job_id), headers=prefer, timeout_s=silence_s))
        except (NoServer, Unavailable) as error:
            now = clock()
            silent_since = now if silent_since is None else silent_since
            if not known or now - silent_since > RECONNECT_S:
                raise error
            if until is not None and now >= until:
                raise _timeout_error(job_id) from None
            pause = EventFollower.retry_pauses_s[min(failures, len(EventFollower.retry_pauses_s) - 1)]
            failures += 1
            yield Pause(pause if until is None else min(pause, max(0.0, until - now)))
            continue
        known, failures, silent_since = True, 0, None
        job = Job(answer.json())
        if job.ended:
            return job
        if until is not None and clock() >= until:
            raise _timeout_error(job_id)


def result(job_id: str, *, timeout_s: float | None, clock: Clock, known: bool) -> Operation[Any]:
    """Return the job's output once it has ended; raises as `wait` and `read_outcome`."""
    until = None if timeout_s is None else clock() + timeout_s
    job = yield from wait(job_id, until=until, clock=clock, known=known)
    return (yield from read_outcome(job))


def read_outcome(job: Job) -> Operation[Any]:
    """Return the output of an ended job, fetched separately if the document omits it.

    Raises:
        JobFailed: the job failed; `error` is the job's.
        JobCancelled: the job was cancelled; `runner.JobCancelled` of handlers catches it as well.
    """
    if job.state != "succeeded":
        error = job.error or {"code": job.reason, "message": "no error was recorded"}
        raise (CancelledJob if job.state == "cancelled" else JobFailed)(job.id, error)
    if job.output is None and int(job.get("output_bytes") or 0) > INLINE_BYTES:
        answer = yield from send_call(HttpCall("GET", _job(job.id, "/output"), timeout_s=120.0))
        return answer.json()
    return job.output


def results(ids: Sequence[str], *, timeout_s: float | None, clock: Clock) -> Operation[list[Any]]:
    """Return the outputs of these jobs, in order; raise the error of the first one that did not succeed."""
    until = None if timeout_s is None else clock() + timeout_s
    wanted = set(ids)
    found: dict[str, Job] = {}
    outputs: list[Any] = []
    for job_id in ids:
        if job_id not in found:
            asked_at = clock()
            found[job_id] = yield from wait(job_id, until=until, clock=clock, known=True)
            # The job had already ended, so its neighbours probably have too: one page returns 500 of them.
            if clock() - asked_at < NO_WAIT_S and len(outputs) < len(ids) - 1:
                yield from _collect_ended(found[job_id], wanted, found)
        outputs.append((yield from read_outcome(found.pop(job_id))))
    return outputs


def _collect_ended(first: Job, wanted: set[str], found: dict[str, Job]) -> Operation[None]:
    """Add ended jobs of `wanted` that were submitted after `first`, page by page until one has not ended."""
    params = (("handler", first.handler), ("created_after", str(first["created_at"])), ("order", "asc"))
    cursor: tuple[tuple[str, str], ...] = ()
    while True:
        answer = yield from send_call(
            HttpCall("GET", "/v1/jobs", params=(*params, ("limit", "500"), *cursor))
        )
        page = answer.json()
        wanted_jobs = [Job(entry) for entry in page["data"] if entry["id"] in wanted]
        ended = {job.id: job for job in wanted_jobs if job.ended}
        found |= ended
        if not ended or len(ended) < len(wanted_jobs) or not page.get("next_cursor"):
            return
        cursor = (("cursor", page["next_cursor"]),)


def list_jobs(filters: dict[str, Any], *, limit: int | None) -> Operation[list[Job]]:
    """Return matching jobs, newest first unless `order` is "asc"; `limit` None fetches all pages.

    `filters` are query parameters of GET /v1/jobs; None values are ignored, lists repeat the parameter.
    """
    found: list[Job] = []
    params = tuple(_params(filters))
    cursor: tuple[tuple[str, str], ...] = ()
    while limit is None or len(found) < limit:
        size = 500 if limit is None else min(500, limit - len(found))
        answer = yield from send_call(
            HttpCall("GET", "/v1/jobs", params=(*params, ("limit", str(size)), *cursor))
        )
        page = answer.json()
        found += [Job(entry) for entry in page["data"]]
        if not page.get("next_cursor"):
            break
        cursor = (("cursor", page["next_cursor"]),)
    return found


def cancel(job_id: str, reason: str | None, *, force: bool = False) -> Operation[Job]:
    """Request a cancel; `force` kills a running job's process instead of asking the handler to stop."""
    body: dict[str, Any] = {"reason": reason} if reason else {}
    if force:
        body["force"] = True
    answer = yield from send_call(post_call(_job(job_id, "/cancel"), body))
    return Job(answer.json())


def retry(job_id: str) -> Operation[Job]:
    """Queue an ended job again, under the same id."""
    answer = yield from send_call(post_call(_job(job_id, "/retry"), {}))
    return Job(answer.json())


def delete(job_id: str) -> Operation[None]:
    """Delete a job that is not running, with its events and files."""
    yield from send_call(HttpCall("DELETE", _job(job_id)))


def get_document(path: str) -> Operation[Any]:
    """Return the JSON document at a path below `/v1`; of a list only its `data`."""
    answer = yield from send_call(HttpCall("GET", f"/v1/{path}"))
    value = answer.json()
    return value["data"] if isinstance(value, dict) and isinstance(value.get("data"), list) else value


def get_job_document(job_id: str, what: str) -> Operation[Any]:
    """Return a document of a job: `explain`, `attempts` or `files`."""
    return (yield from get_document(f"jobs/{quote(job_id, safe='')}/{what}"))


def importing_sources() -> Operation[list[str]]:
    """Return the sources of handlers that are still being imported."""
    answer = yield from send_call(HttpCall("GET", "/v1/handlers"))
    return [str(source) for source in answer.json().get("importing") or ()]


def set_queue(name: str, verb: str) -> Operation[dict[str, Any]]:
    """Pause or resume a queue (`verb`); return the queue."""
    answer = yield from send_call(post_call(f"/v1/queues/{quote(name, safe='')}/{verb}", None))
    value: dict[str, Any] = answer.json()
    return value


def put_queue(name: str, *, paused: bool) -> Operation[dict[str, Any]]:
    """Create a queue if it does not exist, and pause or resume it; return the queue."""
    call = HttpCall(
        "PUT",
        f"/v1/queues/{quote(name, safe='')}",
        body=encode({"paused": paused}),
        headers={"Content-Type": JSON_TYPE},
    )
    answer = yield from send_call(call)
    value: dict[str, Any] = answer.json()
    return value


def drain_device(name: str, verb: str) -> Operation[dict[str, Any]]:
    """Drain or resume a device (`verb`); return the device."""
    answer = yield from send_call(post_call(f"/v1/devices/{quote(name, safe='')}/{verb}", None))
    value: dict[str, Any] = answer.json()
    return value


def set_device(name: str, max_executors: int | None) -> Operation[dict[str, Any]]:
    """Set how many executors a device runs concurrently (None: as configured); return the device."""
    body = encode({"max_executors": max_executors})
    call = HttpCall(
        "PATCH", f"/v1/devices/{quote(name, safe='')}", body=body, headers={"Content-Type": JSON_TYPE}
    )
    answer = yield from send_call(call)
    value: dict[str, Any] = answer.json()
    return value


def reload_handlers() -> Operation[dict[str, Any]]:
    """Find and describe the handlers again; return the changes. The server replies within 60 s."""
    answer = yield from send_call(post_call("/v1/handlers/reload", None, timeout_s=90.0))
    value: dict[str, Any] = answer.json()
    return value


def get_file(job_id: str, name: str) -> Operation[bytes]:
    """Return the bytes of a file that the job saved."""
    path = _job(job_id, f"/files/{quote(name, safe='')}")
    answer = yield from send_call(HttpCall("GET", path, timeout_s=120.0))
    return answer.body


def get_readiness() -> Operation[dict[str, Any]]:
    """Return the document of /readyz, whether the server is ready (200) or not (503)."""
    answer: HttpResponse | None = yield HttpCall("GET", "/readyz")
    value = answer.json() if answer is not None else None
    if not isinstance(value, dict):
        raise RunnerError("/readyz of the server did not return a JSON object")
    return value


def _job(job_id: str, below: str = "") -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}{below}"


def _wait_bounds(left_s: float | None) -> tuple[dict[str, str], float]:
    """Return the header that asks the server to delay its reply, and the read timeout in seconds.

    The header has whole seconds only; if it is rounded up, the read timeout ends the wait.
    """
    if left_s is None or left_s >= WAIT_S:
        return {"Prefer": f"wait={WAIT_S}"}, WAIT_S + 15.0
    if left_s <= 0:
        return {}, 15.0
    return {"Prefer": f"wait={math.ceil(left_s)}"}, left_s + 0.2


def _timeout_error(job_id: str) -> TimeoutError:
    return TimeoutError(f"timed out waiting for job {job_id}; the job continues")


def _bulk_parts(texts: Iterable[bytes]) -> Iterable[list[bytes]]:
    part: list[bytes] = []
    size = 0
    for text in texts:
        if part and (len(part) == BULK_JOBS or size + len(text) > BULK_BYTES):
            yield part
            part, size = [], 0
        part.append(text)
        size += len(text) + 1
    if part:
        yield part


def _params(filters: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in filters.items():
        if value is None:
            continue
        if name == "input":
            for path, wanted in value.items():
                yield f"input.{path}", wanted if isinstance(wanted, str) else json.dumps(wanted)
        elif isinstance(value, (list, tuple, set, frozenset)):
            yield from ((name, str(entry)) for entry in value)
        else:
            yield name, rfc3339_text(value) if isinstance(value, (datetime, float)) else str(value)
