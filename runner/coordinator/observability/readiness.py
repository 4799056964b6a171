"""Effect: the readiness of the server and its components, for /readyz and the start banner."""

from __future__ import annotations

import os
from typing import Any, Literal

from gpu.devices.device import Device
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.devices.device_registry import DeviceRegistry
from runner.coordinator.jobs.statistics import Statistics
from runner.coordinator.lifecycle.damaged_jobs import DamagedJobs
from runner.coordinator.processes.front_pool import FrontPool
from runner.coordinator.processes.worker_pool import WorkerPool
from runner.coordinator.storage.journal import Journal
from runner.discovery.handler_registry import HandlerRegistry
from runner.settings.settings import Settings
from runner.stores.sqlite.access import StoreAccess

#: Shown in the start banner with `--reload`.
RELOAD_NOTE = "handlers are reloaded when their files are saved (for development)"


class ReadinessCheck:
    """Reads the state of the components and changes nothing.

    The server is unavailable if one component is, and degraded if some of its capacity is missing.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        version: str,
        journal: Journal,
        access: StoreAccess,
        scheduler_state: SchedulerState,
        worker_pool: WorkerPool,
        front_pool: FrontPool,
        statistics: Statistics,
        device_registry: DeviceRegistry,
        handler_registry: HandlerRegistry,
        damaged_jobs: DamagedJobs,
    ) -> None:
        self._settings = settings
        self._version = version
        self._journal = journal
        self._access = access
        self._scheduler_state = scheduler_state
        self._worker_pool = worker_pool
        self._front_pool = front_pool
        self._statistics = statistics
        self._device_registry = device_registry
        self._handler_registry = handler_registry
        self._damaged_jobs = damaged_jobs
        self._store_gone: str | None = None
        self._phase: Literal["starting", "ready", "shutting down"] = "starting"

    def mark_ready(self) -> None:
        """Record that recovery is done and jobs are accepted."""
        self._phase = "ready"

    def mark_store_gone(self, message: str) -> None:
        """Record that the store's file has lost its name; the server is unavailable from now on."""
        self._store_gone = message

    def mark_shutting_down(self) -> None:
        """Record that the shutdown has begun; the server reports itself unavailable from now on."""
        self._phase = "shutting down"

    @property
    def is_describing(self) -> bool:
        """Whether handlers are still being described: some may be missing until then."""
        return self._handler_registry.describing

    @property
    def sources_being_described(self) -> list[str]:
        """The titles of the sources that are still being imported."""
        return self._handler_registry.sources_being_described

    def check(self) -> tuple[int, dict[str, Any]]:
        """Return (HTTP status, document) of /readyz: `ok` (200), `degraded` (200) or `unavailable` (503).

        The document has the state of each part. Only the store and the coordinator itself can make the server
        unavailable; a device, a front or a handler that is missing degrades it.
        """
        parts = self._check_parts()
        states = {part["state"] for part in parts.values()}
        if "unavailable" in states:
            return 503, {"status": "unavailable", "parts": parts}
        return 200, {"status": "degraded" if "degraded" in states else "ok", "parts": parts}

    def _check_parts(self) -> dict[str, dict[str, Any]]:
        """The state of each component by its name, with a message if it is not ok."""
        failure = self._journal.failure
        store: dict[str, Any] = {"state": "ok", "kind": self._access.describe()}
        if failure is not None:
            store = {"state": "unavailable", "message": failure.message}
        elif not self._access.is_writer_answering:
            store = {
                "state": "degraded",
                "message": "its writer process does not answer or is being replaced",
            }
        if self._store_gone is not None:
            store = {"state": "unavailable", "message": self._store_gone}
        coordinator: dict[str, Any] = {"state": "ok"}
        if self._phase != "ready":
            coordinator = {"state": "unavailable", "message": self._phase}
        parts = {"coordinator": coordinator, "store": store, "fronts": self._check_fronts()}
        for device in self._device_registry.devices.values():
            parts[f"device {device.id}"] = self._check_device(device)
        damaged = self._damaged_jobs.count
        if damaged:
            # They stop nothing else, so that the server is not degraded.
            message = f"{damaged} set aside, as their rows can't be read; `runner store check` lists them"
            parts["damaged jobs"] = {"state": "ok", "count": damaged, "message": message}
        broken = self._broken_handlers()
        if broken:
            parts["handlers"] = {"state": "degraded", "message": "broken: " + ", ".join(broken)}
        return parts

    def _check_fronts(self) -> dict[str, Any]:
        """The state of the fronts: degraded while one does not answer pings."""
        answering, count = self._front_pool.answering_count, self._front_pool.count
        if answering < count:
            return {"state": "degraded", "message": f"{answering} of {count} answer"}
        return {"state": "ok"}

    def _check_device(self, device: Device) -> dict[str, Any]:
        """The state of a device: degraded while it has a fault or no worker. `level` is its attribution
        level.

        The worker of the cpu device may be missing: it starts with the first job that needs it.
        """
        fault = self._statistics.first_fault(device.id)
        if fault is not None:
            return {"state": "degraded", "message": fault}
        worker = self._worker_pool.worker_of(device.id)
        if device.kind != "cpu" and (worker is None or not worker.is_connected):
            return {"state": "degraded", "message": "its worker is starting"}
        if worker is not None and worker.is_connected and not worker.is_answering:
            return {"state": "degraded", "message": "its worker does not answer"}
        return {"state": "ok", "level": self._scheduler_state.ledger.usage.level(device.id)}

    def _broken_handlers(self) -> list[str]:
        """The names of handlers whose code could not be described, sorted."""
        return sorted(spec.name for spec in self._handler_registry.specs.values() if spec.state == "broken")

    def build_banner(self, urls: list[str]) -> dict[str, Any]:
        """Return the figures that `runner serve` prints when the server is ready.

        `notes` are sentences for the operator, `exposure` says who can reach the server over TCP.
        """
        return {
            "url": urls[0],
            "other_urls": urls[1:],
            "pid": os.getpid(),
            "version": self._version,
            "devices": [
                {
                    "id": device.id,
                    "name": device.name,
                    "total_bytes": device.total_bytes,
                    "free_bytes": self._scheduler_state.ledger.figures(device.id).free_bytes,
                }
                for device in self._device_registry.devices.values()
            ],
            "handlers": {
                "ok": sum(spec.state == "ok" for spec in self._handler_registry.specs.values()),
                "broken": self._broken_handlers(),
                "describing": self._handler_registry.describing,
            },
            "store": self._access.describe_place(),
            "notes": self._device_registry.notes + ([RELOAD_NOTE] if self._settings.reload else []),
            "exposure": self._settings.exposure,
        }
