"""Effect: builds the coordinator's components and connects them once the store is open.

The order follows the dependencies: jobs, devices, messages of workers, fronts. Nothing is started and nothing
is read from disk here: `PersistedState` holds the stored values, and the `Coordinator` starts processes and
tasks.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu.memory.enforcement import BACKENDS
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.devices.check_runner import DeviceCheckRunner
from runner.coordinator.devices.device_readings import DeviceReadingsHandler
from runner.coordinator.devices.device_registry import DeviceRegistry
from runner.coordinator.devices.grant_enforcer import GrantEnforcer
from runner.coordinator.devices.health_monitor import HealthMonitor
from runner.coordinator.devices.host_memory_guard import HostMemoryGuard
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
from runner.coordinator.front.waiting_notifier import WaitingNotifier
from runner.coordinator.jobs.job_registry import JobRegistry
from runner.coordinator.jobs.queued_names import NameLimits
from runner.coordinator.jobs.statistics import Statistics
from runner.coordinator.jobs.usage import UsageTotals
from runner.coordinator.lifecycle.attempt_usage import AttemptUsageRecorder
from runner.coordinator.lifecycle.damaged_jobs import DamagedJobs
from runner.coordinator.lifecycle.event_log import EventLog
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.lifecycle.job_reader import JobReader
from runner.coordinator.observability.job_explainer import JobExplainer
from runner.coordinator.observability.metrics import Metrics
from runner.coordinator.observability.queue_documents import QueueDocuments
from runner.coordinator.observability.readiness import ReadinessCheck
from runner.coordinator.observability.resources import ResourceViews
from runner.coordinator.observability.stats import StatsDocument
from runner.coordinator.observability.wait_statuses import WaitStatuses
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
from runner.coordinator.runtime.plan_trigger import PlanTrigger
from runner.coordinator.runtime.submission_gate import SubmissionGate
from runner.coordinator.runtime.value_store import ValueStore
from runner.coordinator.storage.durable_events import DurableEvents
from runner.coordinator.storage.files import FileStore
from runner.coordinator.storage.journal import Journal
from runner.coordinator.storage.stored_values import StoredValues
from runner.coordinator.worker_events.attempt_message_handler import AttemptMessageHandler
from runner.coordinator.worker_events.estimate_recorder import EstimateRecorder
from runner.coordinator.worker_events.executor_message_handler import ExecutorMessageHandler
from runner.coordinator.worker_events.handler_calls import AttemptRequestHandler
from runner.coordinator.worker_events.message_handler import WorkerMessageHandler
from runner.discovery.handler_registry import HandlerRegistry
from runner.errors import Fenced
from runner.handlers.overrides import Overrides
from runner.protocol import front as front_protocol
from runner.protocol.worker import AttemptRequest, DeviceReadings, DevicesFound, ExecutorProcesses, OverGrant
from runner.settings.settings import Settings, reload_overrides
from runner.stores.damaged_row import DAMAGED
from runner.stores.sqlite.access import StoreAccess


@dataclass(frozen=True, slots=True)
class StartContext:
    """Everything that exists before the components are built."""

    settings: Settings
    access: StoreAccess
    #: Epoch of this coordinator: the store refuses its commits once another one has taken a later epoch.
    epoch: int
    child_configs: ChildConfigs
    front_pool: FrontPool
    #: Folder of the sockets; it is removed when the server ends.
    runtime_dir: Path
    #: Folder of the store, files, locks and spools; it outlives the server.
    data_dir: Path
    #: Prefix of the name of every worker of this data folder.
    marker: str
    #: Version of the installed package.
    version: str
    #: Shared by all components, so that their times can be compared.
    clock: Clock


@dataclass(frozen=True, slots=True)
class PersistedState:
    """Values besides jobs that the store holds."""

    #: (queue, state) -> number of jobs.
    counts: dict[tuple[str, str], int]
    #: Highest job number that was ever assigned; 0 in an empty store.
    last_n: int
    #: Name -> value, see `runtime.value_names`.
    values: Mapping[str, bytes]
    #: Jobs whose rows are set aside.
    damaged_count: int = 0

    @classmethod
    async def load(cls, access: StoreAccess) -> PersistedState:
        """Read all of them in one access to the store."""
        counts, last_n, values = await access.run_read(
            lambda store: (store.count_jobs(), store.last_job_number(), store.load_values(""))
        )
        damaged_count = counts.pop(("", DAMAGED), 0)
        return cls(counts, last_n, values, damaged_count)


@dataclass(frozen=True, slots=True)
class JobComponents:
    """Components that accept, keep and end jobs."""

    #: Everything that the planner sees: queued jobs, executors, devices and estimates.
    scheduler_state: SchedulerState
    #: Distributes events once they are durable.
    durable_events: DurableEvents
    #: The jobs that each front follows.
    subscriptions: Subscriptions
    #: Counters and samples since the start of this coordinator.
    statistics: Statistics
    #: All timed callbacks of the event loop.
    timers: Timers
    #: Requests planning cycles.
    plan_trigger: PlanTrigger
    #: The only way to write to the store.
    journal: Journal
    #: Named values besides jobs, written through the journal.
    values: ValueStore
    #: Reads jobs that are not in memory.
    job_reader: JobReader
    #: Files that attempts have saved.
    files: FileStore
    #: Queued jobs, in memory and spilled.
    queue_manager: QueueManager
    #: The only component that changes the state of a job; holds the registry.
    lifecycle: JobLifecycle
    #: The jobs whose rows can't be read.
    damaged_jobs: DamagedJobs
    #: How queued jobs wait.
    wait_statuses: WaitStatuses


@dataclass(frozen=True, slots=True)
class DeviceComponents:
    """Components that run jobs on devices and monitor the devices."""

    #: Assigns the memory that was measured to executors.
    memory_monitor: MemoryMonitor
    #: All devices, with their worker, their state and the operator's limits.
    device_registry: DeviceRegistry
    #: The worker of each device, and the probe.
    worker_pool: WorkerPool
    #: Plans when woken, and carries out the plan.
    dispatcher: Dispatcher
    #: Records run times and peaks for later estimates.
    estimate_recorder: EstimateRecorder
    #: Quarantines devices with faults and checks them.
    health_monitor: HealthMonitor
    #: Acts on executors that use more than they were granted.
    grant_enforcer: GrantEnforcer
    #: Passes the probe's readings to the components above.
    readings_handler: DeviceReadingsHandler


@dataclass(frozen=True, slots=True)
class FrontComponents:
    """Components that answer fronts."""

    #: Closed when shutdown begins.
    gate: SubmissionGate
    #: Finds handlers in the sources and describes them.
    handler_registry: HandlerRegistry
    #: Gives the described handlers to the queue and to fronts.
    handler_activator: HandlerActivator
    reloader: HandlerReloader
    metrics: Metrics
    #: What `/readyz` and the start banner show.
    readiness: ReadinessCheck
    #: Answers all requests of fronts.
    requests: FrontRequests


@dataclass(frozen=True, slots=True)
class Components:
    """All components of a coordinator, which live until the process ends."""

    jobs: JobComponents
    devices: DeviceComponents
    worker_messages: WorkerMessageHandler
    front: FrontComponents

    def initial_front_messages(self) -> list[bytes]:
        """The messages that a front needs before its first request."""
        return [
            self.front.handler_activator.handlers_message(),
            self.devices.readings_handler.memory_level_message(),
        ]


def build_components(
    context: StartContext,
    persisted: PersistedState,
    *,
    on_fenced: Callable[[Fenced], None],
    worker_listener: worker_pool.WorkerListener,
) -> Components:
    """Create the components and connect them; nothing is started."""
    jobs = build_jobs(context, persisted, on_fenced=on_fenced)
    devices = build_devices(context, jobs, worker_listener=worker_listener)
    worker_messages = build_worker_events(context, jobs, devices)
    return Components(jobs, devices, worker_messages, build_front(context, jobs, devices))


def _build_scheduler_state(settings: Settings, persisted: PersistedState) -> SchedulerState:
    """Build the planner's state, with the queues paused that were."""
    scheduler_state = SchedulerState(weights=_tenant_weights(settings))
    for queue in value_names.paused_queues(persisted.values):
        scheduler_state.backlog.pause_queue(queue, True)
    return scheduler_state


