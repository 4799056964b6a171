"""Effect: routes of existing jobs: show, cancel, retry and delete them."""

from __future__ import annotations

import asyncio
import os
import re
import time
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from api.http.body import read_optional_object
from api.http.problems import Fault, fault, raise_invalid, reply_response, status_response
from api.http.query_params import allow_query, parse_job_query, prefer_wait_s
from api.routes.state import FrontState
from runner.bounds import REASON_CHARS_MAX
from runner.errors import NotFound
from runner.protocol import front as front_protocol

#: Largest size of a file reference; a larger output is not parsed to find one.
_REFERENCE_BYTES = 8192
#: Media types that a browser gets as declared; all others are sent as plain bytes.
_SAFE_TYPE = re.compile(
    r"(image/(png|jpeg|gif|webp|bmp|tiff)|(audio|video)/[a-z0-9.+-]+|text/(plain|csv)"
    r"|application/(json|pdf|zip|gzip|x-ndjson|octet-stream))"
)
_FILE_URL = re.compile(r"/v1/jobs/[0-9a-f-]{36}/files/[A-Za-z0-9._~%-]+")

Action = Literal["cancel", "retry", "delete"]
JobDocumentName = Literal["explain", "attempts", "files"]


class JobRoutes:
    """Routes under /v1/jobs that do not create jobs."""

    def __init__(self, front: FrontState) -> None:
        self._front = front

    async def list_jobs(self, request: Request) -> Response:
        """List the jobs that match all filters, one page at a time."""
        query = parse_job_query(request, now=time.time())
        return reply_response(await self._front.coordinator.request_reply(front_protocol.ListJobs(0, query)))

    async def get(self, request: Request) -> Response:
        """Get a job; with `Prefer: wait=N` wait until it has ended, N seconds at most."""
        allow_query(request)
        wait = prefer_wait_s(request)
        message = front_protocol.GetJob(0, request.path_params["job_id"], wait or None)
        answer = await self._front.send_and_wait(request, message, wait or 0)
        assert isinstance(answer, front_protocol.Reply)
        return reply_response(answer, None if wait is None else {"preference-applied": f"wait={wait}"})

    async def delete(self, request: Request) -> Response:
        """Delete a job that is not running, with its events and files."""
        await self._require_no_body(request)
        return await self._apply_action(request, "delete")

    async def retry(self, request: Request) -> Response:
        """Run an ended job again under the same id."""
        await self._require_no_body(request)
        return await self._apply_action(request, "retry")

    async def cancel(self, request: Request) -> Response:
        """Cancel a job: 200 if it had not started, 202 while it is being stopped."""
        body = await self._read_options(request)
        reason, force = body.pop("reason", None), body.pop("force", None)
        faults = _unknown_fields(body)
        if reason is not None and not (isinstance(reason, str) and len(reason) <= REASON_CHARS_MAX):
            faults.append(fault("/reason", f"must be a string of at most {REASON_CHARS_MAX} characters"))
        if force is not None and not isinstance(force, bool):
            faults.append(fault("/force", "must be true or false"))
        if faults:
            raise_invalid(faults)
        return await self._apply_action(request, "cancel", reason, bool(force))

    async def explain(self, request: Request) -> Response:
        """Explain why the job waits, with the figures."""
        return await self._get_document(request, "explain")

    async def attempts(self, request: Request) -> Response:
        """List all attempts of the job."""
        return await self._get_document(request, "attempts")

    async def files(self, request: Request) -> Response:
        """List the files that the job has saved."""
        return await self._get_document(request, "files")

    async def output(self, request: Request) -> Response:
        """Get the output as JSON, or a redirect if the output is a single file."""
        allow_query(request)
        job_id = request.path_params["job_id"]
        reply = await self._front.coordinator.request_reply(front_protocol.GetDocument(0, "output", job_id))
        url = _file_url(job_id, reply.body) if reply.status == 200 else None
        if url is None:
            return reply_response(reply)
        return Response(reply.body, 303, {"location": url}, "application/json")

    async def file(self, request: Request) -> Response:
        """Get a file that the job saved, or a byte range of it."""
        allow_query(request)
        job_id, name = request.path_params["job_id"], request.path_params["file"]
        reply = await self._front.coordinator.request_reply(
            front_protocol.GetDocument(0, "file", job_id, name)
        )
        if reply.status != 200:
            return reply_response(reply)
        found = msgspec.json.decode(reply.body)
        record, path = found["file"], Path(found["path"])
        stat = await asyncio.to_thread(_stat_regular_file, path)
        if stat is None:
            raise NotFound(f"file {name!r} of job {job_id} no longer exists")
        declared_type = str(record.get("content_type", "")).partition(";")[0].strip().lower()
        media_type = declared_type if _SAFE_TYPE.fullmatch(declared_type) else "application/octet-stream"
        return _SavedFileResponse(
            path,
            media_type=media_type,
            filename=name,
            stat_result=stat,
            headers={"content-security-policy": "default-src 'none'; sandbox"},
        )

    async def _get_document(self, request: Request, document: JobDocumentName) -> Response:
        allow_query(request)
        message = front_protocol.GetDocument(0, document, request.path_params["job_id"])
        return reply_response(await self._front.coordinator.request_reply(message))

    async def _apply_action(
        self, request: Request, action: Action, reason: str | None = None, force: bool = False
    ) -> Response:
        message = front_protocol.JobAction(0, action, request.path_params["job_id"], reason, force)
        return reply_response(await self._front.coordinator.request_reply(message))

    async def _read_options(self, request: Request) -> dict[str, Any]:
        allow_query(request)
        config = self._front.config
        return await read_optional_object(
            request, max_bytes=config.body_max_bytes, depth_max=config.depth_max
        )

    async def _require_no_body(self, request: Request) -> None:
        faults = _unknown_fields(await self._read_options(request))
        if faults:
            raise_invalid(faults)


class _SavedFileResponse(FileResponse):
    """A file response whose range errors are problem documents."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = False

        async def guarded(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                refused = True
                kept = {"content-range": f"bytes */{self.stat_result.st_size}"} if self.stat_result else {}
                answer = status_response(
                    message["status"], "the Range header is not valid for this file", kept
                )
                await answer(scope, receive, send)
            elif not refused:
                await send(message)

        await super().__call__(scope, receive, guarded)


def _unknown_fields(body: dict[str, Any]) -> list[Fault]:
    return [fault(f"/{key[:100]}", "there is no such field") for key in body]


def _stat_regular_file(path: Path) -> os.stat_result | None:
    """Return the file's status; None if it does not exist or is not a regular file (such as a link)."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found if path.is_file() and not path.is_symlink() else None


def _file_url(job_id: str, output: bytes) -> str | None:
    """Return the URL of the file if the output is a single file reference; None otherwise."""
    if len(output) > _REFERENCE_BYTES or b'"$file"' not in output:
        return None
    value = msgspec.json.decode(output)
    if not isinstance(value, dict) or not isinstance(value.get("$file"), str):
        return None
    url, name = value.get("url"), value.get("name")
    # A handler may return an object that looks like a reference: never redirect outside this job's files.
    if isinstance(url, str) and _FILE_URL.fullmatch(url):
        return url
    return f"/v1/jobs/{job_id}/files/{quote(name, safe='')}" if isinstance(name, str) and name else None
