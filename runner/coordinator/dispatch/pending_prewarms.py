"""Pure: prewarm requests that wait for capacity, in the plan's view among the jobs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from gpu.job_class import JobClass
from gpu.planning.explain import explain
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.dispatch.prewarm_request import Wish
from runner.coordinator.jobs import explanations


class PendingPrewarms:
    """Requests by number; each stands in the plan's view as long as it is here."""

    def __init__(self, view: SchedulerState) -> None:
        self._view = view
        self._numbers = itertools.count(-1, -1)
        self._requests: dict[int, Wish] = {}

    def __getitem__(self, n: int) -> Wish:
        return self._requests[n]

    def __iter__(self) -> Iterator[Wish]:
        # A list of its own: who goes through them drops some.
        return iter(list(self._requests.values()))

    def add(self, cls: JobClass, since: float) -> Wish:
        """Request an executor of the class."""
        request = Wish(next(self._numbers), cls)
        self._requests[request.n] = request
        self._view.add_waiting(cls, request.n, since=since)
        return request

    def drop(self, request: Wish) -> None:
        """It is not to be loaded any more, or not by this request."""
        del self._requests[request.n]
        self._view.remove_waiting(request.cls, request.n)

    def start(self, n: int) -> Wish:
        """An executor loads for the request; its class has left the view."""
        return self._requests.pop(n)

    def of_class(self, cls: JobClass) -> Wish | None:
        """The request for just this class, if there is one."""
        return next((one for one in self._requests.values() if one.cls == cls), None)

    def of_handler(self, handler: str, model: str | None = None) -> list[Wish]:
        """Requests for a handler, of one model or of all."""
        return [
            one
            for one in self._requests.values()
            if one.cls.handler == handler and model in (None, one.cls.model)
        ]

    def explain(self, request: Wish) -> dict[str, Any]:
        """Why a request waits, in words and figures."""
        figures = explain(self._view, request.cls, request.n)
        return figures | {"message": explanations.explain_waiting(figures["reason"], figures)}

    def leaving_executors(self, request: Wish) -> list[int]:
        """Executors that are about to go on the devices where it may load."""
        lane = self._view.residency.device_pool(request.cls)
        return sorted({each for slot in lane for each in slot.leaving})

    def document(self, handler: str) -> list[dict[str, Any]]:
        """The requests for a handler as the API shows them."""
        return [
            {"model": one.cls.model or None, "device": one.device_id, "preload": one.is_preload}
            | self.explain(one)
            for one in self.of_handler(handler)
        ]
