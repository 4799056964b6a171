"""Effect: tells what an exception of user code means for its attempt, by its frames and the clock."""

from __future__ import annotations

import os
import sys
import time
import traceback
from typing import Any, NamedTuple

from runner.executor.context import ChunkTooLarge
from runner.formats import strict_json
from runner.handlers.exceptions import JobCancelled, PermanentError, Retry
from runner.jobs.job import CONTEXT_LOST

TRACEBACK_MAX_BYTES = 16 * 1024
MESSAGE_MAX = 4 * 1024
#: After one of these the CUDA context of the process is gone for good, by NVIDIA's word.
STICKY = (
    "an illegal memory access",
    "illegal instruction",
    "misaligned address",
    "device-side assert",
    "unspecified launch failure",
    "uncorrectable ecc",
    "hardware stack error",
    "invalid program counter",
    # What programs see of a device that hangs or is gone.
    "launch timed out",
    "hardware error",
    "busy or unavailable",
    "unknown error",
)
_OUT_OF_MEMORY = ("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep


class InvalidInput(Exception):
    """The input does not have the form that the handler's parameter asks for."""

    def __init__(self, errors: list[dict[str, str]]) -> None:
        super().__init__("; ".join(f"{one['pointer'] or '/'}: {one['message']}" for one in errors[:3]))
        self.errors = errors


class ResultTooLarge(Exception):
    """The output, or what a generator has yielded so far, is over the limit."""


class Failure(NamedTuple):
    """How an attempt ends that did not succeed; the fields are those of `wire.Ended`."""

    code: str
    message: str
    detail: dict[str, Any] | None = None
    retryable: bool = True
    #: UTC epoch seconds, from `Retry`.
    retry_at: float | None = None
    #: The process must not run anything any more.
    is_fatal: bool = False


def of(error: BaseException) -> Failure:
    """The failure that an exception stands for. SystemExit is none: the process really ends."""
    if isinstance(error, JobCancelled) and not isinstance(error, Exception):
        return Failure("cancelled", _text(error) or "cancelled", retryable=False)
    if isinstance(error, Retry):
        return _asked_again(error)
    if isinstance(error, PermanentError):
        return Failure("permanent_error", _text(error), _detail(error), retryable=False)
    if isinstance(error, InvalidInput):
        return Failure("invalid_input", _text(error), {"errors": error.errors}, retryable=False)
    if isinstance(error, strict_json.NotSerialisable):
        return Failure("result_not_serialisable", _text(error), retryable=False)
    if isinstance(error, (ResultTooLarge, ChunkTooLarge)):
        return Failure("result_too_large", _text(error), retryable=False)
    message = f"{type(error).__name__}: {_text(error)}".removesuffix(": ")
    if is_device_memory(error):
        return Failure("device_out_of_memory", message, _detail(error))
    if isinstance(error, MemoryError):
        return Failure("memory_exceeded", message, _detail(error))
    if is_sticky(error):
        return Failure("handler_error", message, {**_detail(error), CONTEXT_LOST: True}, is_fatal=True)
    return Failure("handler_error", message, _detail(error))


def _asked_again(error: Retry) -> Failure:
    """The failure of a handler that asks for a retry. One that asks for what can't be is a mistake in its
    code like any other: it is told so, and its backoff decides."""
    message = _text(error) or "the handler asks for a retry"
    try:
        return Failure("handler_error", message, retry_at=error.earliest(time.time()))
    except Exception as mistake:
        # A time's zone and a subclass of Retry are user code.
        why = f"{type(mistake).__name__}: {_text(mistake)}"
        return Failure("handler_error", f"{message} ({why})", _detail(error))


def is_device_memory(error: BaseException) -> bool:
    """Whether a device ran out of memory, told without importing torch."""
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(sign in _text(error) for sign in _OUT_OF_MEMORY)


def is_sticky(error: BaseException) -> bool:
    """Whether the process can't use its GPU any more."""
    text = _text(error).lower()
    return "cuda" in text and any(sign in text for sign in STICKY)


def load_failure(error: BaseException) -> Failure:
    """What a failed import or load means."""
    code = "device_out_of_memory" if is_device_memory(error) else "load_error"
    message = f"{type(error).__name__}: {_text(error)}".removesuffix(": ")
    detail = _detail(error)
    return Failure(code, message, {**detail, CONTEXT_LOST: True} if is_sticky(error) else detail)


def trace(error: BaseException) -> str:
    """The traceback as Python prints it, without our own frames at its top; its last 16 KiB."""
    at = error.__traceback__
    while at is not None and at.tb_frame.f_code.co_filename.startswith((_OURS, "<frozen importlib")):
        at = at.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, at))
    except Exception as second:
        # An exception whose own text can't be made.
        text = f"{type(error).__name__} (its traceback can't be printed: {type(second).__name__})\n"
    data = text.encode("utf-8", "replace")
    return data[-TRACEBACK_MAX_BYTES:].decode("utf-8", "ignore")


def let_go(error: BaseException) -> None:
    """Drop the frames that an exception holds, and with them whatever the user's locals hold."""
    seen: set[int] = set()
    ahead: list[BaseException | None] = [error]
    while ahead:
        at = ahead.pop()
        if at is None or id(at) in seen:
            continue
        seen.add(id(at))
        if at.__traceback__ is not None:
            traceback.clear_frames(at.__traceback__)
            at.__traceback__ = None
        ahead += [at.__cause__, at.__context__, *getattr(at, "exceptions", ())]


def empty_device_cache() -> None:
    """Give unused blocks back to the device, if torch is there at all."""
    import gc

    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None:
        return
    try:
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
    except RuntimeError as error:
        print(f"the device's cache could not be emptied: {error}", file=sys.stderr)


def _detail(error: BaseException) -> dict[str, Any]:
    return {"type": type(error).__qualname__, "traceback": trace(error)}


def _text(error: BaseException) -> str:
    try:
        return strict_json.replace_surrogates(str(error))[:MESSAGE_MAX]
    except Exception:
        return "(its text can't be made)"
