"""Pure: the public names of runner, each imported when it is first used: `import runner` costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.batch import Batch
    from runner.client import AsyncClient, Client
    from runner.context import Context
    from runner.definition import handler
    from runner.errors import JobEnded, JobFailed, JobWasCancelled, NoServer, RunnerError
    from runner.outcome import JobCancelled, PermanentError, Retry

__all__ = [
    "AsyncClient",
    "Batch",
    "Client",
    "Context",
    "JobCancelled",
    "JobEnded",
    "JobFailed",
    "JobWasCancelled",
    "NoServer",
    "PermanentError",
    "Retry",
    "RunnerError",
    "handler",
]

_HOMES = {
    "AsyncClient": "client",
    "Batch": "batch",
    "Client": "client",
    "Context": "context",
    "JobCancelled": "outcome",
    "JobEnded": "errors",
    "JobFailed": "errors",
    "JobWasCancelled": "errors",
    "NoServer": "errors",
    "PermanentError": "outcome",
    "Retry": "outcome",
    "RunnerError": "errors",
    "handler": "definition",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'runner' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"runner.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
