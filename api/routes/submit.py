"""Effect: routes that accept jobs: one, many at once, and by the handler's own path."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api.http.body import CheckedJson, check_json, parse_json, read_body, read_json, require_type
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
from runner.errors import RunnerError, Unavailable, ValidationFailed
from runner.jobs.ids import new_id
from runner.jobs.job import Submission
from runner.protocol import front as front_protocol

NDJSON = "application/x-ndjson"
BULK_MAX = 10_000
#: Items checked before other requests get a turn on the event loop.
_ITEMS_PER_TURN = 200

BulkItem = Submission | bytes


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
        if "handler" in body:
            raise_invalid([fault("/handler", "the path already names the handler")])
        return await self._accept(request, {"handler": request.path_params["name"], **body})

    async def submit_bulk(self, request: Request) -> Response:
        """Submit up to 10,000 jobs; results are returned in order."""
        self._check_request(request)
        items: list[BulkItem] = []
        async for value, at in self._read_items(request):
            items.append(await self._check_item(value, at))
            if len(items) % _ITEMS_PER_TURN == 0:
                await asyncio.sleep(0)
        self._front.require_open()
        accepted = [item for item in items if isinstance(item, Submission)]
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

    async def _read_object(self, request: Request) -> dict[str, Any]:
        self._check_request(request)
        config = self._front.config
        body = await read_json(request, max_bytes=config.body_max_bytes, depth_max=config.depth_max)
        if not isinstance(body, dict):
            raise_invalid([fault("", "must be an object")])
        return body

    async def _accept(self, request: Request, body: dict[str, Any]) -> Response:
        submission = parse_submission(body, new_id(), now=time.time())
        if isinstance(submission, list):
            raise_invalid(submission)
        faults = await self._input_faults(submission, body.get("input"), "/input")
        if faults:
            raise_invalid(faults)
        self._front.require_open()
        wait = prefer_wait_s(request)
        answer = await self._front.send_and_wait(
            request, front_protocol.SubmitJobs(0, [submission], wait or None), wait or 0
        )
        assert isinstance(answer, front_protocol.Reply)
        headers = {"location": f"/v1/jobs/{submission.id}"}
        if wait is not None:
            headers["preference-applied"] = f"wait={wait}"
        return reply_response(answer, headers)

    async def _input_faults(self, submission: Submission, value: Any, at: str) -> list[Fault]:
        catalog = self._front.catalog
        handler = catalog.find_usable(submission.handler) or await catalog.resolve(
            submission.handler, self._front.coordinator
        )
        return handler.accept_input(submission, value, at)

    async def _check_item(self, value: CheckedJson | list[Fault], at: str) -> BulkItem:
        """Return one job of a bulk request: its submission, or the problem as JSON text."""
        try:
            if isinstance(value, list):
                raise _validation_error(value)
            if not isinstance(value.value, dict):
                raise _validation_error([fault(at, "must be an object")])
            submission = parse_submission(value.value, new_id(), at, now=time.time())
            if isinstance(submission, list):
                raise _validation_error(submission)
            faults = await self._input_faults(submission, value.value.get("input"), f"{at}/input")
            if faults:
                raise _validation_error(faults)
        except RunnerError as error:
            return error_document(error)
        return submission

    async def _read_items(self, request: Request) -> AsyncIterator[tuple[CheckedJson | list[Fault], str]]:
        """Yield each job's JSON value (or its faults) and the pointer to it."""
        config = self._front.config
        media_type = require_type(request, JSON, NDJSON)
        text = await read_body(request, config.bulk_max_bytes)
        if media_type == NDJSON:
            lines = [line for line in text.split(b"\n") if line.strip()]
            del text
            _check_count(len(lines), "")
            for index, line in enumerate(lines):
                yield check_json(line, config.depth_max, f"/{index}"), f"/{index}"
            return
        # The list and its envelope add two levels to the depth of a single job.
        body = parse_json(text, config.depth_max + 2)
        del text
        if not isinstance(body, dict) or not isinstance(body.get("jobs"), list):
            raise_invalid([fault("/jobs", "a list of jobs is required")])
        for key in body:
            if key == "run_id":
                raise_invalid([fault("/run_id", "not available in this version")])
            if key != "jobs":
                raise_invalid([fault(f"/{key[:100]}", "there is no such field")])
        _check_count(len(body["jobs"]), "/jobs")
        for index, value in enumerate(body["jobs"]):
            yield CheckedJson(value), f"/jobs/{index}"

    def _bulk_document(self, items: list[BulkItem], results: list[dict[str, Any] | None]) -> bytes:
        rows: list[bytes] = []
        index = 0
        for item in items:
            if isinstance(item, bytes):
                rows.append(item)
                continue
            result = results[index]
            index += 1
            rows.append(self._accepted_json(item) if result is None else _problem_json(result))
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
