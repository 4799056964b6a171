"""Pure: prewarm requests that wait for capacity, among the jobs in the planner's state."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from gpu.job_class import JobClass
from gpu.planning.explain import explain
from gpu.scheduling.scheduler_state import SchedulerState
from runner.bounds import WAITING_LOADS_MAX
from runner.coordinator.dispatch.prewarm_request import PrewarmRequest
from runner.coordinator.jobs import explanations
from runner.coordinator.jobs.queued_names import RETRY_S
from runner.errors import TooManyNames


class PendingPrewarms:
    """Requests by number. Each is in the planner's state as long as it is here.

    Numbers are negative, so that they never meet the number of a job in the planner's state.
    """

    def __init__(self, scheduler_state: SchedulerState) -> None:
        self._scheduler_state = scheduler_state
        self._numbers = itertools.count(-1, -1)
        self._requests: dict[int, PrewarmRequest] = {}

    def __getitem__(self, number: int) -> PrewarmRequest:
        return self._requests[number]

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[PrewarmRequest]:
        # A copy: callers remove requests while they iterate.
        return iter(list(self._requests.values()))

    def add(self, job_class: JobClass, since: float) -> PrewarmRequest:
        """Request an executor of the class; `since` is the time from which the request has waited."""
        request = PrewarmRequest(next(self._numbers), job_class)
        self._requests[request.number] = request
        self._scheduler_state.add_waiting(job_class, request.number, since=since)
        return request

    def require_room(self, job_class: JobClass) -> None:
        """Raise TooManyNames if WAITING_LOADS_MAX requests wait, none of them for the class."""
        if len(self) >= WAITING_LOADS_MAX and self.find_by_class(job_class) is None:
            what = f"{WAITING_LOADS_MAX} loads wait for capacity, the limit; try again later"
            raise TooManyNames(what, limit="loads", max=WAITING_LOADS_MAX, retry_after_s=RETRY_S)

    def remove(self, request: PrewarmRequest) -> None:
        """Remove a request that was withdrawn, or fulfilled by an executor that exists."""
        del self._requests[request.number]
        self._scheduler_state.remove_waiting(request.job_class, request.number)

    def start_loading(self, number: int) -> PrewarmRequest:
        """Remove and return a request for which an executor loads; its class has left the planner's state
        already."""
        return self._requests.pop(number)

    def find_by_class(self, job_class: JobClass) -> PrewarmRequest | None:
        """The request for exactly this class, if there is one."""
        return next((request for request in self._requests.values() if request.job_class == job_class), None)

    def of_handler(self, handler: str, model: str | None = None) -> list[PrewarmRequest]:
        """Requests for a handler, of one model or of all."""
        return [
            request
            for request in self._requests.values()
            if request.job_class.handler == handler and model in (None, request.job_class.model)
        ]

    def explain(self, request: PrewarmRequest) -> dict[str, Any]:
        """Explain why a request waits: the figures of the planner, and `message` as a sentence."""
        explanation = explain(self._scheduler_state, request.job_class, request.number)
        return explanation | {"message": explanations.explain_waiting(explanation["reason"], explanation)}

    def closing_executors(self, request: PrewarmRequest) -> list[int]:
        """Numbers of the executors that are closing on the devices where the request may load."""
        device_pool = self._scheduler_state.residency.device_pool(request.job_class)
        return sorted({each for slot in device_pool for each in slot.leaving})

    def build_document(self, handler: str) -> list[dict[str, Any]]:
        """The requests for a handler as the API shows them."""
        return [
            {
                "model": request.job_class.model or None,
                "device": request.device_id,
                "preload": request.is_preload,
            }
            | self.explain(request)
            for request in self.of_handler(handler)
        ]
