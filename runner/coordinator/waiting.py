"""Effect: where a queued job waits: for its handler, its time or its device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from heapq import merge

from gpu.line import JobClass
from gpu.view import View
from runner.coordinator import intake
from runner.coordinator.book import Book, Live
from runner.coordinator.timers import Timers
from runner.errors import HandlerBroken, StoreUnavailable, UnknownHandler
from runner.job import JobError
from runner.spec import HandlerSpec

#: Inputs of waiting jobs stay in memory up to this sum; beyond it they are read when needed.
INPUTS_MAX_BYTES = 256 * 1024 * 1024


class Waiting:
    """The queued jobs and why each of them waits."""

    def __init__(
        self,
        *,
        book: Book,
        view: View,
        timers: Timers,
        now: Callable[[], float],
        wake: Callable[[], None],
        give_up: Callable[[Live, JobError], None],
    ) -> None:
        self._book = book
        self._view = view
        self._timers = timers
        self._now = now
        #: Asks for a turn of the plan.
        self._wake = wake
        #: Ends a job that waited for too long.
        self._give_up = give_up
        #: Handlers that are known; replaced as a whole when descriptions come in.
        self.specs: Mapping[str, HandlerSpec] = {}
        #: Jobs whose handler is not known (yet).
        self._parked: dict[int, Live] = {}
        self.has_gpu = False
        #: The last plan's word on why the head of a class waits.
        self.reasons: Mapping[JobClass, str] = {}
        #: Bytes of the inputs that are in memory.
        self.input_bytes = 0

    def spec(self, handler: str) -> HandlerSpec:
        """A handler that works. Raises UnknownHandler or HandlerBroken."""
        spec = self.specs.get(handler)
        if spec is None or spec.state == "describing":
            known = ", ".join(sorted(self.specs)) or "none"
            raise UnknownHandler(f"there is no handler {handler!r}; known are: {known}", handler=handler)
        if spec.state == "broken":
            raise HandlerBroken(
                f"handler {handler!r} could not be imported from {spec.source.target}",
                handler=handler,
                error=spec.error,
            )
        return spec

    def resume(self, live: Live) -> None:
        """A queued job that came from the store waits on."""
        self.place(live)
        if live.job.started_at is None:
            self.limit_wait(live)

    def place(self, live: Live, *, first: bool = False) -> None:
        """Put a queued job where it has to wait: for its handler, its time or its device.

        `first`: before those that wait already; it has waited its turn once.
        """
        job = live.job
        spec = self.specs.get(job.handler)
        if spec is None or spec.state != "ok":
            live.where = "parked"
            self._parked[job.n] = live
        elif job.ready_at > self._now():
            live.where = "delayed"
            # Not the job itself: a timer must not keep one in memory that has ended.
            self._timers.at(job.ready_at, partial(self._ready, job.n))
        else:
            self._wait(live, spec, first=first)

    def described(self, specs: Mapping[str, HandlerSpec]) -> None:
        """The handlers are known anew: parked jobs may go on, and those of a handler that is another now
        wait for that one, in the order in which they waited."""
        before, self.specs = self.specs, specs
        for spec in specs.values():
            if spec.state == "ok":
                self._view.set_limit(spec.name, spec.options.concurrency)
        displaced = self._displaced(before)
        parked, self._parked = self._parked, {}
        for n in sorted(parked):
            self.place(parked[n])
        for n in displaced:
            self.place(self._book.by_n[n])

    def _displaced(self, before: Mapping[str, HandlerSpec]) -> list[int]:
        """The waiting jobs of handlers that are not what they were `before`, taken out of their lines."""
        lines: list[list[int]] = []
        for cls in self._view.classes():
            if self.specs.get(cls.handler) != before.get(cls.handler):
                lines.append(self._view.lines[cls].peek(self._view.waiting_count(cls)))
                for n in lines[-1]:
                    self._view.remove_waiting(cls, n)
        # Two lines may become one: the older job goes first then.
        return list(merge(*lines))

    def leave(self, live: Live) -> None:
        """The job waits no more: it is about to end, or was never accepted."""
        if live.where == "waiting" and live.cls is not None:
            self._view.remove_waiting(live.cls, live.job.n)
        self._parked.pop(live.job.n, None)

    def reason(self, live: Live) -> str | None:
        """The reason beside the state, as of now."""
        job = live.job
        match live.where:
            case "ended":
                return job.reason
            case "delayed":
                return job.reason or "scheduled"
            case "parked":
                return "waiting_for_handler"
            case "starting" | "running":
                if job.cancel_reason is not None:
                    return "cancelling"
                return "loading" if live.where == "starting" else "running"
            case _:
                if job.queue in self._view.paused:
                    return "paused"
                return self.reasons.get(live.cls, "ready") if live.cls is not None else "ready"

    def limit_wait(self, live: Live) -> None:
        """Arm the longest wait before the start, counted from accept (or from `run_at`)."""
        limit = live.job.terms.queue_timeout_s
        if limit is not None:
            self._timers.at(live.job.ready_at + limit, partial(self._waited_too_long, live.job.n, limit))

    def keep_input(self, live: Live, text: bytes) -> None:
        """An input was read from the store; it stays in memory from now on."""
        if live.input is None:
            live.input = text
            self.input_bytes += live.job.input_bytes

    def drop_input(self, live: Live, failure: StoreUnavailable | None = None) -> None:
        """The input of a waiting job is durable, or not wanted any more: it leaves memory."""
        if failure is None and live.where in ("waiting", "delayed", "parked") and live.input is not None:
            live.input = None
            self.input_bytes -= live.job.input_bytes

    def _wait(self, live: Live, spec: HandlerSpec, *, first: bool = False) -> None:
        job = live.job
        live.where = "waiting"
        cls = intake.job_class(job, spec, has_gpu=self.has_gpu)
        roomier = intake.roomier(job, cls)
        live.cls = cls if roomier is None or self._view.fits_ever(roomier) is not None else roomier
        self._view.add_waiting(live.cls, job.n, first=first)
        self._wake()

    def _ready(self, n: int) -> None:
        live = self._book.by_n.get(n)
        if live is not None and live.where == "delayed" and live.job.ready_at <= self._now():
            live.job.reason = None
            self.place(live)

    def _waited_too_long(self, n: int, limit_s: float) -> None:
        live = self._book.by_n.get(n)
        if live is None or live.where not in ("waiting", "parked", "delayed"):
            return
        # It has started, or it was run again since and this timer is of its earlier life.
        if live.job.started_at is not None or self._now() < live.job.ready_at + limit_s:
            return
        why = self.reason(live)
        message = f"not started within queue_timeout_s={limit_s:g}; it waited with reason {why}"
        self._give_up(live, JobError("queue_timeout", message, False))