def _build_journal(
    context: StartContext,
    durable_events: DurableEvents,
    statistics: Statistics,
    on_fenced: Callable[[Fenced], None],
) -> Journal:
    return Journal(
        context.access,
        context.epoch,
        durable_events=durable_events,
        on_fenced=on_fenced,
        on_commit=statistics.commit_histogram.add,
    )


def build_jobs(
    context: StartContext, persisted: PersistedState, *, on_fenced: Callable[[Fenced], None]
) -> JobComponents:
    """Build the components that accept, keep and end jobs."""
    limits, clock = context.settings.limits, context.clock
    scheduler_state = _build_scheduler_state(context.settings, persisted)
    durable_events, statistics = DurableEvents(), Statistics()
    timers, plan_trigger = Timers(clock), PlanTrigger()
    journal = _build_journal(context, durable_events, statistics, on_fenced)
    values = StoredValues(journal, persisted.values)
    job_reader = JobReader(context.access, journal)
    name_limits = NameLimits(limits.queues, limits.tenants, limits.models)
    job_registry = JobRegistry(persisted.last_n, persisted.counts, name_limits)
    queue_manager = QueueManager(
        registry=job_registry,
        scheduler_state=scheduler_state,
        journal=journal,
        timers=timers,
        clock=clock,
        plan_trigger=plan_trigger,
        row_reader=job_reader,
        bounds=QueueBounds(),
    )
    lifecycle = JobLifecycle(
        registry=job_registry,
        scheduler_state=scheduler_state,
        journal=journal,
        statistics=statistics,
        usage_recorder=AttemptUsageRecorder(UsageTotals(persisted.values, clock.now()), values),
        clock=clock,
        jitter=random.random,
        queue_manager=queue_manager,
        event_log=EventLog(journal, durable_events=durable_events, events_kept=limits.events_kept),
        queued_max=limits.queued,
    )
    queue_manager.connect(lifecycle)
    damaged_jobs = DamagedJobs(lifecycle, queue_manager, persisted.damaged_count)
    job_reader.connect(damaged_jobs)
    wait_statuses = WaitStatuses(queue_manager=queue_manager, scheduler_state=scheduler_state, clock=clock)
    subscriptions = Subscriptions(durable_events)
    subscriptions.connect(WaitingNotifier(subscriptions, job_registry, journal, wait_statuses, timers, clock))
    return JobComponents(
        scheduler_state,
        durable_events,
        subscriptions,
        statistics,
        timers,
        plan_trigger,
        journal,
        values,
        job_reader,
        FileStore(context.data_dir / "files"),
        queue_manager,
        lifecycle,
        damaged_jobs,
        wait_statuses,
    )


