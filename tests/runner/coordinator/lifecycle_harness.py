"""The coordinator's rooms put together over a memory store, without processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from gpu.devices.device import Device
from gpu.memory.enforcement import BACKENDS
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.components import PersistedState
from runner.coordinator.devices.check_runner import DeviceCheckRunner
from runner.coordinator.devices.device_registry import DeviceRegistry
from runner.coordinator.devices.health_monitor import HealthMonitor
from runner.coordinator.devices.memory_monitor import MemoryMonitor
from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.jobs.attempt_end import AttemptEnd
from runner.coordinator.jobs.job_registry import JobRegistry, LiveJob
from runner.coordinator.jobs.statistics import Statistics
from runner.coordinator.jobs.usage import UsageTotals
from runner.coordinator.lifecycle.attempt_usage import AttemptUsageRecorder
from runner.coordinator.lifecycle.damaged_jobs import DamagedJobs
from runner.coordinator.lifecycle.event_log import EventLog
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.lifecycle.job_reader import JobReader
from runner.coordinator.observability.wait_statuses import WaitStatuses
from runner.coordinator.processes.worker_pool import WorkerHandle, WorkerPool
from runner.coordinator.queue.queue_manager import QueueManager
from runner.coordinator.queue.spill import QueueBounds
from runner.coordinator.queue.timers import Timers
from runner.coordinator.runtime.plan_trigger import PlanTrigger
from runner.coordinator.storage.durable_events import ALL_JOBS, DurableEvents
from runner.coordinator.storage.journal import Journal
from runner.coordinator.storage.stored_values import StoredValues
from runner.coordinator.worker_events.attempt_message_handler import AttemptMessageHandler
from runner.coordinator.worker_events.estimate_recorder import EstimateRecorder
from runner.coordinator.worker_events.executor_message_handler import ExecutorMessageHandler
from runner.coordinator.worker_events.message_handler import WorkerMessageHandler
from runner.handlers.spec import HandlerOptions, HandlerSpec, Source
from runner.jobs.event import Event
from runner.jobs.job import Job, Submission
from runner.jobs.job_query import JobQuery
from runner.protocol.worker import AttemptRequest
from runner.stores.queued_groups import group_key
from runner.stores.sqlite.access import MemoryAccess

CPU = Device("cpu", "cpu-1", "cpu", "a cpu", 8 << 30, 0, 2)


class ManualClock:
    """Time that goes on when told."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def now(self) -> float:
        return self.at

    def now_mono(self) -> float:
        return self.at

    def from_wall_time(self, wall: float) -> float:
        return wall


class RecordedValues:
    """Values that are kept in no store; tells what was put, in order."""

    def __init__(self, kept: Mapping[str, bytes] | None = None) -> None:
        self._values = dict(kept or {})
        self.written: list[tuple[str, bytes | None]] = []

    def get(self, name: str) -> bytes | None:
        return self._values.get(name)

    def find_by_prefix(self, prefix: str) -> dict[str, bytes]:
        return {name: value for name, value in self._values.items() if name.startswith(prefix)}

    def put(self, name: str, value: bytes | None) -> None:
        self.written.append((name, value))


