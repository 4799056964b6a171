"""Pure: one HTTP request to the server, its response, and the error that a problem response means.

An operation is a generator: it yields an `HttpCall` (and is sent the `HttpResponse`) or a `Pause`, and
returns its value. A client performs it; if no response comes, the client throws `NoServer` into it.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import msgspec

from runner import errors
from runner.errors import RunnerError

T = TypeVar("T")
JSON_TYPE = "application/json"
_decode = msgspec.json.Decoder().decode

#: Error class by status, for a response whose code this client does not know (a newer server).
_BY_STATUS: dict[int, type[RunnerError]] = {
    400: errors.BadRequest,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.PayloadTooLarge,
    415: errors.UnsupportedMediaType,
    421: errors.WrongHost,
    422: errors.ValidationFailed,
    429: errors.TooManyRequests,
    503: errors.Unavailable,
}


@dataclass(frozen=True, slots=True)
class HttpCall:
    """One HTTP request to a path below the server's URL."""

    method: str
    path: str
    params: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Read timeout, in seconds: longest silence of the server.
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the operation continues."""

    seconds: float


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A complete response; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the JSON value of the body; raises `RunnerError` if it is not JSON from a runner server."""
        try:
            return _decode(self.body) if self.body else None
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise foreign_answer_error(self) from None


#: A generator that yields calls, is sent responses and returns a T.
Operation = Generator["HttpCall | Pause", "HttpResponse | None", T]


def send_call(call: HttpCall) -> Operation[HttpResponse]:
    """Return the response to one call; raise the `RunnerError` that a problem response means."""
    answer = yield call
    if answer is None:
        raise RuntimeError("the client sent no response into the operation")
    if answer.status >= 400:
        raise_problem(answer)
    return answer


def encode(value: object) -> bytes:
    """Return the JSON text of a value that may contain pydantic models anywhere.

    Raises:
        ValueError: NaN, infinity or a lone surrogate, which JSON can't express.
        TypeError: the value contains an object that is not JSON.
    """
    return _encoder.encode(value).encode("utf-8")


def raise_problem(answer: HttpResponse) -> NoReturn:
    """Raise the error for a response with a status of 400 or above."""
    document = None
    if "json" in answer.headers.get("content-type", ""):
        document = answer.json()
    if not isinstance(document, dict):
        raise foreign_answer_error(answer)
    raise problem_error(document, answer.status, answer.headers.get("retry-after"))


def post_call(
    path: str, body: object, *, headers: dict[str, str] | None = None, timeout_s: float = 60.0
) -> HttpCall:
    """Return a POST with a JSON body; None sends no body. `timeout_s` is the read timeout."""
    if body is None:
        return HttpCall("POST", path, headers=headers or {}, timeout_s=timeout_s)
    sent = {"Content-Type": JSON_TYPE, **(headers or {})}
    return HttpCall("POST", path, body=encode(body), headers=sent, timeout_s=timeout_s)


def problem_error(
    document: Mapping[str, Any], status: int = 0, retry_after: str | None = None
) -> RunnerError:
    """Return the `RunnerError` for an RFC 9457 problem document.

    The class is chosen by the document's `code`, else by `status`. Further members become `detail`.
    `retry_after` is the header's text.
    """
    status = int(document.get("status") or status)
    code = str(document.get("code") or "")
    kind = _by_code().get(code) or _BY_STATUS.get(status, RunnerError)
    error = kind(_message(document, kind))
    error.detail = {key: value for key, value in document.items() if key not in ("type", "title", "status")}
    if retry_after is not None and retry_after.isdigit():
        error.detail.setdefault("retry_after_s", float(retry_after))
    return error


def foreign_answer_error(answer: HttpResponse) -> RunnerError:
    """Return the error for a response that does not come from a runner server."""
    start = answer.body[:80].decode("utf-8", "replace")
    return RunnerError(f"the response ({answer.status}) is not from a runner server: {start!r}")


def _dump_model(value: object) -> object:
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(f"{type(value).__name__} has no JSON form: {value!r}")
    return dump(mode="json")


#: Not msgspec's, which writes NaN as null. Made once: `json.dumps` makes one for every call.
_encoder = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_dump_model)


def _message(document: Mapping[str, Any], kind: type[RunnerError]) -> str:
    text = str(document.get("detail") or document.get("title") or kind.title)
    errors_ = document.get("errors")
    if not isinstance(errors_, list):
        return text
    parts = [f"{entry.get('pointer') or '/'}: {entry.get('message')}" for entry in errors_[:5]]
    return "; ".join([text.rstrip("."), *(part for part in parts if part not in text)])


def _by_code() -> dict[str, type[RunnerError]]:
    ended = set(_error_classes(errors.JobEnded))
    classes = [kind for kind in _error_classes(RunnerError) if kind not in ended]
    # Reversed: a class that shares the code of its base stands for it on the server alone.
    return {kind.code: kind for kind in reversed(classes)}


def _error_classes(kind: type[RunnerError]) -> Iterator[type[RunnerError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _error_classes(child)
