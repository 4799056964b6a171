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
Name = tuple[str, str]


class Failure(NamedTuple):
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
Tell = Callable[[ExecutorHandle | Failure], None]


@dataclass(slots=True)
class Wish:
    """An executor that is to be ready."""

    #: Below 0: stands in the plan's lines where jobs have their number.
    n: int
    cls: JobClass
    tells: list[Tell] = field(default_factory=list)

    @property
    def device_id(self) -> str | None:
        """The only device that will do, if one was named."""
        return self.cls.allowed_devices[0] if self.cls.allowed_devices else None

    @property
    def is_preload(self) -> bool:
        """Nobody asked: the handler says so."""
        return not self.cls.may_evict


def model_of(spec: HandlerSpec, model: str | None) -> str:
    """The model that is meant; "" for a handler that has none.

    Raises:
        ValidationFailed: one has to be named, or there is none to name.
    """
    field = spec.options.model_by
    if (field is None) == (model is None):
        return model or ""
    why = "it has no models" if field is None else f"it has several models: name one, as jobs do in {field!r}"
    raise ValidationFailed(f"handler {spec.name!r}: {why}", errors=[{"pointer": "/model", "message": why}])


def preloads(spec: HandlerSpec) -> tuple[str, ...]:
    """The models of a handler that are to be there always; ("",) for one without models."""
    has_models = spec.options.model_by is not None
    return tuple(model for model in spec.options.preload if bool(model) == has_models)
