"""Effect: loads executors without a job, for operators and preloads, and reports the results."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from gpu.job_class import JobClass
from gpu.scheduling.prewarm_class import prewarm_class
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.coordinator.dispatch.executor_table import ExecutorTable
from runner.coordinator.dispatch.load_failures import EXECUTOR_FAULTS, LoadFailures
from runner.coordinator.dispatch.pending_prewarms import PendingPrewarms
from runner.coordinator.dispatch.pins import explain_handler_pin, explain_refused_pin
from runner.coordinator.dispatch.preloads import Preloads
from runner.coordinator.dispatch.prewarm_request import (
    ModelRef,
    PrewarmCallback,
    PrewarmFailure,
    PrewarmRequest,
    resolve_model,
)
from runner.coordinator.jobs import admission, explanations
from runner.coordinator.queue.active_handlers import ActiveHandlers
from runner.coordinator.queue.timers import Timers
from runner.coordinator.runtime.clock import Clock
from runner.coordinator.runtime.plan_trigger import PlanTrigger
from runner.errors import NotFound, RunnerError, Unsatisfiable
from runner.handlers.spec import HandlerSpec

log = logging.getLogger(__name__)

#: Code of the failure of a request whose executor was unloaded by another request.
UNLOADED = "unloaded"
#: Code of the failure of a preload that was unloaded because the host was short of memory.
HOST_MEMORY = "host_memory"


class Prewarming:
    """Prewarm requests waiting for capacity, and executors loading for one.

    A request waits in the planner's state like a job. When the plan loads an executor for it, the request
    moves to that executor; the callbacks are called once it is loaded or gone.
    """

    def __init__(
        self,
        *,
        scheduler_state: SchedulerState,
        handlers: ActiveHandlers,
        timers: Timers,
        executors: ExecutorTable,
        device_ids: Collection[str],
        clock: Clock,
        plan_trigger: PlanTrigger,
    ) -> None:
        self._scheduler_state = scheduler_state
        self._handlers = handlers
        self._timers = timers
        self._executors = executors
        self._device_ids = device_ids
        self._clock = clock
        self._plan_trigger = plan_trigger
        #: Requests for which no executor loads yet.
        self.pending = PendingPrewarms(scheduler_state)
        self.failures = LoadFailures()
        self._preloads = Preloads(scheduler_state)
        #: Executor -> the request for which it loads.
        self._loading: dict[int, PrewarmRequest] = {}
        #: Loading executor, whatever it loads for -> callbacks for its result.
        self._callbacks: dict[int, list[PrewarmCallback]] = {}
        #: The handlers in force when missing preloads were last checked.
        self._specs: Mapping[str, HandlerSpec] = {}

    # Requests of operators.

    def load(self, handler: str, model: str | None, device_id: str | None, callback: PrewarmCallback) -> None:
        """Load an executor of a handler, on any device or on `device_id`. `callback` is called once with the
        result, before this method returns if an executor is ready already.

        Raises:
            UnknownHandler, HandlerBroken, NotFound, ValidationFailed, Unsatisfiable, TooManyNames.
        """
        spec = self._handlers.require(handler)
        job_class = self._make_class(spec, resolve_model(spec, model), device_id)
        self.pending.require_room(job_class)
        executor = self._find_executor(job_class)
        refusal = explain_refused_pin(spec, job_class, self._scheduler_state.residency)
        if executor is None and refusal is not None:
            raise Unsatisfiable(refusal)
        self._preloads.resume((handler, job_class.model))
        if executor is None:
            for request in self.pending.of_handler(handler, job_class.model):
                if request.is_preload:
                    self.pending.remove(request)
            (self.pending.find_by_class(job_class) or self._add_request(job_class)).callbacks.append(callback)
            self._plan_trigger.wake()
        elif executor.is_loaded:
            callback(executor)
        else:
            self._callbacks.setdefault(executor.number, []).append(callback)

    def unload(self, handler: str, model: str | None, device_id: str | None) -> list[ExecutorHandle]:
        """Return the executors to unload: those of a handler, of one model and on one device if they are
        named.

        Pending requests for them fail, and a preload that has no executor left is suspended until an operator
        loads it again.

        Raises:
            UnknownHandler, NotFound, ValidationFailed.
        """
        spec = self._handlers.specs.get(handler)
        if spec is None:
            self._handlers.require(handler)
        if spec is not None and model is not None:
            model = resolve_model(spec, model)
        self._check_device(device_id)
        withdrawn = PrewarmFailure(UNLOADED, "unloaded by request", None, self._clock.now())
        for request in self.pending.of_handler(handler, model):
            if device_id in (None, request.device_id):
                self.pending.remove(request)
                _call_back(request.callbacks, withdrawn)
        executors = [
            executor
            for executor in self._executors.of_handler(handler)
            if model in (None, executor.model)
            and (device_id is None or device_id in executor.devices)
            and not executor.is_retired
        ]
        still_loaded = {
            (handler, executor.model)
            for executor in self._executors.of_handler(handler)
            if executor not in executors
        }
        self._preloads.suspend(handler, model, still_loaded)
        return executors

    def build_document(self, handler: str) -> dict[str, Any]:
        """The prewarming fields of a handler's document."""
        return {
            "waiting": self.pending.build_document(handler),
            "load_failures": self.failures.build_document(handler),
            "preload_suspended": self._preloads.suspended_models(handler),
            "pin_refused": explain_handler_pin(
                self._handlers.specs.get(handler), self._scheduler_state.residency
            ),
        }

    # Events.

    def on_handlers_changed(self) -> None:
        """Take over the new handlers: drop the failures of those that have changed, and repeat pending
        requests with the new code."""
        before, self._specs = self._specs, self._handlers.specs
        self._preloads.set_handlers(self._specs)
        self.failures.drop_changed(before, self._specs)
        for request in self.pending:
            self.pending.remove(request)
            self._request_again(request)

    def before_plan(self) -> None:
        """Fulfil requests for which an executor exists by now, and request the missing preloads that are
        due."""
        for request in self.pending:
            if (executor := self._find_executor(request.job_class)) is not None:
                self.fulfil(request.number, executor)
        for model_ref, spec in self._preloads.find_missing():
            if not self.pending.of_handler(*model_ref) and self.failures.may_retry(
                model_ref, self._clock.now()
            ):
                self._add_request(self._make_class(spec, model_ref[1], None, is_preload=True))

    def fulfil(self, number: int, executor: ExecutorHandle) -> None:
        """Fulfil a request with an executor that exists already."""
        request = self.pending[number]
        self.pending.remove(request)
        if executor.is_loaded:
            _call_back(request.callbacks, executor)
        elif request.callbacks:
            self._callbacks.setdefault(executor.number, []).extend(request.callbacks)

    def find_executor(self, number: int) -> ExecutorHandle | None:
        """Return an executor that fulfils a pending request, if a job of the same plan has loaded one."""
        return self._find_executor(self.pending[number].job_class)

    def on_load_started(self, number: int, executor_number: int) -> None:
        """Record that an executor loads for the request; its class has left the planner's state."""
        request = self._loading[executor_number] = self.pending.start_loading(number)
        if request.callbacks:
            self._callbacks[executor_number] = request.callbacks

    def on_loaded(self, executor: ExecutorHandle) -> None:
        """Record that an executor is ready and call back with it."""
        self._loading.pop(executor.number, None)
        model_ref = (executor.spec.name, executor.model)
        self.failures.on_loaded(model_ref, self._clock.now())
        _call_back(self._callbacks.pop(executor.number, ()), executor)

    def on_executor_gone(self, executor: ExecutorHandle, code: str, message: str, detail: Any = None) -> None:
        """Record the end of an executor, and report the failure if it was loading for a request. If the
        executor is not to blame, the request is repeated."""
        request, callbacks = (
            self._loading.pop(executor.number, None),
            self._callbacks.pop(executor.number, []),
        )
        model_ref = (executor.spec.name, executor.model)
        if code in EXECUTOR_FAULTS and (request is not None or callbacks or model_ref in self._preloads):
            self._record_failure(model_ref, PrewarmFailure(code, message, detail, self._clock.now()))
        if code in EXECUTOR_FAULTS or code == UNLOADED:
            _call_back(
                callbacks,
                self.failures.last.get(model_ref) or PrewarmFailure(code, message, detail, self._clock.now()),
            )
        elif request is not None:
            # The executor did not fail: its worker died, or its handler was reloaded.
            self._request_again(request)
        elif callbacks:
            self._request_again(
                PrewarmRequest(0, self._make_class(executor.spec, executor.model, None), callbacks)
            )

    def on_unloaded_for_memory(self, executor: ExecutorHandle, why: str) -> None:
        """Record that an idle executor is unloaded because the host is short of memory: a preload of it is
        retried as after a failure."""
        model_ref = (executor.spec.name, executor.model)
        if model_ref in self._preloads:
            self._record_failure(model_ref, PrewarmFailure(HOST_MEMORY, why, None, self._clock.now()))

    def _record_failure(self, model_ref: ModelRef, failure: PrewarmFailure) -> None:
        failure = self.failures.record(model_ref, failure, is_preload=model_ref in self._preloads)
        if failure.next_at is not None:
            self._timers.call_at(failure.next_at, self._plan_trigger.wake)
        log.warning("failed to load %s: %s: %s", _model_text(model_ref), failure.code, failure.message)

    def _request_again(self, request: PrewarmRequest) -> None:
        """Repeat a request with the handler that is in force now. A preload without callbacks is left out:
        `before_plan` requests it."""
        if request.is_preload and not request.callbacks:
            return
        try:
            spec = self._handlers.require(request.job_class.handler)
            self._add_request(
                self._make_class(spec, request.job_class.model, request.device_id)
            ).callbacks += request.callbacks
            self._plan_trigger.wake()
        except RunnerError as error:
            _call_back(
                request.callbacks,
                PrewarmFailure(error.code, error.message, error.detail or None, self._clock.now()),
            )

    def _add_request(self, job_class: JobClass) -> PrewarmRequest:
        return self.pending.add(job_class, since=self._clock.now())

    def _make_class(
        self, spec: HandlerSpec, model: str, device_id: str | None, *, is_preload: bool = False
    ) -> JobClass:
        """Make the class of a request. Raises NotFound (unknown device) or Unsatisfiable (never fits)."""
        self._check_device(device_id)
        options = spec.options
        job_class = prewarm_class(
            spec.name,
            spec.version,
            model,
            need_bytes=admission.needed_bytes(options, options.vram_bytes, has_gpu=self._handlers.has_gpu),
            gpus=options.gpus,
            device_id=device_id,
            is_preload=is_preload,
        )
        misfit = self._scheduler_state.memory_needs.misfit(job_class)
        if misfit is not None and not is_preload:
            raise Unsatisfiable(explanations.explain_misfit(spec.name, misfit, device_id), **misfit)
        return job_class

    def _check_device(self, device_id: str | None) -> None:
        if device_id is not None and device_id not in self._device_ids:
            known = ", ".join(self._device_ids)
            raise NotFound(f"there is no device {device_id!r}; there are {known}")

    def _find_executor(self, job_class: JobClass) -> ExecutorHandle | None:
        """Find an executor of the class, a loaded one before a loading one."""
        candidates = [
            self._executors[resident.executor]
            for resident in self._scheduler_state.residency.by_key.get(job_class.key, {}).values()
            if not job_class.allowed_devices or set(job_class.allowed_devices).issuperset(resident.devices)
        ]
        return max(candidates, key=lambda executor: executor.is_loaded, default=None)


def _call_back(callbacks: Collection[PrewarmCallback], result: ExecutorHandle | PrewarmFailure) -> None:
    for callback in callbacks:
        callback(result)


def _model_text(model_ref: ModelRef) -> str:
    return f"{model_ref[0]} ({model_ref[1]})" if model_ref[1] else model_ref[0]
