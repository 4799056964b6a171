"""Effect: routes that accept jobs: one, many at once, and by the handler's own path."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api.http.body import JobObject, check_object, parse_bulk, read_body, require_type
from api.http.problems import (
    JSON,
    Fault,
    JsonTextResponse,
    error_document,
    fault,
    raise_invalid,
    reply_response,
)
from api.http.query_params import allow_query, prefer_wait_s
from api.http.submission import parse_submission
from api.routes.state import FrontState
from api.validation.pool import RequestValidation
from runner.bounds import BULK_MAX
from runner.errors import RunnerError, Unavailable, ValidationFailed
from runner.jobs.ids import new_id
from runner.jobs.job import Submission
from runner.protocol import front as front_protocol

NDJSON = "application/x-ndjson"
#: Time after which the check of a bulk gives other requests a turn on the event loop.
_TURN_S = 0.005
#: Bounds on the validation in processes: of one job, and of all jobs of a bulk.
_VALIDATION_LIMIT_S = 1.0
_BULK_VALIDATION_LIMIT_S = 10.0


class CheckedJob(NamedTuple):
    """A job that the coordinator may be sent, and the warnings about its input."""

    submission: Submission
    warnings: list[str]


class SubmitRoutes:
    """POST /v1/jobs, /v1/jobs/bulk and /v1/handlers/{name}/jobs."""

    def __init__(self, front: FrontState) -> None:
        self._front = front

    async def submit(self, request: Request) -> Response:
        """Submit a job: 202, or 200 if it ended within the wait."""
        return await self._accept(request, await self._read_object(request))

    async def submit_to_handler(self, request: Request) -> Response:
        """Submit a job for the handler named by the path."""
        body = await self._read_object(request)
        if "handler" in body.fields:
            raise_invalid([fault("/handler", "the path already names the handler")])
        fields = {"handler": request.path_params["name"], **body.fields}
        return await self._accept(request, JobObject(fields, body.input_text))

    async def submit_bulk(self, request: Request) -> Response:
        """Submit up to 10,000 jobs; results are returned in order."""
        self._check_request(request)
        items: list[CheckedJob | bytes] = []
        validation = RequestValidation(self._front.validators, _BULK_VALIDATION_LIMIT_S)
        turn_ends_mono = time.monotonic() + _TURN_S
        async for item, at in self._read_items(request):
            items.append(await self._check_item(item, at, validation))
            if time.monotonic() > turn_ends_mono:
                await asyncio.sleep(0)
                turn_ends_mono = time.monotonic() + _TURN_S
        self._front.require_open()
        accepted = [item.submission for item in items if isinstance(item, CheckedJob)]
        results: list[dict[str, Any] | None] = []
        if accepted:
            reply = await self._front.coordinator.request_reply(
                front_protocol.SubmitJobs(0, accepted, bulk=True)
            )
            if reply.status >= 400:
                return reply_response(reply)
            results = msgspec.json.decode(reply.body)
            if len(results) != len(accepted):
                raise Unavailable("the coordinator's reply has the wrong number of results")
        return JsonTextResponse(self._bulk_document(items, results), 202)

    def _check_request(self, request: Request) -> None:
        self._front.require_open()
        allow_query(request)
        if "idempotency-key" in request.headers:
            raise_invalid([fault("/Idempotency-Key", "this version does not support Idempotency-Key")])

    async def _read_object(self, request: Request) -> JobObject:
        self._check_request(request)
        config = self._front.config
        require_type(request, JSON)
        text = await read_body(request, config.body_max_bytes)
        body = check_object(text, config.depth_max)
        if isinstance(body, list):
            raise_invalid(body)
        return body

    async def _accept(self, request: Request, body: JobObject) -> Response:
        validation = RequestValidation(self._front.validators, _VALIDATION_LIMIT_S)
        checked = await self._check_job(body, "", validation)
        if isinstance(checked, list):
            raise_invalid(checked)
        submission, warnings = checked
        self._front.require_open()
        wait = prefer_wait_s(request)
        answer = await self._front.send_and_wait(
            request, front_protocol.SubmitJobs(0, [submission], wait or None), wait or 0
        )
        assert isinstance(answer, front_protocol.Reply)
        headers = {"location": f"/v1/jobs/{submission.id}"}
        if wait is not None:
            headers["preference-applied"] = f"wait={wait}"
        if warnings and answer.status < 400:
            answer.body = _with_warnings(answer.body, warnings)
        return reply_response(answer, headers)

    async def _check_job(
        self, body: JobObject, at: str, validation: RequestValidation
    ) -> CheckedJob | list[Fault]:
        """Return the submission of a job and the warnings about its input, or the faults.

        Raises:
            RunnerError: the handler is not usable, or the input can't be validated now.
        """
        submission = parse_submission(body.fields, new_id(), at, now=time.time())
        if isinstance(submission, list):
            return submission
        catalog = self._front.catalog
        handler = catalog.find_usable(submission.handler) or await catalog.resolve(
            submission.handler, self._front.coordinator
        )
        faults = handler.check_options(submission, at)
        if faults:
            return faults
        if body.input_text is None:
            value = body.fields.get("input")
            found = await handler.accept_input(submission, value, f"{at}/input", validation)
        else:
            # The job's own object is one level of the depth.
            depth_max = self._front.config.depth_max - 1
            found = await handler.accept_text(
                submission, body.input_text, depth_max, f"{at}/input", validation
            )
        return found.faults or CheckedJob(submission, found.warnings)

    async def _check_item(
        self, item: JobObject | list[Fault], at: str, validation: RequestValidation
    ) -> CheckedJob | bytes:
        """Return one job of a bulk request, or the problem as JSON text."""
        try:
            checked = item if isinstance(item, list) else await self._check_job(item, at, validation)
            if isinstance(checked, list):
                raise _validation_error(checked)
        except RunnerError as error:
            return error_document(error)
        return checked

    async def _read_items(self, request: Request) -> AsyncIterator[tuple[JobObject | list[Fault], str]]:
        """Yield each job's object (or its faults) and the pointer to it."""
        config = self._front.config
        media_type = require_type(request, JSON, NDJSON)
        text = await read_body(request, config.bulk_max_bytes)
        if media_type == NDJSON:
            lines = [line for line in text.split(b"\n") if line.strip()]
            del text
            _check_count(len(lines), "")
            for index, line in enumerate(lines):
                yield check_object(line, config.depth_max, f"/{index}"), f"/{index}"
            return
        # The list and its envelope add two levels to the depth of a single job.
        jobs = parse_bulk(text, config.depth_max + 2)
        del text
        _check_count(len(jobs), "/jobs")
        for index, job in enumerate(jobs):
            at = f"/jobs/{index}"
            if isinstance(job, msgspec.Raw):
                yield check_object(bytes(job), config.depth_max, at), at
            else:
                yield JobObject(job) if isinstance(job, dict) else [fault(at, "must be an object")], at

    def _bulk_document(self, items: list[CheckedJob | bytes], results: list[dict[str, Any] | None]) -> bytes:
        rows: list[bytes] = []
        index = 0
        for item in items:
            if isinstance(item, bytes):
                rows.append(item)
                continue
            result = results[index]
            index += 1
            if result is not None:
                rows.append(_problem_json(result))
                continue
            accepted = self._accepted_json(item.submission)
            rows.append(_with_warnings(accepted, item.warnings) if item.warnings else accepted)
        return b'{"jobs":[%s]}' % b",".join(rows)

    def _accepted_json(self, item: Submission) -> bytes:
        handler = self._front.catalog.find_usable(item.handler)
        queue = item.queue or (handler.spec.options.queue if handler is not None else "default")
        base = f"/v1/jobs/{item.id}"
        # Ids and names have no characters that JSON must escape.
        return (
            f'{{"id":"{item.id}","handler":"{item.handler}","queue":"{queue}","state":"queued",'
            f'"urls":{{"self":"{base}","events":"{base}/events","output":"{base}/output",'
            f'"attempts":"{base}/attempts","cancel":"{base}/cancel"}}}}'
        ).encode()


def _with_warnings(document: bytes, warnings: list[str]) -> bytes:
    """Return the JSON text of a job's object with the list `warnings` at its end."""
    return b'%s,"warnings":%s}' % (document[:-1], msgspec.json.encode(warnings))


def _problem_json(result: dict[str, Any]) -> bytes:
    status = result.get("status", 422)
    code = result.get("code", "refused")
    return msgspec.json.encode(
        {"title": "Refused", "detail": "", **result, "type": f"urn:runner:problem:{code}", "status": status}
    )


def _check_count(count: int, at: str) -> None:
    if count > BULK_MAX:
        raise_invalid([fault(at, f"{count} jobs exceed the limit of {BULK_MAX} per request")])


def _validation_error(faults: list[Fault]) -> ValidationFailed:
    return ValidationFailed(f"{faults[0]['pointer']}: {faults[0]['message']}", errors=faults)