class LifecycleHarness:
    """A lifecycle without workers: the test itself plans, starts and ends attempts."""

    def __init__(
        self,
        access: MemoryAccess,
        epoch: int,
        *,
        clock: ManualClock | None = None,
        kept: PersistedState | None = None,
        bounds: QueueBounds | None = None,
        queued_max: int = 10,
    ) -> None:
        self.access = access
        self.clock = clock or ManualClock()
        kept = kept or PersistedState({}, 0, {})
        self.published: list[tuple[str, list[str]]] = []
        self.scheduler_state = SchedulerState([CPU])
        self.durable_events = durable_events = DurableEvents()
        durable_events.subscribe(ALL_JOBS, self)
        self.journal = Journal(
            access,
            epoch,
            durable_events=durable_events,
            on_fenced=lambda fenced: None,
            on_commit=lambda seconds: None,
        )
        self.values = StoredValues(self.journal, kept.values)
        #: Without a dispatcher nobody plans.
        self.plan_trigger = PlanTrigger()
        self.job_reader = JobReader(access, self.journal)
        self.timers = Timers(self.clock)
        registry = JobRegistry(kept.last_n, kept.counts)
        self.queue_manager = QueueManager(
            registry=registry,
            scheduler_state=self.scheduler_state,
            journal=self.journal,
            timers=self.timers,
            clock=self.clock,
            plan_trigger=self.plan_trigger,
            row_reader=self.job_reader,
            bounds=bounds or QueueBounds(),
        )
        self.lifecycle = JobLifecycle(
            registry=registry,
            scheduler_state=self.scheduler_state,
            journal=self.journal,
            statistics=Statistics(),
            usage_recorder=AttemptUsageRecorder(UsageTotals({}, 0.0), self.values),
            clock=self.clock,
            jitter=lambda: 0.5,
            queue_manager=self.queue_manager,
            event_log=EventLog(self.journal, durable_events=durable_events, events_kept=100),
            queued_max=queued_max,
        )
        self.queue_manager.connect(self.lifecycle)
        self.damaged_jobs = DamagedJobs(self.lifecycle, self.queue_manager, 0)
        self.job_reader.connect(self.damaged_jobs)
        #: No time passes on its clock, so each answer comes from a forecast of its own.
        self.wait_statuses = WaitStatuses(
            queue_manager=self.queue_manager,
            scheduler_state=self.scheduler_state,
            clock=self.clock,
            monotonic=lambda: 0.0,
        )
        self.queue_manager.set_handlers({"h": spec()})
        self.estimate_recorder = EstimateRecorder(
            scheduler_state=self.scheduler_state,
            statistics=self.lifecycle.statistics,
            timers=self.timers,
            clock=self.clock,
            values=self.values,
        )

    def build_memory_monitor(self) -> MemoryMonitor:
        """What it takes to tell of bytes."""
        return MemoryMonitor(
            scheduler_state=self.scheduler_state,
            backend=BACKENDS["none"],
            values=self.values,
            clock=self.clock,
        )

    def devices(self, memory: MemoryMonitor) -> DeviceRegistry:
        """The one device, which is there from the start."""
        registry = DeviceRegistry(
            scheduler_state=self.scheduler_state,
            statistics=self.lifecycle.statistics,
            memory_monitor=memory,
            clock=self.clock,
            plan_trigger=self.plan_trigger,
            values=self.values,
        )
        registry.devices.update({CPU.id: CPU})
        return registry

    def build_message_handler(
        self,
        dispatch: Dispatcher,
        fleet: WorkerPool,
        *,
        on_call: Callable[[WorkerHandle, AttemptRequest], None] | None = None,
    ) -> WorkerMessageHandler:
        """The reports of the fleet's workers."""
        memory = self.build_memory_monitor()
        devices = self.devices(memory)
        health = HealthMonitor(
            scheduler_state=self.scheduler_state,
            device_registry=devices,
            dispatcher=dispatch,
            plan_trigger=self.plan_trigger,
            check_runner=DeviceCheckRunner({}, "r"),
            clock=self.clock,
        )
        attempts = AttemptMessageHandler(
            lifecycle=self.lifecycle,
            scheduler_state=self.scheduler_state,
            dispatcher=dispatch,
            memory_monitor=memory,
            estimate_recorder=self.estimate_recorder,
            health_monitor=health,
        )
        executors = ExecutorMessageHandler(
            lifecycle=self.lifecycle,
            scheduler_state=self.scheduler_state,
            dispatcher=dispatch,
            memory_monitor=memory,
            estimate_recorder=self.estimate_recorder,
            attempts=attempts,
            health_monitor=health,
            device_registry=devices,
        )
        return WorkerMessageHandler(
            lifecycle=self.lifecycle,
            dispatcher=dispatch,
            plan_trigger=self.plan_trigger,
            worker_pool=fleet,
            attempts=attempts,
            executors=executors,
            device_registry=devices,
            other_handlers={} if on_call is None else {AttemptRequest: on_call},
        )

    def on_events(self, job: Job, events: list[Event]) -> None:
        self.published.append((job.id, [entry.type for entry in events]))

    def start(self, live: LiveJob, *, loading: bool = False, **occupied: Any) -> None:
        """What dispatch does when it hands an attempt over."""
        self.assign(live)
        self.lifecycle.start_attempt(
            live, at=self.clock.now(), worker="w", devices=["cpu"], is_loading=loading, **occupied
        )

    def assign(self, live: LiveJob) -> None:
        """Assign the next attempt to executor 1, wherever the job waits."""
        self.queue_manager.dequeue(live)
        if live.phase != "waiting":
            job_class = live.job_class or self.queue_manager.handlers.class_of(group_key(live.job))
            assert job_class is not None
            live.mark_waiting(job_class)
        live.mark_assigned(1)

    async def pass_time(self, seconds: float) -> None:
        """The clock goes on, and what is due then happens."""
        self.clock.at += seconds
        done = asyncio.Event()
        # Before all that is armed, so that the timers look at the clock now.
        self.timers.call_at(0.0, done.set)
        await done.wait()

    def stage(self, live: LiveJob) -> None:
        """What dispatch does when it stages an attempt behind another."""
        self.assign(live)
        live.mark_staged()

    def end(self, live: LiveJob, code: str | None = None, **fields: object) -> None:
        self.lifecycle.end_attempt(live, AttemptEnd(live.job.id, 1, code, "why", **fields))  # type: ignore[arg-type]

    async def read_stored(self, job_id: str) -> Job:
        (job,) = await self.access.run_read(lambda store: store.find_jobs(JobQuery(ids=[job_id])))
        return job


def spec(**options: object) -> HandlerSpec:
    return HandlerSpec("h", "v1", "ok", Source("file", "/h.py", "h"), HandlerOptions(**options))  # type: ignore[arg-type]


def make_submission(number: int = 1, **fields: object) -> Submission:
    return Submission(f"job-{number}", "h", b"{}", **fields)  # type: ignore[arg-type]


def run(body: Callable[[LifecycleHarness], Awaitable[None]], **fields: Any) -> LifecycleHarness:
    """Play a scenario on a loop of its own, with a harness of these fields."""

    async def main() -> LifecycleHarness:
        access = MemoryAccess()
        harness = LifecycleHarness(access, await access.take_epoch(), **fields)
        await asyncio.wait_for(body(harness), 5)
        harness.timers.close()
        # Its timer could fire while the loop closes, and leave a commit that never runs.
        await harness.journal.close()
        return harness

    return asyncio.run(main())
