"""Pure: the public names of runner, each imported at its first use, so that `import runner` is cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.client import AsyncClient, Client
    from runner.errors import JobEnded, JobFailed, JobWasCancelled, NoServer, RunnerError
    from runner.executor.context import Context
    from runner.handlers.batch import Batch
    from runner.handlers.decorator import handler
    from runner.handlers.exceptions import JobCancelled, PermanentError, Retry

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

_MODULES = {
    "AsyncClient": "client",
    "Batch": "handlers.batch",
    "Client": "client",
    "Context": "executor.context",
    "JobCancelled": "handlers.exceptions",
    "JobEnded": "errors",
    "JobFailed": "errors",
    "JobWasCancelled": "errors",
    "NoServer": "errors",
    "PermanentError": "handlers.exceptions",
    "Retry": "handlers.exceptions",
    "RunnerError": "errors",
    "handler": "handlers.decorator",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use; raises AttributeError for any other name."""
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'runner' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"runner.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, also those that have not been imported yet."""
    return sorted({*globals(), *__all__})
