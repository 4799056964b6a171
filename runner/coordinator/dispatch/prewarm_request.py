"""Pure: requests for an executor without a job, and their possible results."""

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
    """The reason why a requested executor was not loaded."""

    #: A code as of a job's error, such as load_error.
    code: str
    message: str
    #: JSON value for machines, such as a traceback.
    detail: Any
    #: Time of the failure; UTC epoch seconds.
    at: float
    #: Number of failures in a row.
    tries: int = 1
    #: Time of the next try of a preload; UTC epoch seconds. None: it is not retried automatically.
    next_at: float | None = None

    @property
    def error(self) -> dict[str, Any]:
        """The failure in the form of a job's error."""
        return {"code": self.code, "message": self.message, "detail": self.detail}


#: Called once with the result of a request: the loaded executor, or why there is none.
PrewarmCallback = Callable[[ExecutorHandle | PrewarmFailure], None]


@dataclass(slots=True)
class PrewarmRequest:
    """A request for an executor that is loaded without a job."""

    #: Negative; takes the place of a job number in the planner's state.
    number: int
    #: The class that waits in the planner's state.
    job_class: JobClass
    #: Called with the result, once each; none for a preload that no operator waits for.
    callbacks: list[PrewarmCallback] = field(default_factory=list)

    @property
    def device_id(self) -> str | None:
        """The device that was named, if any: no other one is acceptable."""
        return self.job_class.allowed_devices[0] if self.job_class.allowed_devices else None

    @property
    def is_preload(self) -> bool:
        """Whether the handler's options caused the request, and not an operator."""
        return not self.job_class.may_evict


def resolve_model(spec: HandlerSpec, model: str | None) -> str:
    """Return the model that a request is for; "" for a handler without models.

    Raises:
        ValidationFailed: no model is named for a handler with models, or one for a handler without.
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
