"""Pure: the wish for an executor that is ready without a job, and what may come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gpu.job_class import JobClass
from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.errors import ValidationFailed
from runner.handlers.spec import HandlerSpec

#: (handler, model)
ModelRef = tuple[str, str]


class PrewarmFailure(NamedTuple):
    """Why an executor that was wished for is not there."""

    code: str
    message: str
    detail: Any
    #: UTC epoch seconds.
    at: float
    #: So many in a row, and when a preload is tried again.
    tries: int = 1
    next_at: float | None = None

    @property
    def error(self) -> dict[str, Any]:
        """As a job's error is shown."""
        return {"code": self.code, "message": self.message, "detail": self.detail}


#: Told once what came of a wish: the executor that has loaded, or why there is none.
PrewarmCallback = Callable[[ExecutorHandle | PrewarmFailure], None]


@dataclass(slots=True)
class PrewarmRequest:
    """An executor that is to be ready."""

    #: Below 0: stands in the plan's lines where jobs have their number.
    number: int
    job_class: JobClass
    callbacks: list[PrewarmCallback] = field(default_factory=list)

    @property
    def device_id(self) -> str | None:
        """The only device that will do, if one was named."""
        return self.job_class.allowed_devices[0] if self.job_class.allowed_devices else None

    @property
    def is_preload(self) -> bool:
        """Nobody asked: the handler says so."""
        return not self.job_class.may_evict


def resolve_model(spec: HandlerSpec, model: str | None) -> str:
    """The model that is meant; "" for a handler that has none.

    Raises:
        ValidationFailed: one has to be named, or there is none to name.
    """
    model_by = spec.options.model_by
    if (model_by is None) == (model is None):
        return model or ""
    reason = (
        "it has no models"
        if model_by is None
        else f"it has several models: name one, as jobs do in {model_by!r}"
    )
    raise ValidationFailed(
        f"handler {spec.name!r}: {reason}", errors=[{"pointer": "/model", "message": reason}]
    )


def preload_models(spec: HandlerSpec) -> tuple[str, ...]:
    """The models of a handler that are to be there always; ("",) for one without models."""
    has_models = spec.options.model_by is not None
    return tuple(model for model in spec.options.preload if bool(model) == has_models)