def build_devices(
    context: StartContext, jobs: JobComponents, *, worker_listener: worker_pool.WorkerListener
) -> DeviceComponents:
    """Build the components that run jobs on devices and monitor the devices."""
    scheduler_state = jobs.scheduler_state
    memory_monitor = _build_memory_monitor(context, jobs)
    device_registry = DeviceRegistry(
        scheduler_state=scheduler_state,
        statistics=jobs.statistics,
        memory_monitor=memory_monitor,
        clock=context.clock,
        plan_trigger=jobs.plan_trigger,
        values=jobs.values,
    )
    worker_pool = _build_worker_pool(context, worker_listener)
    dispatcher = Dispatcher(
        lifecycle=jobs.lifecycle,
        queue_manager=jobs.queue_manager,
        scheduler_state=scheduler_state,
        worker_pool=worker_pool,
        timers=jobs.timers,
        devices=device_registry.devices,
        plan_trigger=jobs.plan_trigger,
        job_reader=jobs.job_reader,
        caps=memory_monitor,
    )
    estimate_recorder = _build_estimate_recorder(context, jobs)
    health_monitor = _build_health_monitor(context, jobs, device_registry, dispatcher)
    grant_enforcer = GrantEnforcer(
        scheduler_state=scheduler_state,
        dispatcher=dispatcher,
        backend=BACKENDS[context.settings.devices.enforcement],
    )
    host_memory = HostMemoryGuard(
        scheduler_state=scheduler_state,
        device_registry=device_registry,
        dispatcher=dispatcher,
        plan_trigger=jobs.plan_trigger,
    )
    readings_handler = DeviceReadingsHandler(
        scheduler_state=scheduler_state,
        device_registry=device_registry,
        memory_monitor=memory_monitor,
        health_monitor=health_monitor,
        grant_enforcer=grant_enforcer,
        host_memory=host_memory,
        dispatcher=dispatcher,
        front_pool=context.front_pool,
    )
    return DeviceComponents(
        memory_monitor,
        device_registry,
        worker_pool,
        dispatcher,
        estimate_recorder,
        health_monitor,
        grant_enforcer,
        readings_handler,
    )


