"""Effect: the coordinator's parts, made and joined once the store is open: the one place that knows all."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gpu.memory.context_overhead import ContextOverhead
from gpu.memory.enforcement import BACKENDS
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.devices.check_runner import DeviceCheckRunner
from runner.coordinator.devices.device_readings import DeviceReadingsHandler
from runner.coordinator.devices.device_registry import DeviceRegistry
from runner.coordinator.devices.grant_enforcer import GrantEnforcer
from runner.coordinator.devices.health_monitor import HealthMonitor
from runner.coordinator.devices.memory_monitor import MemoryMonitor
from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.front.device_requests import DeviceRequests
from runner.coordinator.front.job_action_requests import JobActionRequests
from runner.coordinator.front.prewarm_requests import PrewarmRequests
from runner.coordinator.front.queue_requests import QueueRequests
from runner.coordinator.front.read_requests import ReadRequests
from runner.coordinator.front.replies import JobReplies
from runner.coordinator.front.requests import FrontRequests, RequestHandler
from runner.coordinator.front.submit_requests import SubmitRequests
from runner.coordinator.front.subscriptions import Subscriptions
from runner.coordinator.jobs.event_json import build_event
from runner.coordinator.jobs.job_registry import JobRegistry
from runner.coordinator.jobs.statistics import Statistics
from runner.coordinator.jobs.usage import UsageTotals
from runner.coordinator.lifecycle.event_log import EventLog
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.lifecycle.job_reader import JobReader
from runner.coordinator.observability.job_explainer import JobExplainer
from runner.coordinator.observability.metrics import Metrics
from runner.coordinator.observability.queue_documents import QueueDocuments
from runner.coordinator.observability.readiness import ReadinessCheck
from runner.coordinator.observability.resources import ResourceViews
from runner.coordinator.observability.stats import StatsDocument
from runner.coordinator.processes import worker_pool
from runner.coordinator.processes.child_configs import ChildConfigs
from runner.coordinator.processes.front_pool import FrontPool
from runner.coordinator.processes.worker_pool import WorkerPool
from runner.coordinator.queue.queue_manager import QueueManager
from runner.coordinator.queue.spill import QueueBounds
from runner.coordinator.queue.timers import Timers
from runner.coordinator.reload.handler_activator import HandlerActivator
from runner.coordinator.reload.reloader import HandlerReloader
from runner.coordinator.runtime import value_names
from runner.coordinator.runtime.clock import Clock
from runner.coordinator.runtime.submission_gate import SubmissionGate
from runner.coordinator.storage.journal import Journal
from runner.coordinator.worker_events.attempt_messages import AttemptMessageHandler
from runner.coordinator.worker_events.estimate_recorder import EstimateRecorder
from runner.coordinator.worker_events.executor_messages import ExecutorMessageHandler
from runner.coordinator.worker_events.handler_calls import AttemptRequestHandler
from runner.coordinator.worker_events.message_handler import WorkerMessageHandler
from runner.discovery.handler_registry import HandlerRegistry
from runner.errors import Fenced
from runner.handlers.overrides import Overrides
from runner.protocol import front as front_protocol
from runner.protocol.worker import AttemptRequest, DeviceReadings, DevicesFound, ExecutorProcesses, OverGrant
from runner.settings.settings import Settings, reload_overrides
from runner.stores.sqlite.access import StoreAccess


@dataclass(frozen=True, slots=True)
class Ground:
    """What stands before the parts do."""

    settings: Settings
    access: StoreAccess
    epoch: int
    briefing: ChildConfigs
    fronts: FrontPool
    runtime: Path
    data: Path
    #: Begins the name of every worker of this data folder.
    marker: str
    version: str
    clock: Clock


@dataclass(frozen=True, slots=True)
class Kept:
    """What the store remembers besides jobs."""

    counts: dict[tuple[str, str], int]
    last_n: int
    values: Mapping[str, bytes]

    @classmethod
    async def read(cls, access: StoreAccess) -> Kept:
        """All of it, in one visit."""
        return await access.run_read(
            lambda store: cls(store.count_jobs(), store.last_job_number(), store.load_values(""))
        )


@dataclass(frozen=True, slots=True)
class JobComponents:
    """What accepts, keeps and ends jobs."""

    view: SchedulerState
    watch: Subscriptions
    figures: Statistics
    timers: Timers
    journal: Journal
    archive: JobReader
    line: JobLifecycle


@dataclass(frozen=True, slots=True)
class DeviceComponents:
    """What runs jobs on devices, and watches the devices."""

    memory: MemoryMonitor
    inventory: DeviceRegistry
    fleet: WorkerPool
    dispatch: Dispatcher
    learning: EstimateRecorder
    care: HealthMonitor
    overruns: GrantEnforcer
    readings: DeviceReadingsHandler


@dataclass(frozen=True, slots=True)
class FrontComponents:
    """What answers fronts."""

    gate: SubmissionGate
    plugins: HandlerRegistry
    handlers: HandlerActivator
    reloads: HandlerReloader
    metrics: Metrics
    status: ReadinessCheck
    desk: FrontRequests


@dataclass(frozen=True, slots=True)
class Rooms:
    """All components of a coordinator."""

    jobs: JobComponents
    devices: DeviceComponents
    reports: WorkerMessageHandler
    front: FrontComponents

    def front_messages(self) -> list[bytes]:
        """What a front has to know before it is asked for anything."""
        return [self.front.handlers.handlers_message(), self.devices.readings.memory_level_message()]


def build(
    ground: Ground,
    kept: Kept,
    *,
    on_fenced: Callable[[Fenced], None],
    workers: worker_pool.WorkerListener,
) -> Rooms:
    """Create the components and join them; nothing is started."""

    def wake() -> None:
        # Jobs and devices are there before the dispatcher, which plans for them.
        devices.dispatch.wake()

    jobs = build_jobs(ground, kept, on_fenced=on_fenced, wake=wake)
    devices = build_devices(ground, kept, jobs, workers=workers, wake=wake)
    reports = build_worker_events(ground, jobs, devices)
    return Rooms(jobs, devices, reports, build_front(ground, kept, jobs, devices))


def build_jobs(
    ground: Ground, kept: Kept, *, on_fenced: Callable[[Fenced], None], wake: Callable[[], None]
) -> JobComponents:
    """Create what accepts, keeps and ends jobs."""
    limits, now = ground.settings.limits, ground.clock.now
    view = SchedulerState(weights=_weights(ground.settings))
    for queue in value_names.paused_queues(kept.values):
        view.backlog.pause_queue(queue, True)
    watch, figures, timers = Subscriptions(), Statistics(), Timers(now)
    journal = Journal(
        ground.access,
        ground.epoch,
        encode_event=build_event,
        on_events=watch.publish,
        on_fenced=on_fenced,
        on_commit=figures.commit_histogram.add,
    )
    archive = JobReader(ground.access, journal, ground.data / "files")
    book = JobRegistry(kept.last_n, kept.counts)
    waiting = QueueManager(
        registry=book,
        view=view,
        journal=journal,
        timers=timers,
        now=now,
        request_plan=wake,
        fail_job=lambda live, error: line.finish(live, "failed", error),
        read_rows=archive.load_rows,
        find_job=archive.find_job,
        bounds=QueueBounds(),
    )
    line = JobLifecycle(
        registry=book,
        view=view,
        journal=journal,
        timers=timers,
        statistics=figures,
        usage_totals=UsageTotals(kept.values, now()),
        now=now,
        jitter=random.random,
        queue_manager=waiting,
        event_log=EventLog(journal, is_watched=watch.has_subscribers, events_kept=limits.events_kept),
        queued_max=limits.queued,
    )
    return JobComponents(view, watch, figures, timers, journal, archive, line)


def build_devices(
    ground: Ground,
    kept: Kept,
    jobs: JobComponents,
    *,
    workers: worker_pool.WorkerListener,
    wake: Callable[[], None],
) -> DeviceComponents:
    """Create what runs jobs on devices, and watches the devices."""
    view, now = jobs.view, ground.clock.now
    memory = _build_memory(ground, kept, jobs)
    inventory = DeviceRegistry(
        view=view,
        figures=jobs.figures,
        memory=memory,
        now=now,
        wake=wake,
        stored_values=kept.values,
        store_value=jobs.journal.set_value,
    )
    fleet = WorkerPool(
        runtime=ground.runtime,
        epoch=ground.epoch,
        marker=ground.marker,
        worker_config=ground.briefing.worker_config,
        probe_config=ground.briefing.probe_config,
        listener=workers,
    )
    dispatch = Dispatcher(
        line=jobs.line,
        view=view,
        fleet=fleet,
        devices=inventory.devices,
        read_inputs=jobs.archive.load_inputs,
        cap_bytes=memory.cap_bytes,
    )
    learning = EstimateRecorder(
        view=view,
        figures=jobs.figures,
        call_later=lambda seconds, call: jobs.timers.call_at(now() + seconds, call),
        stored_values=kept.values,
        store_value=jobs.journal.set_value,
    )
    checkup = DeviceCheckRunner(ground.briefing.executor_env(), ground.marker)
    care = HealthMonitor(
        view=view, inventory=inventory, dispatch=dispatch, run_check=checkup.run_check, now=now
    )
    overruns = GrantEnforcer(
        view=view, dispatch=dispatch, backend=BACKENDS[ground.settings.devices.enforcement]
    )
    readings = DeviceReadingsHandler(
        view=view,
        inventory=inventory,
        memory=memory,
        care=care,
        overruns=overruns,
        dispatch=dispatch,
        fronts=ground.fronts,
    )
    return DeviceComponents(memory, inventory, fleet, dispatch, learning, care, overruns, readings)


def _build_memory(ground: Ground, kept: Kept, jobs: JobComponents) -> MemoryMonitor:
    contexts = kept.values.get(value_names.CONTEXT_OVERHEAD)
    return MemoryMonitor(
        view=jobs.view,
        backend=BACKENDS[ground.settings.devices.enforcement],
        contexts=ContextOverhead.loads(msgspec.json.decode(contexts)) if contexts else ContextOverhead(),
        store_contexts=lambda text: jobs.journal.set_value(value_names.CONTEXT_OVERHEAD, text),
        now=ground.clock.now,
    )


def build_worker_events(
    ground: Ground, jobs: JobComponents, devices: DeviceComponents
) -> WorkerMessageHandler:
    """Create what takes in the messages of workers and of the probe."""
    attempts = AttemptMessageHandler(
        line=jobs.line,
        view=jobs.view,
        dispatch=devices.dispatch,
        memory=devices.memory,
        learning=devices.learning,
        on_attempt_failed=devices.care.on_attempt_ended,
        from_wall_time=ground.clock.from_wall_time,
    )
    executors = ExecutorMessageHandler(
        line=jobs.line,
        view=jobs.view,
        dispatch=devices.dispatch,
        memory=devices.memory,
        learning=devices.learning,
        attempts=attempts,
        on_stuck=devices.care.on_stuck,
        on_cleared=devices.inventory.clear_stuck,
    )
    calls = AttemptRequestHandler(archive=jobs.archive, fleet=devices.fleet)
    return WorkerMessageHandler(
        line=jobs.line,
        dispatch=devices.dispatch,
        fleet=devices.fleet,
        attempts=attempts,
        executors=executors,
        on_caught_up=devices.inventory.on_worker_ready,
        other_handlers={
            AttemptRequest: calls.on_request,
            DevicesFound: lambda _, message: devices.inventory.on_devices(message),
            DeviceReadings: lambda _, message: devices.readings.on_readings(message),
            ExecutorProcesses: lambda _, message: devices.memory.claim_processes(message),
            OverGrant: lambda _, message: devices.overruns.on_over_grant(message),
        },
    )


def build_front(
    ground: Ground, kept: Kept, jobs: JobComponents, devices: DeviceComponents
) -> FrontComponents:
    """Create what answers fronts."""
    gate = SubmissionGate()
    plugins, handlers = _build_handlers(ground, kept, jobs, devices)
    reloads = HandlerReloader(
        plugins=plugins,
        queue_manager=jobs.line.queue_manager,
        retire=devices.dispatch.control.retire_handler,
        read_overrides=lambda: Overrides(reload_overrides(ground.settings)),
        apply_overrides=handlers.replace_overrides,
        gate=gate,
    )
    metrics = Metrics(jobs.figures, ground.fronts)
    status = ReadinessCheck(
        settings=ground.settings,
        version=ground.version,
        journal=jobs.journal,
        access=ground.access,
        view=jobs.view,
        fleet=devices.fleet,
        fronts=ground.fronts,
        figures=jobs.figures,
        inventory=devices.inventory,
        plugins=plugins,
    )
    queues = QueueDocuments(line=jobs.line, view=jobs.view, dispatch=devices.dispatch)
    views = ResourceViews(
        line=jobs.line,
        view=jobs.view,
        dispatch=devices.dispatch,
        fleet=devices.fleet,
        devices=devices.inventory.devices,
        render_metrics=metrics,
        status=status,
        inventory=devices.inventory,
        health_document=devices.care.build_document,
        stats=StatsDocument(jobs.line, devices.dispatch, _weights(ground.settings)),
        queues=queues,
    )
    answerers: dict[type[Any], RequestHandler] = {
        **_job_answerers(jobs, devices, gate),
        **_document_answerers(jobs, views, handlers),
        **_operator_answerers(jobs, devices, gate, views, queues, handlers),
        front_protocol.ReloadHandlers: reloads.handle_request,
    }
    return FrontComponents(gate, plugins, handlers, reloads, metrics, status, FrontRequests(answerers))


def _build_handlers(
    ground: Ground, kept: Kept, jobs: JobComponents, devices: DeviceComponents
) -> tuple[HandlerRegistry, HandlerActivator]:
    def on_change(message: bytes) -> None:
        devices.dispatch.prewarming.on_handlers_changed()
        ground.fronts.send_all(message)
        devices.dispatch.wake()

    prefix = value_names.DESCRIPTIONS
    plugins = HandlerRegistry(
        ground.settings.handlers,
        entry_points=ground.settings.entry_points,
        env=ground.briefing.executor_env(),
        cwd=Path.cwd(),
        cache={
            name.removeprefix(prefix): text for name, text in kept.values.items() if name.startswith(prefix)
        },
        on_change=lambda: handlers.apply(),
    )
    handlers = HandlerActivator(
        plugins=plugins,
        overrides=Overrides(ground.settings.overrides),
        queue_manager=jobs.line.queue_manager,
        store_value=jobs.journal.set_value,
        on_change=on_change,
    )
    return plugins, handlers


def _job_answerers(
    jobs: JobComponents, devices: DeviceComponents, gate: SubmissionGate
) -> dict[type[Any], RequestHandler]:
    """What changes jobs, and who is sent their events."""
    replies = JobReplies(jobs.line)
    submit = SubmitRequests(line=jobs.line, replies=replies, gate=gate)
    actions = JobActionRequests(
        line=jobs.line, dispatch=devices.dispatch, archive=jobs.archive, replies=replies, gate=gate
    )
    return {
        front_protocol.SubmitJobs: submit.submit,
        front_protocol.JobAction: actions.apply_action,
        front_protocol.SubscribeEvents: lambda front, ask: jobs.watch.subscribe(front, ask.job_id),
        front_protocol.UnsubscribeEvents: lambda front, ask: jobs.watch.unsubscribe(front, ask.job_id),
    }


def _document_answerers(
    jobs: JobComponents,
    views: ResourceViews,
    handlers: HandlerActivator,
) -> dict[type[Any], RequestHandler]:
    """What only reads."""
    reads = ReadRequests(
        line=jobs.line,
        archive=jobs.archive,
        replies=JobReplies(jobs.line),
        views=views,
        explainer=JobExplainer(line=jobs.line, view=jobs.view),
        wait_for_handler=handlers.wait_for_handler,
    )
    return {
        front_protocol.GetJob: reads.get_job,
        front_protocol.ListJobs: reads.list_jobs,
        front_protocol.ReadEvents: reads.read_events,
        front_protocol.GetDocument: reads.get_document,
        front_protocol.AwaitHandler: reads.await_handler,
    }


def _operator_answerers(
    jobs: JobComponents,
    devices: DeviceComponents,
    gate: SubmissionGate,
    views: ResourceViews,
    queues: QueueDocuments,
    handlers: HandlerActivator,
) -> dict[type[Any], RequestHandler]:
    """What changes queues, devices and executors."""
    queue = QueueRequests(line=jobs.line, dispatch=devices.dispatch, queues=queues)
    device = DeviceRequests(
        inventory=devices.inventory,
        dispatch=devices.dispatch,
        care=devices.care,
        journal=jobs.journal,
        device_document=views.device_document,
    )
    loads = PrewarmRequests(
        dispatch=devices.dispatch,
        executor_document=views.executor_document,
        wait_for_handler=handlers.wait_for_handler,
        gate=gate,
    )
    return {
        front_protocol.SetQueue: queue.set_queue,
        front_protocol.SetDevice: device.set_device,
        front_protocol.LoadHandler: loads.load,
        front_protocol.UnloadHandler: loads.unload,
    }


def _weights(settings: Settings) -> dict[str, float]:
    return {name: tenant.weight for name, tenant in settings.tenants.items()}
