"""Pure: everything that can be asked of a server, as operations that a shell performs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypedDict
from urllib.parse import quote

from runner.client.cancelled import CancelledJob
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
from runner.errors import JobFailed, NoServer, RunnerError, Unavailable
from runner.formats.units import parse_bytes, parse_seconds

#: One wait; the server takes up to 300 s, but a shorter one notices a dead link sooner.
WAIT_S = 60
#: Bounds of one bulk request; the server's own are 10,000 jobs and 64 MiB.
BULK_JOBS = 10_000
BULK_BYTES = 32 << 20
#: Above this a job's document may leave the output out.
INLINE_BYTES = 64 << 10

#: An answer within this time was not held back.
NO_WAIT_S = 0.05

Clock = Callable[[], float]


class JobOptions(TypedDict, total=False):
    """What a submit may ask for, beside the input; what is not given is the handler's own."""

    queue: str
    #: 0 to 100, higher first, or "critical", "high", "normal", "low".
    priority: int | str
    #: Longest run: seconds or "5m".
    timeout: float | str
    #: Longest wait before the start.
    queue_timeout: float | str
    #: Not before this moment (UTC where no zone is given).
    run_at: datetime | str | float
    #: Not before so much time has passed.
    delay: float | str
    retries: int
    #: Seconds, a list of seconds, or `{kind, base_s, max_s, jitter}`.
    backoff: float | list[float] | dict[str, Any]
    #: Peak device memory: bytes or "6GiB".
    vram: int | str
    #: For whom it is: devices are shared between tenants by their weights.
    tenant: str
    tags: list[str]
    metadata: dict[str, Any]


def rfc3339_text(value: datetime | str | float) -> str:
    """RFC 3339 text of a point in time; a naive one is UTC."""
    if isinstance(value, str):
        return value
    if isinstance(value, datetime):
        at = value if value.tzinfo else value.replace(tzinfo=UTC)
    else:
        at = datetime.fromtimestamp(value, UTC)
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def submit_body(handler: str, data: object, options: JobOptions) -> dict[str, Any]:
    """The body of a submit."""
    unknown = set(options) - set(JobOptions.__annotations__)
    if unknown:
        raise TypeError(f"submit() has no option {', '.join(sorted(unknown))}")
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    body: dict[str, Any] = {"handler": handler}
    if data is not None:
        body["input"] = data
    for name in ("timeout", "queue_timeout", "delay"):
        if name in given:
            body[f"{name}_s"] = parse_seconds(given.pop(name))
    if "run_at" in given:
        body["run_at"] = rfc3339_text(given.pop("run_at"))
    if "vram" in given:
        body["vram"] = parse_bytes(given.pop("vram"))
    if isinstance(given.get("tags"), tuple):
        given["tags"] = list(given["tags"])
    return body | given


def submit(body: dict[str, Any]) -> Operation[Job]:
    """Hand in one job; it is durable when this returns."""
    answer = yield from send_call(post_call("/v1/jobs", body))
    return Job(answer.json())


def submit_many(bodies: Sequence[dict[str, Any]]) -> Operation[list[str]]:
    """Hand in many; ids in the order given. Raises for the first that was refused; its `detail` has
    the `index` and the `accepted_ids` of the others."""
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
    """Hand in one job and return its output, in one round trip where the job is short."""
    until = None if timeout_s is None else clock() + timeout_s
    # Whole seconds only, and no cut from this side: without an answer the job's id would be lost.
    wait_s = WAIT_S if timeout_s is None else min(WAIT_S, int(timeout_s))
    prefer = {"Prefer": f"wait={wait_s}"} if wait_s > 0 else {}
    answer = yield from send_call(post_call("/v1/jobs", body, headers=prefer, timeout_s=wait_s + 15.0))
    job = Job(answer.json())
    if not job.ended:
        job = yield from wait(job.id, until=until, clock=clock, known=True)
    return (yield from read_outcome(job))


def get(job_id: str) -> Operation[Job]:
    """The job as it is now."""
    answer = yield from send_call(HttpCall("GET", _job(job_id)))
    return Job(answer.json())


def wait(job_id: str, *, until: float | None, clock: Clock, known: bool) -> Operation[Job]:
    """The job once it has ended. `until` is on `clock`; `known`: the server has answered before, so a
    restart of it is waited out.

    Raises:
        TimeoutError: the time is over and the job goes on.
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
    """The job's output once it has ended; raises as `outcome` does."""
    until = None if timeout_s is None else clock() + timeout_s
    job = yield from wait(job_id, until=until, clock=clock, known=known)
    return (yield from read_outcome(job))


def read_outcome(job: Job) -> Operation[Any]:
    """What an ended job gives.

    Raises:
        JobFailed: with the job's error.
        JobCancelled: (the class of the same name of handlers catches it) with its reason.
    """
    if job.state != "succeeded":
        error = job.error or {"code": job.reason, "message": "no error was recorded"}
        raise (CancelledJob if job.state == "cancelled" else JobFailed)(job.id, error)
    if job.output is None and int(job.get("output_bytes") or 0) > INLINE_BYTES:
        answer = yield from send_call(HttpCall("GET", _job(job.id, "/output"), timeout_s=120.0))
        return answer.json()
    return job.output


