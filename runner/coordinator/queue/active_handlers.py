"""Pure: the active handlers, and the class in which jobs of a handler are planned."""

from __future__ import annotations

from collections.abc import Mapping

from gpu.job_class import JobClass
from runner.coordinator.jobs import admission
from runner.errors import HandlerBroken, UnknownHandler, unknown_handler_text
from runner.handlers.spec import HandlerSpec
from runner.stores.queued_groups import GroupKey


class ActiveHandlers:
    """Handlers with the operator's overrides applied; new descriptions replace all of them at once.

    `has_gpu` is set once, after the devices are known and before the first job is accepted: it decides
    whether a handler's `vram` or its `ram` is the need of its jobs.
    """

    def __init__(self) -> None:
        self.specs: Mapping[str, HandlerSpec] = {}
        self.has_gpu = False

    def require(self, handler: str) -> HandlerSpec:
        """Return a usable handler.

        Raises:
            UnknownHandler: it does not exist, or is still being described.
            HandlerBroken: its source could not be imported.
        """
        spec = self.specs.get(handler)
        if spec is None or spec.state == "describing":
            raise UnknownHandler(unknown_handler_text(handler, self.specs), handler=handler)
        if spec.state == "broken":
            raise HandlerBroken(
                f"handler {handler!r} could not be imported from {spec.source.target}",
                handler=handler,
                error=spec.error,
            )
        return spec

    def class_of(self, key: GroupKey) -> JobClass | None:
        """The class of jobs with this key; None if their handler is unknown."""
        spec = self.specs.get(key.handler)
        if spec is None or spec.state != "ok":
            return None
        return admission.class_of_group(key, spec, has_gpu=self.has_gpu)
