"""Pure: every error as an RFC 9457 `application/problem+json` response with a stable `code`."""

from __future__ import annotations

import http
import math
from typing import Any, NoReturn

import msgspec
from starlette.responses import Response

from runner.errors import RunnerError, ValidationFailed
from runner.protocol.front import Reply

MEDIA_TYPE = "application/problem+json"
JSON = "application/json"
#: (code, title) of errors that the framework raises by status alone.
_BY_STATUS = {
    400: ("bad_request", "Bad request"),
    404: ("not_found", "Not found"),
    405: ("method_not_allowed", "Method not allowed"),
    413: ("payload_too_large", "Payload too large"),
    415: ("unsupported_media_type", "Unsupported media type"),
    416: ("range_not_satisfiable", "Range not satisfiable"),
    422: ("validation_error", "The request is not valid"),
}

#: Largest number of faults reported for one request.
FAULTS_MAX = 50

Fault = dict[str, str]


class JsonTextResponse(Response):
    """A response whose body is already JSON text."""

    media_type = JSON


def problem_document(status: int, code: str, title: str, detail: str, figures: dict[str, Any]) -> bytes:
    """Return the JSON text of an RFC 9457 problem; `figures` are further machine-readable members."""
    head = {
        "type": f"urn:runner:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
    }
    return msgspec.json.encode({**figures, **head})


def error_document(error: RunnerError) -> bytes:
    """Return the problem document of a `RunnerError`."""
    return problem_document(error.status, error.code, error.title, error.message, error.detail)


def error_response(error: RunnerError) -> Response:
    """Return the response for a `RunnerError`, with Retry-After if the error has `retry_after_s`."""
    headers = dict(error.detail.get("headers", {}))
    retry_after_s = error.detail.get("retry_after_s")
    if retry_after_s is not None:
        headers["retry-after"] = _whole_seconds(retry_after_s)
    figures = {key: value for key, value in error.detail.items() if key != "headers"}
    body = problem_document(error.status, error.code, error.title, error.message, figures)
    return Response(body, error.status, headers, MEDIA_TYPE)


def status_response(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Return the problem response for an error known only by its HTTP status."""
    phrase = http.HTTPStatus(status).phrase
    code, title = _BY_STATUS.get(status, (phrase.lower().replace(" ", "_"), phrase))
    return Response(problem_document(status, code, title, detail, {}), status, headers, MEDIA_TYPE)


def internal_error_response() -> Response:
    """Return the response for a bug of the server: no internals, since the log has the traceback."""
    detail = "Internal server error; see the server's log for details."
    return Response(
        problem_document(500, "internal_error", "Internal error", detail, {}), 500, media_type=MEDIA_TYPE
    )


def reply_document(reply: Reply) -> dict[str, Any]:
    """Return the members of a problem document for a coordinator's reply with status >= 400."""
    document = msgspec.json.decode(reply.body) if reply.body else {}
    code, title = _BY_STATUS.get(reply.status, ("error", http.HTTPStatus(reply.status).phrase))
    document.setdefault("code", code)
    document.setdefault("title", title)
    document.setdefault("detail", document["title"])
    return {**document, "type": f"urn:runner:problem:{document['code']}", "status": reply.status}


def reply_response(reply: Reply, headers: dict[str, str] | None = None) -> Response:
    """Return the response for a coordinator's reply: its JSON text unchanged, or its problem."""
    if reply.status == 204:
        return Response(status_code=204)
    if reply.status < 400:
        return JsonTextResponse(reply.body, reply.status, headers)
    extra = {} if reply.retry_after_s is None else {"retry-after": _whole_seconds(reply.retry_after_s)}
    return Response(msgspec.json.encode(reply_document(reply)), reply.status, extra, MEDIA_TYPE)


def fault(pointer: str, message: str) -> Fault:
    """Return one fault of a request; `pointer` is a JSON pointer into it, "" for the whole body."""
    return {"pointer": pointer, "message": message}


def raise_invalid(faults: list[Fault]) -> NoReturn:
    """Raise ValidationFailed with all faults of a request."""
    first = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    raise ValidationFailed(
        f"{first['pointer'] or 'body'}: {first['message']}{more}", errors=faults[:FAULTS_MAX]
    )


def _whole_seconds(seconds: float) -> str:
    return str(max(1, math.ceil(seconds)))