def results(ids: Sequence[str], *, timeout_s: float | None, clock: Clock) -> Operation[list[Any]]:
    """The outputs of these jobs, in their order; the first that did not succeed raises."""
    until = None if timeout_s is None else clock() + timeout_s
    wanted = set(ids)
    found: dict[str, Job] = {}
    outputs: list[Any] = []
    for job_id in ids:
        if job_id not in found:
            asked_at = clock()
            found[job_id] = yield from wait(job_id, until=until, clock=clock, known=True)
            # It had ended already, so its neighbours probably have: a page tells 500 of them at once.
            if clock() - asked_at < NO_WAIT_S and len(outputs) < len(ids) - 1:
                yield from _collect_ended(found[job_id], wanted, found)
        outputs.append((yield from read_outcome(found.pop(job_id))))
    return outputs


def _collect_ended(first: Job, wanted: set[str], found: dict[str, Job]) -> Operation[None]:
    """Add the ended ones of `wanted` that came in with `first`, page by page while there are some."""
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
    """Jobs that match, newest first unless `order` says else; `limit` None fetches all pages."""
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


def cancel(job_id: str, reason: str | None) -> Operation[Job]:
    """Ask for a cancel; a running job ends a little later."""
    answer = yield from send_call(post_call(_job(job_id, "/cancel"), {"reason": reason} if reason else {}))
    return Job(answer.json())


def retry(job_id: str) -> Operation[Job]:
    """Queue an ended job again, under the same id."""
    answer = yield from send_call(post_call(_job(job_id, "/retry"), {}))
    return Job(answer.json())


def delete(job_id: str) -> Operation[None]:
    """Remove a job that does not run, with its events and files."""
    yield from send_call(HttpCall("DELETE", _job(job_id)))


def get_document(path: str) -> Operation[Any]:
    """The JSON document at a path below `/v1`, without the envelope of a list."""
    answer = yield from send_call(HttpCall("GET", f"/v1/{path}"))
    value = answer.json()
    return value["data"] if isinstance(value, dict) and isinstance(value.get("data"), list) else value


def get_job_document(job_id: str, what: str) -> Operation[Any]:
    """One of the documents below a job: `explain` or `attempts`."""
    return (yield from get_document(f"jobs/{quote(job_id, safe='')}/{what}"))


def set_queue(name: str, verb: str) -> Operation[dict[str, Any]]:
    """Pause or resume a queue."""
    answer = yield from send_call(post_call(f"/v1/queues/{quote(name, safe='')}/{verb}", None))
    value: dict[str, Any] = answer.json()
    return value


def drain_device(name: str, verb: str) -> Operation[dict[str, Any]]:
    """Drain or resume a device."""
    answer = yield from send_call(post_call(f"/v1/devices/{quote(name, safe='')}/{verb}", None))
    value: dict[str, Any] = answer.json()
    return value


def set_device(name: str, max_executors: int | None) -> Operation[dict[str, Any]]:
    """Say how many executors a device runs at once; None: what the settings say."""
    body = encode({"max_executors": max_executors})
    call = HttpCall(
        "PATCH", f"/v1/devices/{quote(name, safe='')}", body=body, headers={"Content-Type": JSON_TYPE}
    )
    answer = yield from send_call(call)
    value: dict[str, Any] = answer.json()
    return value


def reload_handlers() -> Operation[dict[str, Any]]:
    """Have the server find and describe its handlers anew; it answers after 60 s at the latest."""
    answer = yield from send_call(post_call("/v1/handlers/reload", None, timeout_s=90.0))
    value: dict[str, Any] = answer.json()
    return value


def get_file(job_id: str, name: str) -> Operation[bytes]:
    """The bytes of a file that the job saved."""
    path = _job(job_id, f"/files/{quote(name, safe='')}")
    answer = yield from send_call(HttpCall("GET", path, timeout_s=120.0))
    return answer.body


def get_readiness() -> Operation[dict[str, Any]]:
    """What /readyz says, whether the server is ready or not."""
    answer: HttpResponse | None = yield HttpCall("GET", "/readyz")
    value = answer.json() if answer is not None else None
    if not isinstance(value, dict):
        raise RunnerError("the server's /readyz did not answer with a document")
    return value


def _job(job_id: str, below: str = "") -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}{below}"


def _wait_bounds(left_s: float | None) -> tuple[dict[str, str], float]:
    """The header that asks the server to hold its answer, and the longest silence to bear.

    The header knows whole seconds only; where it is rounded up, the silence is what ends the wait."""
    if left_s is None or left_s >= WAIT_S:
        return {"Prefer": f"wait={WAIT_S}"}, WAIT_S + 15.0
    if left_s <= 0:
        return {}, 15.0
    return {"Prefer": f"wait={math.ceil(left_s)}"}, left_s + 0.2


def _timeout_error(job_id: str) -> TimeoutError:
    return TimeoutError(f"job {job_id} has not ended in the time given; it goes on")


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
