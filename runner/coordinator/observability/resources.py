"""Effect: the documents of handlers, devices, workers, statistics and readiness."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec

from gpu.devices.device import Device
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.devices.device_registry import DeviceRegistry
from runner.coordinator.devices.health_monitor import HealthMonitor
from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.jobs.statistics import Statistics, percentiles
from runner.coordinator.observability.learned import learned_document
from runner.coordinator.observability.queue_documents import QueueDocuments
from runner.coordinator.observability.readiness import ReadinessCheck
from runner.coordinator.observability.stats import StatsDocument
from runner.coordinator.processes.worker_pool import WorkerPool
from runner.coordinator.queue.queue_manager import QueueManager
from runner.errors import NotFound, unknown_handler_text
from runner.handlers.spec import HandlerSpec


class ResourceViews:
    """Builds the documents of handlers, devices and workers as JSON values, on request.

    Their fields are those of the published API (`api/openapi`).
    """

    def __init__(
        self,
        *,
        queue_manager: QueueManager,
        statistics: Statistics,
        scheduler_state: SchedulerState,
        dispatcher: Dispatcher,
        worker_pool: WorkerPool,
        readiness: ReadinessCheck,
        device_registry: DeviceRegistry,
        health_monitor: HealthMonitor,
        stats: StatsDocument,
        queues: QueueDocuments,
    ) -> None:
        self._queue_manager = queue_manager
        self._statistics = statistics
        self._scheduler_state = scheduler_state
        self._dispatcher = dispatcher
        self._worker_pool = worker_pool
        self._readiness = readiness
        self._device_registry = device_registry
        self._health_monitor = health_monitor
        self._stats = stats
        self._queues = queues

    def build_document(self, name: str, subject: str | None) -> Any:
        """Build the document that a route returns; `subject` is the queue or handler that the route names.

        Raises:
            NotFound: there is no such document, queue or handler.
        """
        match name:
            case "queues":
                return {"data": self._queues.build_all()}
            case "queue":
                return self._queues.build_existing(subject or "")
            case "handlers":
                specs = sorted(self._queue_manager.handlers.specs.values(), key=lambda spec: spec.name)
                return {
                    "data": [self._handler_document(spec) for spec in specs],
                    "describing": self._readiness.is_describing,
                    "importing": self._readiness.sources_being_described,
                }
            case "handler":
                return self._existing_handler(subject or "")
            case "devices":
                return {
                    "data": [
                        self.device_document(device) for device in self._device_registry.devices.values()
                    ]
                }
            case "workers":
                return {"data": self._worker_documents()}
            case "stats":
                return self._stats.build()
            case _:
                raise NotFound(f"there is no document {name!r}")

    # Handlers.

    def _existing_handler(self, name: str) -> dict[str, Any]:
        """Return the document of a handler, broken or not. Raises NotFound."""
        spec = self._queue_manager.handlers.specs.get(name)
        if spec is None:
            raise NotFound(unknown_handler_text(name, self._queue_manager.handlers.specs))
        return self._handler_document(spec)

    def _handler_document(self, spec: HandlerSpec) -> dict[str, Any]:
        """Return the document of a handler: its options and schemas, its executors and what was learned.

        `figures` are percentiles in seconds over the latest runs, waits and loads since the start of the
        server.
        """
        options = msgspec.to_builtins(_ShownOptions.from_spec(spec))
        statistics = self._statistics.handlers[spec.name]
        executors = self._dispatcher.executors.of_handler(spec.name)
        return {
            "name": spec.name,
            "state": spec.state,
            "version": spec.version,
            "kind": spec.kind,
            "description": spec.description,
            "source": spec.source.target,
            "error": spec.error or None,
            "input_schema": msgspec.Raw(spec.input_schema),
            "output_schema": msgspec.Raw(spec.output_schema),
            "options": options,
            "executors": [self.executor_document(executor.number) for executor in executors],
            **self._dispatcher.prewarming.build_document(spec.name),
            "learned": learned_document(
                self._scheduler_state, spec, has_gpu=self._queue_manager.handlers.has_gpu
            ),
            "figures": {
                "run_s": percentiles(statistics.run_s),
                "wait_s": percentiles(statistics.wait_s),
                "load_s": percentiles(statistics.load_s),
                "runs": statistics.run_count,
            },
        }

    # Devices and workers.

    def device_document(self, device: Device) -> dict[str, Any]:
        """Return the document of a device: its memory in bytes, its condition and the executors on it.

        `total_bytes` is the sum of headroom, foreign, reserved, draining and free bytes, less `short_bytes`:
        granted bytes that other programs took. `suspect_bytes` is the overdue part of the draining ones.
        `used_bytes` is the device's own figure.

        `health` is "ok" or the first fault of any cause; `condition` is the state of the health monitor.
        `context_bytes` is what each process uses before its first tensor; None until it was measured.
        """
        figures = self._scheduler_state.ledger.figures(device.id)
        executors = [
            self.executor_document(executor.number)
            for executor in self._dispatcher.executors.on_device(device.id)
        ]
        worker = self._worker_pool.worker_of(device.id)
        return {
            "id": device.id,
            "uuid": device.uuid,
            "kind": device.kind,
            "name": device.name,
            "total_bytes": figures.total_bytes,
            "used_bytes": figures.used_bytes,
            "reserved_bytes": figures.reserved_bytes,
            "draining_bytes": figures.draining_bytes,
            "foreign_bytes": figures.foreign_bytes,
            "free_bytes": figures.free_bytes,
            "headroom_bytes": figures.headroom_bytes,
            "suspect_bytes": figures.suspect_bytes,
            "short_bytes": figures.short_bytes,
            "level": figures.level,
            "context_bytes": self._device_registry.context_bytes(device),
            "max_executors": self._device_registry.max_executors(device),
            "max_resident": device.max_resident,
            "drained": device.id in self._device_registry.drained_ids,
            "health": self._statistics.first_fault(device.id) or "ok",
            "condition": self._health_monitor.build_document(device.id),
            "events": list(self._device_registry.events[device.id]),
            "worker": None if worker is None else worker.name,
            "executors": executors,
        }

    def executor_document(self, number: int) -> dict[str, Any]:
        """Return the document of an executor: its handler and model, its memory and its jobs.

        `granted_bytes` may be used on each device, `resident_bytes` were last seen in use there, and
        `charged_bytes` count in the ledger: at least the grant of a busy executor, the use of an idle one.
        `jobs` are the attempts assigned to it, the running ones first.
        """
        executor = self._dispatcher.executors[number]
        resident = self._scheduler_state.executors.get(number)
        return {
            "id": number,
            "handler": executor.spec.name,
            "version": executor.spec.version,
            "model": executor.model or None,
            "state": "leaving"
            if executor.is_closing
            else resident.state
            if resident is not None
            else "leaving",
            "worker": executor.worker.name,
            "devices": executor.devices,
            "granted_bytes": executor.grant_bytes,
            "resident_bytes": self._scheduler_state.ledger.usage.observed_bytes(number),
            "charged_bytes": self._scheduler_state.ledger.charge_bytes(number),
            "jobs": [live.job.id for live in executor.attempts.values()],
            "jobs_done": executor.jobs_done,
        }

    def _worker_documents(self) -> list[dict[str, Any]]:
        """Return the documents of all workers and of the probe; one is "starting" until it has connected."""
        return [
            {
                "name": worker.name,
                "pid": worker.pid,
                "role": worker.role,
                "device": None if worker.device is None else worker.device.id,
                "state": "ok" if worker.is_connected else "starting",
                "executors": [
                    self.executor_document(executor.number)
                    for executor in self._dispatcher.executors.of_worker(worker)
                ],
            }
            for worker in self._worker_pool.workers.values()
        ]

    # The server.

    def check_readiness(self) -> tuple[int, dict[str, Any]]:
        """Return (HTTP status, document) of /readyz."""
        return self._readiness.check()

    def measure_devices(self) -> dict[str, dict[str, int]]:
        """Return the memory of each device in bytes, by kind, for the metrics."""
        by_kind: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for device in self._device_registry.devices.values():
            document = self.device_document(device)
            for kind in ("used", "reserved", "draining", "foreign", "free", "total"):
                by_kind[device.id][kind] = document[f"{kind}_bytes"]
        return by_kind


class _ShownOptions(msgspec.Struct):
    """A handler's options under their names in the API; durations in seconds, sizes in bytes."""

    #: Queue of jobs that name none.
    queue: str
    #: 0: the handler uses no GPU; 2 and more: a gang.
    gpus: int
    #: Declared use of one executor on each device; None: learned.
    vram_bytes: int | None
    #: Limit of host memory of one executor; None: none.
    ram_bytes: int | None
    #: Limits of an attempt, of loading, of the wait in the queue, and of the time without an event.
    timeout_s: float | None
    load_timeout_s: float | None
    queue_timeout_s: float | None
    stall_timeout_s: float | None
    #: Time to stop by itself after a cancel or at shutdown.
    grace_s: float
    retries: int
    backoff: dict[str, Any]
    priority: int
    #: Time that an idle executor stays loaded; -1: for ever.
    keep_alive_s: float
    #: Jobs of the handler that run at once; None: no limit.
    concurrency: int | None
    #: Attempts after which an executor is replaced; None: never.
    max_jobs: int | None
    #: Field of the input that names the model; None: the handler has no models.
    model_by: str | None
    #: Fields of the input that make the size of a job.
    size_by: tuple[str, ...]
    #: Models that are kept loaded; true: the handler itself.
    preload: bool | tuple[str, ...]
    #: The declared memory is a ceiling.
    strict: bool
    #: Attempts that one executor runs side by side.
    slots: int
    batch: dict[str, Any] | None

    @classmethod
    def from_spec(cls, spec: HandlerSpec) -> _ShownOptions:
        """Take the options of a handler; `preload` is a bool for a handler without models."""
        options = spec.options
        values = {name: getattr(options, name) for name in cls.__struct_fields__}
        backoff = options.backoff
        values["preload"] = options.preload if options.model_by is not None else bool(options.preload)
        values["backoff"] = msgspec.structs.asdict(backoff)
        values["batch"] = None if options.batch is None else msgspec.structs.asdict(options.batch)
        return cls(**values)