def _build_worker_pool(context: StartContext, listener: worker_pool.WorkerListener) -> WorkerPool:
    return WorkerPool(
        runtime=context.runtime_dir,
        epoch=context.epoch,
        marker=context.marker,
        worker_config=context.child_configs.worker_config,
        probe_config=context.child_configs.probe_config,
        listener=listener,
    )


def _build_estimate_recorder(context: StartContext, jobs: JobComponents) -> EstimateRecorder:
    return EstimateRecorder(
        scheduler_state=jobs.scheduler_state,
        statistics=jobs.statistics,
        timers=jobs.timers,
        clock=context.clock,
        values=jobs.values,
    )


def _build_health_monitor(
    context: StartContext, jobs: JobComponents, device_registry: DeviceRegistry, dispatcher: Dispatcher
) -> HealthMonitor:
    return HealthMonitor(
        scheduler_state=jobs.scheduler_state,
        device_registry=device_registry,
        dispatcher=dispatcher,
        plan_trigger=jobs.plan_trigger,
        check_runner=DeviceCheckRunner(context.child_configs.executor_env(), context.marker),
        clock=context.clock,
    )


def _build_memory_monitor(context: StartContext, jobs: JobComponents) -> MemoryMonitor:
    return MemoryMonitor(
        scheduler_state=jobs.scheduler_state,
        backend=BACKENDS[context.settings.devices.enforcement],
        values=jobs.values,
        clock=context.clock,
    )


def build_worker_events(
    context: StartContext, jobs: JobComponents, devices: DeviceComponents
) -> WorkerMessageHandler:
    """Build the handlers of messages from workers and the probe."""
    attempts = AttemptMessageHandler(
        lifecycle=jobs.lifecycle,
        scheduler_state=jobs.scheduler_state,
        dispatcher=devices.dispatcher,
        memory_monitor=devices.memory_monitor,
        estimate_recorder=devices.estimate_recorder,
        health_monitor=devices.health_monitor,
    )
    executors = ExecutorMessageHandler(
        lifecycle=jobs.lifecycle,
        scheduler_state=jobs.scheduler_state,
        dispatcher=devices.dispatcher,
        memory_monitor=devices.memory_monitor,
        estimate_recorder=devices.estimate_recorder,
        attempts=attempts,
        health_monitor=devices.health_monitor,
        device_registry=devices.device_registry,
    )
    requests = AttemptRequestHandler(files=jobs.files, worker_pool=devices.worker_pool)
    return WorkerMessageHandler(
        lifecycle=jobs.lifecycle,
        dispatcher=devices.dispatcher,
        plan_trigger=jobs.plan_trigger,
        worker_pool=devices.worker_pool,
        attempts=attempts,
        executors=executors,
        device_registry=devices.device_registry,
        other_handlers={
            AttemptRequest: requests.on_request,
            DevicesFound: lambda _, message: devices.device_registry.on_devices(message),
            DeviceReadings: lambda _, message: devices.readings_handler.on_readings(message),
            ExecutorProcesses: lambda _, message: devices.memory_monitor.claim_processes(message),
            OverGrant: lambda _, message: devices.grant_enforcer.on_over_grant(message),
        },
    )


