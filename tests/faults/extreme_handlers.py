"""Effect: a handler that makes any call of its context with any extreme value."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from runner import Context, PermanentError, Retry, handler
from tests.faults.extremes import python_values


def _log_at(ctx: Context, level: Any) -> None:
    logging.addLevelName(33, level)
    ctx.log.log(33, "x")


def _raise(error: BaseException) -> None:
    raise error


#: Name -> the call, with the context and the value.
CALLS: dict[str, Callable[[Context, Any], Any]] = {
    "return": lambda ctx, value: value,
    "return a list": lambda ctx, value: [1, {"a": value}],
    "output": lambda ctx, value: ctx.output(value),
    "progress: done": lambda ctx, value: ctx.progress(value),
    "progress: total": lambda ctx, value: ctx.progress(1, value),
    "progress: message": lambda ctx, value: ctx.progress(1, 2, value),
    "progress: details": lambda ctx, value: ctx.progress(1, 2, "m", x=value),
    "metric: name": lambda ctx, value: ctx.metric(value, 1.0),
    "metric: value": lambda ctx, value: ctx.metric("m", value),
    "file: name": lambda ctx, value: ctx.save_file(value, b"x"),
    "file: data": lambda ctx, value: ctx.save_file("x", value),
    "file: type": lambda ctx, value: ctx.save_file("x", b"x", value),
    "open": lambda ctx, value: ctx.open_file(value),
    "log": lambda ctx, value: ctx.log.info(value),
    "level": lambda ctx, value: _log_at(ctx, value),
    "print": lambda ctx, value: print(value),
    "on_cancel": lambda ctx, value: ctx.on_cancel(value),
    "retry: after": lambda ctx, value: _raise(Retry("later", after=value)),
    "retry: at": lambda ctx, value: _raise(Retry("later", at=value)),
    "retry: message": lambda ctx, value: _raise(Retry(value)),
    "error": lambda ctx, value: _raise(PermanentError(value)),
    "error's name": lambda ctx, value: _raise(type("E", (Exception,), {"__qualname__": value})("x")),
}


@handler("extremes", retries=1, backoff=3600, timeout="10s")
def extremes(data: dict[str, Any], ctx: Context) -> Any:
    return CALLS[data["call"]](ctx, python_values()[data["index"]])


@handler("plain", timeout="10s")
def plain(data: Any) -> Any:
    return data


@handler("models", model_by="model", size_by=["size"], gpus=0, timeout="10s")
def models(data: dict[str, Any]) -> str:
    return str(data["model"])
