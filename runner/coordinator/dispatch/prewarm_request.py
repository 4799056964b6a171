"""Pure: the request for an executor that is ready without a job, and its possible results."""

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
    """Why a requested executor is not there."""

    code: str
    message: str
    detail: Any
    #: UTC epoch seconds.
    at: float
    #: Number of failures in a row, and when a preload is tried again.
    tries: int = 1
    next_at: float | None = None

    @property
    def error(self) -> dict[str, Any]:
        """The failure in the form of a job's error."""
        return {"code": self.code, "message": self.message, "detail": self.detail}


#: Called once with the result of a request: the loaded executor, or why there is none.
PrewarmCallback = Callable[[ExecutorHandle | PrewarmFailure], None]


@dataclass(slots=True)
class PrewarmRequest:
    """A request for an executor that is ready without a job."""

    #: Below 0; takes the place of a job number in the planner's state.
    number: int
    job_class: JobClass
    callbacks: list[PrewarmCallback] = field(default_factory=list)

    @property
    def device_id(self) -> str | None:
        """The only device that is acceptable, if one was named."""
        return self.job_class.allowed_devices[0] if self.job_class.allowed_devices else None

    @property
    def is_preload(self) -> bool:
        """Whether the handler's options ask for it, and no operator."""
        return not self.job_class.may_evict


def resolve_model(spec: HandlerSpec, model: str | None) -> str:
    """Return the model that is meant; "" for a handler without models.

    Raises:
        ValidationFailed: a model has to be named, or the handler has none.
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
    """The models of a handler that are kept loaded; ("",) for a handler without models."""
    has_models = spec.options.model_by is not None
    return tuple(model for model in spec.options.preload if bool(model) == has_models)
