"""Pure: which models of which handlers are to be loaded always, and which of them are suspended."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.dispatch.prewarm_request import Name, preloads
from runner.handlers.spec import HandlerSpec


class Preloads:
    """Preloads of the handlers in force. The plan's view is told which executors to keep."""

    def __init__(self, view: SchedulerState) -> None:
        self._view = view
        self._specs: dict[Name, HandlerSpec] = {}
        #: Unloaded by request: not loaded again by themselves.
        self._suspended: set[Name] = set()

    def __contains__(self, name: Name) -> bool:
        return name in self._specs

    def set_handlers(self, specs: Mapping[str, HandlerSpec]) -> None:
        """Take the preloads of the handlers that are in force now."""
        self._specs = {
            (spec.name, model): spec
            for spec in specs.values()
            if spec.state == "ok"
            for model in preloads(spec)
        }
        self._suspended &= self._specs.keys()
        self._keep_loaded()

    def suspend(self, handler: str, model: str | None, loaded: Collection[Name]) -> None:
        """Suspend the preloads of a handler, of one model or of all, except those still `loaded`."""
        for name in self._specs:
            if name[0] == handler and model in (None, name[1]) and name not in loaded:
                self._suspended.add(name)
        self._keep_loaded()

    def resume(self, name: Name) -> None:
        """It is asked for again."""
        self._suspended.discard(name)
        self._keep_loaded()

    def missing(self) -> Iterator[tuple[Name, HandlerSpec]]:
        """Preloads of which there is no executor, suspended ones left out."""
        for name, spec in self._specs.items():
            is_there = (name[0], spec.version, name[1]) in self._view.residency.by_key
            if not is_there and name not in self._suspended:
                yield name, spec

    def suspended_models(self, handler: str) -> list[str | None]:
        """The suspended preloads of a handler; None is the one of a handler without models."""
        return [model or None for name, model in self._suspended if name == handler]

    def _keep_loaded(self) -> None:
        self._view.residency.keep_loaded = {
            (name[0], spec.version, name[1])
            for name, spec in self._specs.items()
            if name not in self._suspended
        }