def build_front(context: StartContext, jobs: JobComponents, devices: DeviceComponents) -> FrontComponents:
    """Build the components that answer fronts."""
    gate = SubmissionGate()
    handler_registry, handler_activator = _build_handlers(context, jobs, devices)
    reloader = HandlerReloader(
        handler_registry=handler_registry,
        handler_activator=handler_activator,
        queue_manager=jobs.queue_manager,
        retire=devices.dispatcher.control.retire_handler,
        read_overrides=lambda: Overrides(reload_overrides(context.settings)),
        gate=gate,
    )
    metrics = Metrics(jobs.lifecycle, devices.worker_pool, context.front_pool)
    readiness = _build_readiness(context, jobs, devices, handler_registry)
    queues = QueueDocuments(
        lifecycle=jobs.lifecycle,
        queue_manager=jobs.queue_manager,
        scheduler_state=jobs.scheduler_state,
        dispatcher=devices.dispatcher,
    )
    resource_views = ResourceViews(
        queue_manager=jobs.queue_manager,
        statistics=jobs.statistics,
        scheduler_state=jobs.scheduler_state,
        dispatcher=devices.dispatcher,
        worker_pool=devices.worker_pool,
        readiness=readiness,
        device_registry=devices.device_registry,
        health_monitor=devices.health_monitor,
        stats=StatsDocument(
            jobs.lifecycle, jobs.queue_manager, devices.dispatcher, _tenant_weights(context.settings)
        ),
        queues=queues,
    )
    request_handlers: dict[type[Any], RequestHandler] = {
        **_job_request_handlers(jobs, devices, gate),
        **_document_request_handlers(jobs, resource_views, metrics, handler_activator),
        **_operator_request_handlers(jobs, devices, gate, resource_views, queues, handler_activator),
        front_protocol.ReloadHandlers: reloader.handle_request,
    }
    return FrontComponents(
        gate,
        handler_registry,
        handler_activator,
        reloader,
        metrics,
        readiness,
        FrontRequests(request_handlers),
    )


def _build_readiness(
    context: StartContext, jobs: JobComponents, devices: DeviceComponents, handler_registry: HandlerRegistry
) -> ReadinessCheck:
    return ReadinessCheck(
        settings=context.settings,
        version=context.version,
        journal=jobs.journal,
        access=context.access,
        scheduler_state=jobs.scheduler_state,
        worker_pool=devices.worker_pool,
        front_pool=context.front_pool,
        statistics=jobs.statistics,
        device_registry=devices.device_registry,
        handler_registry=handler_registry,
        damaged_jobs=jobs.damaged_jobs,
    )


def _build_handlers(
    context: StartContext, jobs: JobComponents, devices: DeviceComponents
) -> tuple[HandlerRegistry, HandlerActivator]:
    def on_change(message: bytes) -> None:
        devices.dispatcher.prewarming.on_handlers_changed()
        context.front_pool.send_all(message)
        jobs.plan_trigger.wake()

    prefix = value_names.DESCRIPTIONS
    handler_registry = HandlerRegistry(
        context.settings.handlers,
        entry_points=context.settings.entry_points,
        env=context.child_configs.executor_env(),
        cwd=Path.cwd(),
        cache={name.removeprefix(prefix): text for name, text in jobs.values.find_by_prefix(prefix).items()},
        on_change=lambda: handler_activator.apply(),
        marker=f"{context.marker}.describe",
    )
    handler_activator = HandlerActivator(
        handler_registry=handler_registry,
        overrides=Overrides(context.settings.overrides),
        queue_manager=jobs.queue_manager,
        values=jobs.values,
        on_change=on_change,
    )
    return handler_registry, handler_activator


