"""Effect: executors that are made ready without a job: who asked, what is preloaded, what came of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

from gpu.job_class import JobClass
from gpu.scheduling.prewarm_class import prewarm_class
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.coordinator.dispatch.executor_table import ExecutorTable
from runner.coordinator.dispatch.load_failures import FAULTS, LoadFailures
from runner.coordinator.dispatch.pending_prewarms import PendingPrewarms
from runner.coordinator.dispatch.preloads import Preloads
from runner.coordinator.dispatch.prewarm_request import Failure, Name, Tell, Wish, model_of
from runner.coordinator.jobs import admission, explanations
from runner.coordinator.queue.active_handlers import ActiveHandlers
from runner.coordinator.queue.timers import Timers
from runner.errors import NotFound, RunnerError, Unsatisfiable
from runner.handlers.spec import HandlerSpec

log = logging.getLogger(__name__)

WITHDRAWN = "unloaded"


class Wishes:
    """What waits in the plan's view for no job, and what loads for none."""

    def __init__(
        self,
        *,
        view: SchedulerState,
        handlers: ActiveHandlers,
        timers: Timers,
        executors: ExecutorTable,
        device_ids: Collection[str],
        now: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._view = view
        self._handlers = handlers
        self._timers = timers
        self._executors = executors
        self._device_ids = device_ids
        self._now = now
        self._wake = wake
        self.pending = PendingPrewarms(view)
        self.failures = LoadFailures()
        self._preloads = Preloads(view)
        #: Executor -> the request for which it loads.
        self._loading: dict[int, Wish] = {}
        #: Executor that loads, for whomever -> who is to be told.
        self._tells: dict[int, list[Tell]] = {}
        #: The handlers in force when preloads were last looked for.
        self._specs: Mapping[str, HandlerSpec] = {}

    # What operators ask for.

    def load(self, handler: str, model: str | None, device_id: str | None, tell: Tell) -> None:
        """Have an executor ready; `tell` is called once, before this returns where it is ready already.

        Raises:
            UnknownHandler, HandlerBroken, NotFound, ValidationFailed, Unsatisfiable.
        """
        spec = self._handlers.require(handler)
        cls = self._class(spec, model_of(spec, model), device_id)
        self._preloads.resume((handler, cls.model))
        post = self._resident(cls)
        if post is None:
            for one in self.pending.of_handler(handler, cls.model):
                if one.is_preload:
                    self.pending.drop(one)
            (self.pending.of_class(cls) or self._add(cls)).tells.append(tell)
            self._wake()
        elif post.is_loaded:
            tell(post)
        else:
            self._tells.setdefault(post.number, []).append(tell)

    def unload(self, handler: str, model: str | None, device_id: str | None) -> list[ExecutorHandle]:
        """The executors that are to go. What waits for one is dropped, and a preload of which none is left
        rests until it is loaded again.

        Raises:
            UnknownHandler, NotFound, ValidationFailed.
        """
        spec = self._handlers.specs.get(handler)
        if spec is None:
            self._handlers.require(handler)
        if spec is not None and model is not None:
            model = model_of(spec, model)
        self._check_device(device_id)
        withdrawn = Failure(WITHDRAWN, "it was unloaded by request", None, self._now())
        for one in self.pending.of_handler(handler, model):
            if device_id in (None, one.device_id):
                self.pending.drop(one)
                _tell(one.tells, withdrawn)
        posts = [
            post
            for post in self._executors.of_handler(handler)
            if model in (None, post.model)
            and (device_id is None or device_id in post.devices)
            and not post.is_retired
        ]
        left = {(handler, post.model) for post in self._executors.of_handler(handler) if post not in posts}
        self._preloads.suspend(handler, model, left)
        return posts

    def document(self, handler: str) -> dict[str, Any]:
        """What is said of them beside a handler's executors."""
        return {
            "waiting": self.pending.document(handler),
            "load_failures": self.failures.document(handler),
            "preload_suspended": self._preloads.suspended_models(handler),
        }

    # What happens.

    def described(self) -> None:
        """The handlers are known anew: what failed in one that is another now is forgotten."""
        before, self._specs = self._specs, self._handlers.specs
        self._preloads.set_handlers(self._specs)
        self.failures.forget_changed(before, self._specs)
        for one in self.pending:
            self.pending.drop(one)
            self._again(one)

    def before_plan(self) -> None:
        """Wish for the preloads that are missing, and drop what came true in some other way."""
        for one in self.pending:
            if (post := self._resident(one.cls)) is not None:
                self.met(one.n, post)
        for name, spec in self._preloads.missing():
            if not self.pending.of_handler(*name) and self.failures.may_try(name, self._now()):
                self._add(self._class(spec, name[1], None, is_preload=True))

    def met(self, n: int, post: ExecutorHandle) -> None:
        """An executor that is there anyway is the one that is wished for."""
        one = self.pending[n]
        self.pending.drop(one)
        if post.is_loaded:
            _tell(one.tells, post)
        elif one.tells:
            self._tells.setdefault(post.number, []).extend(one.tells)

    def resident(self, n: int) -> ExecutorHandle | None:
        """What has come meanwhile for a wish that waits: a job of the same plan may load it."""
        return self._resident(self.pending[n].cls)

    def loads(self, n: int, executor: int) -> None:
        """An executor starts for the wish; its class has left the view."""
        one = self._loading[executor] = self.pending.start(n)
        if one.tells:
            self._tells[executor] = one.tells

    def loaded(self, post: ExecutorHandle) -> None:
        """An executor is ready."""
        self._loading.pop(post.number, None)
        name = (post.spec.name, post.model)
        self.failures.on_loaded(name, self._now())
        _tell(self._tells.pop(post.number, ()), post)

    def gone(self, post: ExecutorHandle, code: str, message: str, detail: Any = None) -> None:
        """An executor has ended; where it was wished for and did not load, those who asked are told why."""
        one, tells = self._loading.pop(post.number, None), self._tells.pop(post.number, [])
        name = (post.spec.name, post.model)
        if code in FAULTS and (one is not None or tells or name in self._preloads):
            self._failed(name, Failure(code, message, detail, self._now()))
        if code in FAULTS or code == WITHDRAWN:
            _tell(tells, self.failures.last.get(name) or Failure(code, message, detail, self._now()))
        elif one is not None:
            # Nobody's fault: its worker died, or its handler was reloaded.
            self._again(one)
        elif tells:
            self._again(Wish(0, self._class(post.spec, post.model, None), tells))

    def _failed(self, name: Name, failure: Failure) -> None:
        failure = self.failures.record(name, failure, is_preload=name in self._preloads)
        if failure.next_at is not None:
            self._timers.call_at(failure.next_at, self._wake)
        log.warning("%s could not be loaded: %s: %s", _title(name), failure.code, failure.message)

    def _again(self, one: Wish) -> None:
        """Wish for it in the code that is in force now. Preloads come back by themselves."""
        if one.is_preload and not one.tells:
            return
        try:
            spec = self._handlers.require(one.cls.handler)
            self._add(self._class(spec, one.cls.model, one.device_id)).tells += one.tells
            self._wake()
        except RunnerError as error:
            _tell(one.tells, Failure(error.code, error.message, error.detail or None, self._now()))

    def _add(self, cls: JobClass) -> Wish:
        return self.pending.add(cls, since=self._now())

    def _class(
        self, spec: HandlerSpec, model: str, device_id: str | None, *, is_preload: bool = False
    ) -> JobClass:
        """Raises NotFound for an unknown device, Unsatisfiable where it could never be loaded."""
        self._check_device(device_id)
        options = spec.options
        cls = prewarm_class(
            spec.name,
            spec.version,
            model,
            need_bytes=admission.needed_bytes(options, options.vram_bytes, has_gpu=self._handlers.has_gpu),
            gpus=options.gpus,
            device_id=device_id,
            is_preload=is_preload,
        )
        misfit = self._view.memory_needs.misfit(cls)
        if misfit is not None and not is_preload:
            raise Unsatisfiable(explanations.explain_misfit(spec.name, misfit, device_id), **misfit)
        return cls

    def _check_device(self, device_id: str | None) -> None:
        if device_id is not None and device_id not in self._device_ids:
            known = ", ".join(self._device_ids)
            raise NotFound(f"there is no device {device_id!r}; there are {known}")

    def _resident(self, cls: JobClass) -> ExecutorHandle | None:
        """An executor of it that is there: one that has loaded before one that loads."""
        found = [
            self._executors[resident.executor]
            for resident in self._view.residency.by_key.get(cls.key, {}).values()
            if not cls.allowed_devices or set(cls.allowed_devices).issuperset(resident.devices)
        ]
        return max(found, key=lambda post: post.is_loaded, default=None)


def _tell(tells: Collection[Tell], what: ExecutorHandle | Failure) -> None:
    for tell in tells:
        tell(what)


def _title(name: Name) -> str:
    return f"{name[0]} ({name[1]})" if name[1] else name[0]
