"""Effect: executors that are made ready without a job: who asked, what is preloaded, what came of it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

from gpu.explain import explain
from gpu.job_class import JobClass
from gpu.view import View
from gpu.wish import wish
from runner.coordinator import intake, words
from runner.coordinator.post import Post
from runner.coordinator.timers import Timers
from runner.coordinator.waiting import Waiting
from runner.coordinator.wish import Failure, Name, Tell, Wish, model_of, preloads
from runner.errors import NotFound, RunnerError, Unsatisfiable
from runner.instant import rfc3339
from runner.spec import HandlerSpec

log = logging.getLogger(__name__)

#: A preload that failed is tried again after 5 s, then twice as long each time, up to 10 minutes.
PAUSE_S, PAUSE_MAX_S = 5.0, 600.0
#: One that was ready for so long begins with a clean sheet.
STEADY_S = 60.0
#: Ends of an executor that it is to blame for itself.
FAULTS = frozenset(
    {
        "load_error",
        "load_timeout",
        "device_out_of_memory",
        "memory_exceeded",
        "worker_crashed",
        "stuck_process",
    }
)
WITHDRAWN = "unloaded"


class Wishes:
    """What waits in the plan's view for no job, and what loads for none."""

    def __init__(
        self,
        *,
        view: View,
        waiting: Waiting,
        timers: Timers,
        posts: Mapping[int, Post],
        device_ids: Collection[str],
        now: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._view = view
        self._waiting = waiting
        self._timers = timers
        self._posts = posts
        self._device_ids = device_ids
        self._now = now
        self._wake = wake
        self._numbers = itertools.count(-1, -1)
        #: Those that wait for room, by number.
        self._wishes: dict[int, Wish] = {}
        #: Executor -> the wish for which it loads.
        self._loading: dict[int, Wish] = {}
        #: Executor that loads, for whomever -> who is to be told.
        self._tells: dict[int, list[Tell]] = {}
        self._specs: Mapping[str, HandlerSpec] = {}
        #: What is to be there always, and what of it was told to go.
        self._preloads: dict[Name, HandlerSpec] = {}
        self._suspended: set[Name] = set()
        #: Failures in a row, and when the last one was ready.
        self._tries: dict[Name, tuple[int, float | None]] = {}
        #: Why the last one is not there.
        self.failures: dict[Name, Failure] = {}

    # What operators ask for.

    def load(self, handler: str, model: str | None, device_id: str | None, tell: Tell) -> None:
        """Have an executor ready; `tell` is called once, before this returns where it is ready already.

        Raises:
            UnknownHandler, HandlerBroken, NotFound, ValidationFailed, Unsatisfiable.
        """
        spec = self._waiting.handlers.require(handler)
        cls = self._class(spec, model_of(spec, model), device_id)
        self._suspended.discard((handler, cls.model))
        self._keep()
        post = self._resident(cls)
        if post is None:
            for one in self.waits(handler, cls.model):
                if one.is_preload:
                    self._drop(one)
            same = next((one for one in self._wishes.values() if one.cls == cls), None)
            (same or self._add(cls)).tells.append(tell)
            self._wake()
        elif post.loaded:
            tell(post)
        else:
            self._tells.setdefault(post.executor, []).append(tell)

    def unload(self, handler: str, model: str | None, device_id: str | None) -> list[Post]:
        """The executors that are to go. What waits for one is dropped, and a preload of which none is left
        rests until it is loaded again.

        Raises:
            UnknownHandler, NotFound, ValidationFailed.
        """
        spec = self._waiting.handlers.specs.get(handler)
        if spec is None:
            self._waiting.handlers.require(handler)
        if spec is not None and model is not None:
            model = model_of(spec, model)
        self._check_device(device_id)
        withdrawn = Failure(WITHDRAWN, "it was unloaded by request", None, self._now())
        for one in self.waits(handler, model):
            if device_id in (None, one.device_id):
                self._drop(one)
                _tell(one.tells, withdrawn)
        posts = [
            post
            for post in self._posts.values()
            if post.spec.name == handler
            and model in (None, post.model)
            and (device_id is None or device_id in post.devices)
            and not post.retired
        ]
        left = {(post.spec.name, post.model) for post in self._posts.values() if post not in posts}
        for name in self._preloads:
            if name[0] == handler and model in (None, name[1]) and name not in left:
                self._suspended.add(name)
        self._keep()
        return posts

    def waits(self, handler: str, model: str | None = None) -> list[Wish]:
        """Wishes that wait for room."""
        return [
            one
            for one in self._wishes.values()
            if one.cls.handler == handler and model in (None, one.cls.model)
        ]

    def waits_for(self, one: Wish) -> dict[str, Any]:
        """Why a wish waits, in words and figures."""
        figures = explain(self._view, one.cls, one.n)
        return figures | {"message": words.waiting(figures["reason"], figures)}

    def leaving(self, one: Wish) -> list[int]:
        """Executors that are about to go on the devices where it may load."""
        return sorted({each for slot in self._view.floor.lane(one.cls) for each in slot.leaving})

    def document(self, handler: str) -> dict[str, Any]:
        """What is said of them beside a handler's executors."""
        return {
            "waiting": [
                {"model": one.cls.model or None, "device": one.device_id, "preload": one.is_preload}
                | self.waits_for(one)
                for one in self.waits(handler)
            ],
            "load_failures": [
                {
                    "model": model or None,
                    "error": failure.error,
                    "at": rfc3339(failure.at),
                    "tries": failure.tries,
                    "next_try_at": None if failure.next_at is None else rfc3339(failure.next_at),
                }
                for (name, model), failure in self.failures.items()
                if name == handler
            ],
            "preload_suspended": [model or None for name, model in self._suspended if name == handler],
        }

    # What happens.

    def described(self) -> None:
        """The handlers are known anew: what failed in one that is another now is forgotten."""
        before, self._specs = self._specs, self._waiting.handlers.specs
        self._preloads = {
            (spec.name, model): spec
            for spec in self._specs.values()
            if spec.state == "ok"
            for model in preloads(spec)
        }
        self._suspended &= self._preloads.keys()
        for name in list(self.failures):
            if self._specs.get(name[0]) != before.get(name[0]):
                del self.failures[name]
                self._tries.pop(name, None)
        for one in list(self._wishes.values()):
            self._drop(one)
            self._again(one)
        self._keep()

    def before_plan(self) -> None:
        """Wish for the preloads that are missing, and drop what came true in some other way."""
        for one in list(self._wishes.values()):
            if (post := self._resident(one.cls)) is not None:
                self.met(one.n, post)
        for name, spec in self._preloads.items():
            is_there = (name[0], spec.version, name[1]) in self._view.floor.by_key
            if not is_there and name not in self._suspended and not self.waits(*name):
                failure = self.failures.get(name)
                if failure is None or failure.next_at is None or failure.next_at <= self._now():
                    self._add(self._class(spec, name[1], None, is_preload=True))

    def met(self, n: int, post: Post) -> None:
        """An executor that is there anyway is the one that is wished for."""
        one = self._wishes[n]
        self._drop(one)
        if post.loaded:
            _tell(one.tells, post)
        elif one.tells:
            self._tells.setdefault(post.executor, []).extend(one.tells)

    def resident(self, n: int) -> Post | None:
        """What has come meanwhile for a wish that waits: a job of the same plan may load it."""
        return self._resident(self._wishes[n].cls)

    def loads(self, n: int, executor: int) -> None:
        """An executor starts for the wish; its class has left the view."""
        one = self._loading[executor] = self._wishes.pop(n)
        if one.tells:
            self._tells[executor] = one.tells

    def loaded(self, post: Post) -> None:
        """An executor is ready."""
        self._loading.pop(post.executor, None)
        name = (post.spec.name, post.model)
        self.failures.pop(name, None)
        if name in self._tries:
            self._tries[name] = (self._tries[name][0], self._now())
        _tell(self._tells.pop(post.executor, ()), post)

    def gone(self, post: Post, code: str, message: str, detail: Any = None) -> None:
        """An executor has ended; where it was wished for and did not load, those who asked are told why."""
        one, tells = self._loading.pop(post.executor, None), self._tells.pop(post.executor, [])
        name = (post.spec.name, post.model)
        if code in FAULTS and (one is not None or tells or name in self._preloads):
            self._failed(name, Failure(code, message, detail, self._now()))
        if code in FAULTS or code == WITHDRAWN:
            _tell(tells, self.failures.get(name) or Failure(code, message, detail, self._now()))
        elif one is not None:
            # Nobody's fault: its worker died, or its handler was reloaded.
            self._again(one)
        elif tells:
            self._again(Wish(0, self._class(post.spec, post.model, None), tells))

    def _failed(self, name: Name, failure: Failure) -> None:
        count, ready_at = self._tries.get(name, (0, None))
        is_steady = ready_at is not None and failure.at - ready_at > STEADY_S
        tries = 1 if is_steady else count + 1
        self._tries[name] = (tries, None)
        next_at = None
        if name in self._preloads:
            next_at = failure.at + min(PAUSE_MAX_S, PAUSE_S * 2.0 ** min(tries - 1, 16))
            self._timers.at(next_at, self._wake)
        self.failures[name] = failure._replace(tries=tries, next_at=next_at)
        log.warning("%s could not be loaded: %s: %s", _title(name), failure.code, failure.message)

    # The plan's view.

    def _again(self, one: Wish) -> None:
        """Wish for it in the code that is in force now. Preloads come back by themselves."""
        if one.is_preload and not one.tells:
            return
        try:
            spec = self._waiting.handlers.require(one.cls.handler)
            self._add(self._class(spec, one.cls.model, one.device_id)).tells += one.tells
            self._wake()
        except RunnerError as error:
            _tell(one.tells, Failure(error.code, error.message, error.detail or None, self._now()))

    def _add(self, cls: JobClass) -> Wish:
        one = Wish(next(self._numbers), cls)
        self._wishes[one.n] = one
        self._view.add_waiting(cls, one.n, since=self._now())
        return one

    def _drop(self, one: Wish) -> None:
        del self._wishes[one.n]
        self._view.remove_waiting(one.cls, one.n)

    def _keep(self) -> None:
        self._view.floor.kept = {
            (name[0], spec.version, name[1])
            for name, spec in self._preloads.items()
            if name not in self._suspended
        }

    def _class(
        self, spec: HandlerSpec, model: str, device_id: str | None, *, is_preload: bool = False
    ) -> JobClass:
        """Raises NotFound for an unknown device, Unsatisfiable where it could never be loaded."""
        self._check_device(device_id)
        options = spec.options
        cls = wish(
            spec.name,
            spec.version,
            model,
            need_bytes=intake.needed_bytes(
                options, options.vram_bytes, has_gpu=self._waiting.handlers.has_gpu
            ),
            gpus=options.gpus,
            device_id=device_id,
            is_preload=is_preload,
        )
        misfit = self._view.needs.misfit(cls)
        if misfit is not None and not is_preload:
            raise Unsatisfiable(words.misfit(spec.name, misfit, device_id), **misfit)
        return cls

    def _check_device(self, device_id: str | None) -> None:
        if device_id is not None and device_id not in self._device_ids:
            known = ", ".join(self._device_ids)
            raise NotFound(f"there is no device {device_id!r}; there are {known}")

    def _resident(self, cls: JobClass) -> Post | None:
        """An executor of it that is there: one that has loaded before one that loads."""
        found = [
            self._posts[resident.executor]
            for resident in self._view.floor.by_key.get(cls.key, {}).values()
            if not cls.only or set(cls.only).issuperset(resident.devices)
        ]
        return max(found, key=lambda post: post.loaded, default=None)


def _tell(tells: Collection[Tell], what: Post | Failure) -> None:
    for tell in tells:
        tell(what)


def _title(name: Name) -> str:
    return f"{name[0]} ({name[1]})" if name[1] else name[0]
