"""Effect: where a queued job waits: for its handler, its time or its device."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from heapq import merge
from typing import Literal

from gpu.job_class import JobClass
from gpu.view import View
from runner.coordinator import intake
from runner.coordinator.book import Book, Live
from runner.coordinator.column import Column
from runner.coordinator.journal import Journal
from runner.coordinator.lots import Lot, Lots
from runner.coordinator.sleep import Bounds, Find, Rows, Sleep
from runner.coordinator.timers import Timers
from runner.errors import HandlerBroken, UnknownHandler
from runner.job import Job, JobError
from runner.spec import HandlerSpec
from runner.stores.queued import LotKey, QueuedLot, lot_key, moment

log = logging.getLogger(__name__)


class Waiting:
    """The queued jobs and why each of them waits.

    The first jobs of each class are in the plan's view. Behind them, and where a time has to come first,
    only numbers are kept for sure (`Lots`); the jobs themselves may be in memory or asleep in the store.
    """

    def __init__(
        self,
        *,
        book: Book,
        view: View,
        journal: Journal,
        timers: Timers,
        now: Callable[[], float],
        wake: Callable[[], None],
        give_up: Callable[[Live, JobError], None],
        rows: Rows,
        find: Find,
        bounds: Bounds,
    ) -> None:
        self._book = book
        self._view = view
        self._timers = timers
        self._now = now
        #: Asks for a turn of the plan.
        self._wake = wake
        #: Ends a job that waited for too long.
        self._give_up = give_up
        self._bounds = bounds
        self._lots = Lots(self.class_of)
        self.sleep = Sleep(book=book, lots=self._lots, journal=journal, rows=rows, find=find, bounds=bounds)
        #: Handlers that are known; replaced as a whole when descriptions come in.
        self.specs: Mapping[str, HandlerSpec] = {}
        self.has_gpu = False
        #: The last plan's word on why the head of a class waits.
        self.reasons: Mapping[JobClass, str] = {}
        #: Until when jobs have to start that never did.
        self._limits = Column()
        self._limit_armed_at = math.inf
        #: Classes whose window may be short of jobs, in the order in which that was seen.
        self._low: dict[JobClass, None] = {}
        #: Classes that follow when rows have been read.
        self._wanted: dict[JobClass, None] = {}
        self._reader: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # Handlers.

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

    def described(self, specs: Mapping[str, HandlerSpec]) -> None:
        """The handlers are known anew: who waited for one may go on, and the jobs of a handler that is
        another now wait for that one, in the order in which they waited."""
        before, self.specs = self.specs, specs
        for spec in specs.values():
            if spec.state == "ok":
                intake.tell(spec, self._view)
        self._lots.classify()
        for n in self._displaced(before):
            self.place(self._book.by_n[n])
        for cls in self._lots.classes():
            self._follow(cls)
        self.refill()

    def class_of(self, key: LotKey) -> JobClass | None:
        """The class of a lot's jobs; None while their handler is not there."""
        spec = self.specs.get(key.handler)
        if spec is None or spec.state != "ok":
            return None
        return intake.class_of(key, spec, has_gpu=self.has_gpu)

    def _displaced(self, before: Mapping[str, HandlerSpec]) -> list[int]:
        """The jobs in view of handlers that are not what they were `before`, taken out of their lines."""
        lines: list[list[int]] = []
        for cls in self._view.backlog.classes():
            if not cls.is_wish and self.specs.get(cls.handler) != before.get(cls.handler):
                lines.append(self._view.backlog.lines[cls].peek(self._view.backlog.count(cls)))
                for n in lines[-1]:
                    self._view.remove_waiting(cls, n)
        # Two lines may become one: the older job goes first then.
        return list(merge(*lines))

    # Coming and going.

    def load(self, stored: Iterable[QueuedLot]) -> None:
        """Take in all that waits in the store."""
        for lot in stored:
            self._lots.load(lot)
            for at, n in zip(lot.limits.moments, lot.limits.ns, strict=True):
                self._limits.add(at, n)
        for each in list(self._lots):
            self._arm(each)
        self._arm_limits()

    def place(self, live: Live, cls: JobClass | None = None, *, first: bool = False) -> None:
        """Put a queued job where it has to wait: for its handler, its time or its device.

        `cls` is its class where that is at hand. `first`: before those that wait already; it has waited its
        turn once.
        """
        job = live.job
        if job.start_by is not None:
            self._limit(job.n, job.start_by)
        if job.ready_at > self._now():
            live.where = "delayed"
            self._arm(self._lots.delay(job))
            self.sleep.rest(live)
            return
        cls = cls or self.class_of(lot_key(job))
        if cls is not None:
            room = self._view.backlog.count(cls) < self._window
            if first or (room and not self._lots.count(cls)):
                self._wait(live, cls, first=first)
                return
        live.where = "behind"
        lot = self._lots.add(job)
        if lot.cls is not None:
            self._follow(lot.cls)
        self.sleep.rest(live)

    def leave(self, live: Live) -> None:
        """The job waits no more: it is about to start or to end, or was never accepted."""
        job = live.job
        if job.start_by is not None:
            self._limits.discard(moment(job.start_by), job.n)
        if live.where == "waiting" and live.cls is not None:
            self._view.remove_waiting(live.cls, job.n)
            self.taken(live.cls)
        elif live.where in ("behind", "delayed", "asleep"):
            self._lots.remove(job)

    def taken(self, cls: JobClass) -> None:
        """Jobs of this class have left its window."""
        if self._lots.count(cls):
            self._follow(cls)

    def refill(self) -> None:
        """Let those behind follow where windows are short; once before each plan."""
        if not self._low:
            return
        low, self._low = self._low, {}
        for cls in sorted(low, key=_urgency):
            self._fill(cls)

    # What is said of a job.

    def reason(self, live: Live) -> str | None:
        """The reason beside the state, as of now."""
        job = live.job
        match live.where:
            case "ended":
                return job.reason
            case "delayed" | "behind" | "asleep":
                return self.reason_of(job)
            case "starting" | "running":
                if job.cancel_reason is not None:
                    return "cancelling"
                return "loading" if live.where == "starting" else "running"
            case _:
                return self._class_reason(live.cls, job.queue)

    def reason_of(self, job: Job) -> str | None:
        """The reason beside the state of a job that is not in memory."""
        if job.state != "queued":
            return job.reason
        if job.ready_at > self._now():
            return job.reason or "scheduled"
        cls = self.class_of(lot_key(job))
        return "waiting_for_handler" if cls is None else self._class_reason(cls, job.queue)

    def where(self, job: Job) -> Literal["behind", "delayed"] | None:
        """How a job waits that is not in memory; None where it does not."""
        return self._lots.where(job)

    def tally(self) -> Iterator[tuple[str, str, int, float | None]]:
        """(queue, reason, jobs, since when the first of them is ready) of all that waits in line."""
        for cls, line in self._view.backlog.lines.items():
            if cls.is_wish:
                continue
            since = self._book.by_n[line.head].job.ready_at
            yield cls.queue, self._class_reason(cls, cls.queue), len(line), since
        for lot in self._lots:
            queue, cls_, ready = lot.key.queue, lot.cls, len(lot.ready)
            if ready:
                why = "waiting_for_handler" if cls_ is None else self._class_reason(cls_, queue)
                yield queue, why, ready, None if cls_ in self._view.backlog.lines else lot.since
            for why, column in lot.delayed.items():
                if column:
                    yield queue, why, len(column), None

    def outside_by_tenant(self) -> Counter[str]:
        """How many jobs of each tenant wait outside the plan's view."""
        return self._lots.count_by_tenant()

    def ahead(self, cls: JobClass, n: int) -> int:
        """How many wait outside the plan's view and go before job `n` of this class."""
        lane = self._view.floor.lane(cls)
        count = 0
        for lot in self._lots:
            other = lot.cls
            if other is None or other.priority < cls.priority or self._view.floor.lane(other) is not lane:
                continue
            count += len(lot.ready) if other.priority > cls.priority else lot.ready.rank(0, n)
        return count

    def _class_reason(self, cls: JobClass | None, queue: str) -> str:
        if queue in self._view.backlog.paused:
            return "paused"
        return self.reasons.get(cls, "ready") if cls is not None else "ready"

    # Windows.

    @property
    def _window(self) -> int:
        """How many jobs of a class may be in the plan's view."""
        bounds = self._bounds
        return bounds.window if len(self._book) < bounds.live else bounds.small_window

    def _follow(self, cls: JobClass) -> None:
        if cls not in self._low and self._view.backlog.count(cls) <= self._window // 2:
            self._low[cls] = None
            self._wake()

    def _wait(self, live: Live, cls: JobClass, *, first: bool = False) -> None:
        live.where = "waiting"
        live.cls = intake.placed(live.job, cls, self._view)
        self._view.add_waiting(live.cls, live.job.n, first=first, since=live.job.ready_at)
        self._wake()

    def _fill(self, cls: JobClass) -> None:
        """Let the first ones behind follow into the window, as far as memory holds them."""
        waiting = self._view.backlog.count(cls)
        if waiting > self._window // 2:
            return
        ns = self._lots.lowest(cls, self._window - waiting)
        lives = [self._book.by_n.get(n) for n in ns]
        known = lives.index(None) if None in lives else len(lives)
        present = [live for live in lives[:known] if live is not None]
        if present:
            self._lots.take(cls, ns[:known], present[-1].job.ready_at)
            for live in present:
                self._wait(live, cls)
        if known < len(ns):
            self._wanted[cls] = None
            if self._reader is None:
                self._reader = asyncio.get_running_loop().create_task(self._read_wanted())

    async def _read_wanted(self) -> None:
        """Take in rows until no window is short; those of high priority first."""
        try:
            while self._wanted:
                ns: list[int] = []
                classes: list[JobClass] = []
                for cls in sorted(self._wanted, key=_urgency):
                    room = min(self._window - self._view.backlog.count(cls), self._bounds.read_rows - len(ns))
                    if room <= 0 and classes:
                        break
                    classes.append(cls)
                    ns += [n for n in self._lots.lowest(cls, max(1, room)) if n not in self._book.by_n]
                if ns:
                    await self.sleep.bring(ns)
                for cls in classes:
                    self._wanted.pop(cls, None)
                    self._fill(cls)
        except Exception:
            # The task's boundary: a class that is still short asks again when its next job has left.
            log.exception("jobs that wait could not follow into the plan's view")
        finally:
            self._reader = None

    # Moments.

    def _arm(self, lot: Lot) -> None:
        """Set the timer for the first of a lot's delayed jobs."""
        at = lot.next_moment
        if at is not None and at < lot.armed_at:
            lot.armed_at = at
            self._timers.at(at / 1000, partial(self._due, lot))

    def _due(self, lot: Lot) -> None:
        lot.armed_at = math.inf
        for n in self._lots.due(lot, self._moment_now(), self._bounds.due):
            live = self._book.by_n.get(n)
            if live is not None:
                live.job.reason = None
                self.place(live)
            else:
                ripe = self._lots.ripen(lot.key, n)
                if ripe.cls is not None:
                    self._follow(ripe.cls)
        self._arm(lot)

    def _limit(self, n: int, start_by: float) -> None:
        self._limits.add(moment(start_by), n)
        self._arm_limits()

    def _arm_limits(self) -> None:
        head = self._limits.head
        if head is not None and head[0] < self._limit_armed_at:
            self._limit_armed_at = head[0]
            self._timers.at(head[0] / 1000, self._limits_due)

    def _limits_due(self) -> None:
        """The longest wait of some jobs is over. Those asleep have to be taken in before they end."""
        self._limit_armed_at = math.inf
        asleep: list[int] = []
        for n in self._limits.take_until(self._moment_now(), self._bounds.due):
            live = self._book.by_n.get(n)
            if live is None:
                asleep.append(n)
            else:
                self._waited_too_long(live)
        if not asleep:
            self._arm_limits()
            return
        task = asyncio.get_running_loop().create_task(self._end_asleep(asleep))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end_asleep(self, ns: list[int]) -> None:
        await self.sleep.bring(ns)
        for n in ns:
            live = self._book.by_n.get(n)
            try:
                if live is not None:
                    self._waited_too_long(live)
            except Exception:
                log.exception("a job that waited too long could not be ended: number %d", n)
        self._arm_limits()

    def _waited_too_long(self, live: Live) -> None:
        start_by = live.job.start_by
        # One that is about to start gets its limit again if it comes back.
        if live.where not in ("waiting", "behind", "delayed") or start_by is None:
            return
        if self._now() < start_by:
            self._limit(live.job.n, start_by)
            return
        limit_s = live.job.terms.queue_timeout_s
        message = f"not started within queue_timeout_s={limit_s:g}; it waited with reason {self.reason(live)}"
        self._give_up(live, JobError("queue_timeout", message, False))

    def _moment_now(self) -> int:
        # A little more: a timer for a moment must find that it has come.
        return int(self._now() * 1000 + 0.01)


def _urgency(cls: JobClass) -> int:
    return -cls.priority
