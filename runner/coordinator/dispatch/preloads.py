"""Pure: the models to keep loaded for each handler, and which of these preloads are suspended."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.dispatch.prewarm_request import ModelRef, preload_models
from runner.handlers.spec import HandlerSpec


class Preloads:
    """Preloads of the handlers in force.

    The planner's state is kept up to date: executors of a preload that is not suspended stay loaded.
    """

    def __init__(self, scheduler_state: SchedulerState) -> None:
        self._scheduler_state = scheduler_state
        #: Each preload with its handler.
        self._specs: dict[ModelRef, HandlerSpec] = {}
        #: Preloads that were unloaded by request, and are not loaded again automatically.
        self._suspended: set[ModelRef] = set()

    def __contains__(self, model_ref: ModelRef) -> bool:
        return model_ref in self._specs

    def set_handlers(self, specs: Mapping[str, HandlerSpec]) -> None:
        """Replace the preloads by those of the given handlers; suspensions of the ones that remain are
        kept."""
        self._specs = {
            (spec.name, model): spec
            for spec in specs.values()
            if spec.state == "ok"
            for model in preload_models(spec)
        }
        self._suspended &= self._specs.keys()
        self._keep_loaded()

    def suspend(self, handler: str, model: str | None, loaded: Collection[ModelRef]) -> None:
        """Suspend the preloads of a handler, of one model or of all, except those still `loaded`."""
        for model_ref in self._specs:
            if model_ref[0] == handler and model in (None, model_ref[1]) and model_ref not in loaded:
                self._suspended.add(model_ref)
        self._keep_loaded()

    def resume(self, model_ref: ModelRef) -> None:
        """Resume a preload that is requested again."""
        self._suspended.discard(model_ref)
        self._keep_loaded()

    def find_missing(self) -> Iterator[tuple[ModelRef, HandlerSpec]]:
        """Yield the preloads that have no executor, without the suspended ones."""
        for model_ref, spec in self._specs.items():
            is_loaded = (model_ref[0], spec.version, model_ref[1]) in self._scheduler_state.residency.by_key
            if not is_loaded and model_ref not in self._suspended:
                yield model_ref, spec

    def suspended_models(self, handler: str) -> list[str | None]:
        """The suspended preloads of a handler; None is the one of a handler without models."""
        return [model or None for name, model in self._suspended if name == handler]

    def _keep_loaded(self) -> None:
        self._scheduler_state.residency.keep_loaded = {
            (model_ref[0], spec.version, model_ref[1])
            for model_ref, spec in self._specs.items()
            if model_ref not in self._suspended
        }
