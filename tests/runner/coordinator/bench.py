"""The coordinator's rooms put together over a memory store, without processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gpu.device import Device
from gpu.view import View
from runner.coordinator.book import Book, Live
from runner.coordinator.figures import Figures
from runner.coordinator.happening import event
from runner.coordinator.journal import Journal
from runner.coordinator.line import Line
from runner.coordinator.timers import Timers
from runner.event import Event
from runner.job import Job, Submission
from runner.spec import HandlerSpec, Options, Source
from runner.stores import JobQuery
from runner.stores.access import MemoryAccess
from runner.wire import Ended

CPU = Device("cpu", "cpu-1", "cpu", "a cpu", 8 << 30, 0, 2)


class Clock:
    """Time that goes on when told."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def now(self) -> float:
        return self.at


class Bench:
    """A line whose plan is the test."""

    def __init__(self, access: MemoryAccess, epoch: int) -> None:
        self.access = access
        self.clock = Clock()
        self.published: list[tuple[str, list[str]]] = []
        self.view = View([CPU])
        self.journal = Journal(
            access,
            epoch,
            encode_event=event,
            on_events=self._publish,
            on_fenced=lambda fenced: None,
            on_commit=lambda seconds: None,
        )
        self.wakes = 0
        self.line = Line(
            book=Book(0, {}),
            view=self.view,
            journal=self.journal,
            timers=Timers(self.clock.now),
            figures=Figures(),
            now=self.clock.now,
            spread=lambda: 0.5,
            wake=self._wake,
            queued_max=10,
            events_kept=100,
            is_watched=lambda job_id: False,
        )
        self.line.waiting.described({"h": spec()})

    def _publish(self, job: Job, events: list[Event]) -> None:
        self.published.append((job.id, [entry.type for entry in events]))

    def _wake(self) -> None:
        self.wakes += 1

    def start(self, live: Live, *, loading: bool = False) -> None:
        """What dispatch does when it hands an attempt over."""
        if live.cls is not None:
            self.view.remove_waiting(live.cls, live.job.n)
        live.flight = live.job.attempt + (not live.spare)
        live.executor = 1
        self.line.begin(live, at=self.clock.now(), worker="w", devices=["cpu"], loading=loading)

    def hold(self, live: Live) -> None:
        """What dispatch does when it stages an attempt behind another."""
        live.where, live.flight, live.executor = "staged", live.job.attempt + 1, 1

    def end(self, live: Live, code: str | None = None, **fields: object) -> None:
        self.line.end(live, Ended(live.job.id, live.flight, 1, code, "why", **fields))  # type: ignore[arg-type]

    async def stored(self, job_id: str) -> Job:
        (job,) = await self.access.read(lambda store: store.find(JobQuery(ids=[job_id])))
        return job


def spec(**options: object) -> HandlerSpec:
    return HandlerSpec("h", "v1", "ok", Source("file", "/h.py", "h"), Options(**options))  # type: ignore[arg-type]


def asked(number: int = 1, **fields: object) -> Submission:
    return Submission(f"job-{number}", "h", b"{}", **fields)  # type: ignore[arg-type]


def run(body: Callable[[Bench], Awaitable[None]]) -> Bench:
    """Play a scene on a loop of its own."""

    async def main() -> Bench:
        access = MemoryAccess()
        bench = Bench(access, await access.take_epoch())
        await asyncio.wait_for(body(bench), 5)
        bench.line.timers.close()
        return bench

    return asyncio.run(main())
