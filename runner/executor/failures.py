"""Effect: classifies exceptions of user code by their frames and the clock."""

from __future__ import annotations

import os
import sys
import time
import traceback
from typing import Any, NamedTuple

from runner.bounds import NAME_CHARS_MAX
from runner.executor.context import ChunkTooLarge
from runner.executor.result_errors import ResultTooLarge
from runner.formats import strict_json
from runner.handlers.exceptions import JobCancelled, PermanentError, Retry
from runner.jobs.job import CONTEXT_LOST

#: Longest traceback in an error's detail; its end is kept.
TRACEBACK_MAX_BYTES = 16 * 1024
#: Longest message of an error in characters; its beginning is kept.
MESSAGE_MAX = 4 * 1024
#: Texts of errors after which, as NVIDIA documents, the CUDA context of the process is lost.
CONTEXT_LOST_TEXTS = (
    "an illegal memory access",
    "illegal instruction",
    "misaligned address",
    "device-side assert",
    "unspecified launch failure",
    "uncorrectable ecc",
    "hardware stack error",
    "invalid program counter",
    # Errors that programs get from a device that hangs or is gone.
    "launch timed out",
    "hardware error",
    "busy or unavailable",
    "unknown error",
)
#: Texts of RuntimeErrors of torch and cuBLAS that mean a full device.
_OUT_OF_MEMORY = ("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
_OWN_CODE = os.path.dirname(os.path.dirname(__file__)) + os.sep


class InvalidInput(Exception):
    """The input does not match the annotation of the handler's parameter.

    `errors` has one entry for each place in the input: `pointer`, a JSON pointer, and `message`.
    """

    def __init__(self, errors: list[dict[str, str]]) -> None:
        super().__init__("; ".join(f"{one['pointer'] or '/'}: {one['message']}" for one in errors[:3]))
        self.errors = errors


class AttemptFailure(NamedTuple):
    """The end of an attempt that did not succeed; its fields are those of `worker_protocol.AttemptEnded`."""

    code: str
    message: str
    detail: dict[str, Any] | None = None
    retryable: bool = True
    #: UTC epoch seconds, from `Retry`.
    retry_at: float | None = None
    #: The process must not run another attempt.
    is_fatal: bool = False


def classify(error: BaseException) -> AttemptFailure:
    """Return the failure for an exception of user code; its `code` is one of `job.ErrorCode`.

    A raised SystemExit has no failure, as it ends the process. The failure is fatal if the process has lost
    its CUDA context.
    """
    if isinstance(error, JobCancelled) and not isinstance(error, Exception):
        return AttemptFailure("cancelled", _text_of(error) or "cancelled", retryable=False)
    if isinstance(error, Retry):
        return _classify_retry(error)
    if isinstance(error, PermanentError):
        return AttemptFailure("permanent_error", _text_of(error), _detail_of(error), retryable=False)
    if isinstance(error, InvalidInput):
        return AttemptFailure("invalid_input", _text_of(error), {"errors": error.errors}, retryable=False)
    if isinstance(error, strict_json.NotSerialisable):
        return AttemptFailure("result_not_serialisable", _text_of(error), retryable=False)
    if isinstance(error, (ResultTooLarge, ChunkTooLarge)):
        return AttemptFailure("result_too_large", _text_of(error), retryable=False)
    message = _titled_text(error)
    if is_out_of_device_memory(error):
        return AttemptFailure("device_out_of_memory", message, _detail_of(error))
    if isinstance(error, MemoryError):
        return AttemptFailure("memory_exceeded", message, _detail_of(error))
    if is_context_lost(error):
        return AttemptFailure(
            "handler_error", message, {**_detail_of(error), CONTEXT_LOST: True}, is_fatal=True
        )
    return AttemptFailure("handler_error", message, _detail_of(error))


def _classify_retry(error: Retry) -> AttemptFailure:
    """Return the failure for a `Retry`.

    An invalid delay or time is a bug in the handler: the message says so, and the handler's backoff decides.
    """
    message = _text_of(error) or "the handler asks for a retry"
    try:
        return AttemptFailure("handler_error", message, retry_at=error.earliest(time.time()))
    except Exception as mistake:
        # The time zone of the value and subclasses of Retry are user code.
        return AttemptFailure("handler_error", f"{message} ({_titled_text(mistake)})", _detail_of(error))


def is_out_of_device_memory(error: BaseException) -> bool:
    """Return whether a device ran out of memory; recognised by name and text, without importing torch."""
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(sign in _text_of(error) for sign in _OUT_OF_MEMORY)


def is_context_lost(error: BaseException) -> bool:
    """Return whether the process has lost its CUDA context and can't use its GPU any more."""
    text = _text_of(error).lower()
    return "cuda" in text and any(sign in text for sign in CONTEXT_LOST_TEXTS)


def classify_load_error(error: BaseException) -> AttemptFailure:
    """Return the failure for an exception of import or load: `device_out_of_memory` or `load_error`."""
    code = "device_out_of_memory" if is_out_of_device_memory(error) else "load_error"
    message = _titled_text(error)
    detail = _detail_of(error)
    return AttemptFailure(code, message, {**detail, CONTEXT_LOST: True} if is_context_lost(error) else detail)


def format_traceback(error: BaseException) -> str:
    """Return the last 16 KiB of the traceback as Python prints it, without the runner's frames at its top."""
    at = error.__traceback__
    while at is not None and at.tb_frame.f_code.co_filename.startswith((_OWN_CODE, "<frozen importlib")):
        at = at.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, at))
    except Exception as second:
        # The exception's own text can't be built.
        text = f"{type(error).__name__} (its traceback can't be printed: {type(second).__name__})\n"
    data = text.encode("utf-8", "replace")
    return data[-TRACEBACK_MAX_BYTES:].decode("utf-8", "ignore")


def clear_frames(error: BaseException) -> None:
    """Clear the frames that an exception and its causes reference, and with them the user's local variables.

    Else tensors in these variables would hold device memory as long as the exception lives.
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        at = pending.pop()
        if at is None or id(at) in seen:
            continue
        seen.add(id(at))
        if at.__traceback__ is not None:
            traceback.clear_frames(at.__traceback__)
            at.__traceback__ = None
        pending += [at.__cause__, at.__context__, *getattr(at, "exceptions", ())]


def empty_device_cache() -> None:
    """Return unused blocks of torch's cache to the device, if torch is imported and initialised.

    A failure is printed to standard error.
    """
    import gc

    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None:
        return
    try:
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
    except RuntimeError as error:
        print(f"torch's cache of device memory could not be emptied: {error}", file=sys.stderr)


def _detail_of(error: BaseException) -> dict[str, Any]:
    """Return the type and the traceback of an exception, as `error.detail` of the job has them."""
    name = strict_json.replace_surrogates(type(error).__qualname__)[:NAME_CHARS_MAX]
    return {"type": name, "traceback": format_traceback(error)}


def _titled_text(error: BaseException) -> str:
    """Return the name and the text of an exception: `ValueError: no such colour`."""
    name = strict_json.replace_surrogates(type(error).__name__)[:NAME_CHARS_MAX]
    return f"{name}: {_text_of(error)}".removesuffix(": ")


def _text_of(error: BaseException) -> str:
    """Return the text of an exception as valid Unicode; its `__str__` is user code and may raise."""
    try:
        return strict_json.replace_surrogates(str(error))[:MESSAGE_MAX]
    except Exception:
        return "(its text can't be made)"