def _job_request_handlers(
    jobs: JobComponents, devices: DeviceComponents, gate: SubmissionGate
) -> dict[type[Any], RequestHandler]:
    """Handlers of requests that change jobs or subscribe to their events."""
    replies = JobReplies(jobs.queue_manager, jobs.journal, jobs.wait_statuses)
    submit = SubmitRequests(
        lifecycle=jobs.lifecycle, queue_manager=jobs.queue_manager, replies=replies, gate=gate
    )
    actions = JobActionRequests(
        lifecycle=jobs.lifecycle,
        queue_manager=jobs.queue_manager,
        dispatcher=devices.dispatcher,
        job_reader=jobs.job_reader,
        files=jobs.files,
        replies=replies,
        gate=gate,
        damaged_jobs=jobs.damaged_jobs,
    )
    return {
        front_protocol.SubmitJobs: submit.submit,
        front_protocol.JobAction: actions.apply_action,
        front_protocol.SubscribeEvents: lambda front, request: jobs.subscriptions.subscribe(
            front, request.job_id
        ),
        front_protocol.UnsubscribeEvents: lambda front, request: jobs.subscriptions.unsubscribe(
            front, request.job_id
        ),
    }


def _document_request_handlers(
    jobs: JobComponents,
    resource_views: ResourceViews,
    metrics: Metrics,
    handler_activator: HandlerActivator,
) -> dict[type[Any], RequestHandler]:
    """Handlers of requests that only read."""
    reads = ReadRequests(
        lifecycle=jobs.lifecycle,
        queue_manager=jobs.queue_manager,
        job_reader=jobs.job_reader,
        files=jobs.files,
        replies=JobReplies(jobs.queue_manager, jobs.journal, jobs.wait_statuses),
        resource_views=resource_views,
        metrics=metrics,
        explainer=JobExplainer(
            queue_manager=jobs.queue_manager,
            scheduler_state=jobs.scheduler_state,
            statistics=jobs.statistics,
            clock=jobs.lifecycle.clock,
            wait_statuses=jobs.wait_statuses,
        ),
        handler_activator=handler_activator,
        wait_statuses=jobs.wait_statuses,
    )
    return {
        front_protocol.GetJob: reads.get_job,
        front_protocol.ListJobs: reads.list_jobs,
        front_protocol.ReadEvents: reads.read_events,
        front_protocol.GetDocument: reads.get_document,
        front_protocol.AwaitHandler: reads.await_handler,
    }


def _operator_request_handlers(
    jobs: JobComponents,
    devices: DeviceComponents,
    gate: SubmissionGate,
    resource_views: ResourceViews,
    queues: QueueDocuments,
    handler_activator: HandlerActivator,
) -> dict[type[Any], RequestHandler]:
    """Handlers of requests that change queues, devices and executors."""
    queue_requests = QueueRequests(
        lifecycle=jobs.lifecycle, plan_trigger=jobs.plan_trigger, values=jobs.values, queues=queues
    )
    device_requests = DeviceRequests(
        device_registry=devices.device_registry,
        dispatcher=devices.dispatcher,
        plan_trigger=jobs.plan_trigger,
        health_monitor=devices.health_monitor,
        journal=jobs.journal,
        resource_views=resource_views,
    )
    prewarm_requests = PrewarmRequests(
        dispatcher=devices.dispatcher,
        plan_trigger=jobs.plan_trigger,
        resource_views=resource_views,
        handler_activator=handler_activator,
        gate=gate,
    )
    return {
        front_protocol.SetQueue: queue_requests.set_queue,
        front_protocol.SetDevice: device_requests.set_device,
        front_protocol.LoadHandler: prewarm_requests.load,
        front_protocol.UnloadHandler: prewarm_requests.unload,
    }


def _tenant_weights(settings: Settings) -> dict[str, float]:
    return {name: tenant.weight for name, tenant in settings.tenants.items()}
