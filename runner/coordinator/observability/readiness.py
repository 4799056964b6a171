"""Effect: the readiness of the server and each of its components, for /readyz and the start banner."""

from __future__ import annotations

import os
from typing import Any, Literal

from gpu.devices.device import Device
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.devices.device_registry import DeviceRegistry
from runner.coordinator.jobs.statistics import Statistics
from runner.coordinator.processes.front_pool import FrontPool
from runner.coordinator.processes.worker_pool import WorkerPool
from runner.coordinator.storage.journal import Journal
from runner.discovery.handler_registry import HandlerRegistry
from runner.settings.settings import Settings
from runner.stores.sqlite.access import StoreAccess

RELOAD_NOTE = "handlers are reloaded when their files are saved (for development)"


class ReadinessCheck:
    """Reads the components, changes nothing. The coordinator sets `phase` as it proceeds."""

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
        self.phase: Literal["starting", "ready", "shutting down"] = "starting"

    @property
    def is_describing(self) -> bool:
        """Whether some handlers are still being described."""
        return self._handler_registry.describing

    def check(self) -> tuple[int, dict[str, Any]]:
        """(HTTP status, document) of /readyz: `ok`, `degraded` (still 200) or `unavailable` (503)."""
        parts = self._check_parts()
        states = {part["state"] for part in parts.values()}
        if "unavailable" in states:
            return 503, {"status": "unavailable", "parts": parts}
        return 200, {"status": "degraded" if "degraded" in states else "ok", "parts": parts}

    def _check_parts(self) -> dict[str, dict[str, Any]]:
        failure = self._journal.failure
        store: dict[str, Any] = {"state": "ok", "kind": self._access.describe()}
        if failure is not None:
            store = {"state": "unavailable", "message": failure.message}
        coordinator: dict[str, Any] = {"state": "ok"}
        if self.phase != "ready":
            coordinator = {"state": "unavailable", "message": self.phase}
        parts = {"coordinator": coordinator, "store": store, "fronts": self._check_fronts()}
        for device in self._device_registry.devices.values():
            parts[f"device {device.id}"] = self._check_device(device)
        broken = self._broken_handlers()
        if broken:
            parts["handlers"] = {"state": "degraded", "message": "broken: " + ", ".join(broken)}
        return parts

    def _check_fronts(self) -> dict[str, Any]:
        answering, count = self._front_pool.answering_count, self._front_pool.count
        if answering < count:
            return {"state": "degraded", "message": f"{answering} of {count} answer"}
        return {"state": "ok"}

    def _check_device(self, device: Device) -> dict[str, Any]:
        fault = self._statistics.first_fault(device.id)
        if fault is not None:
            return {"state": "degraded", "message": fault}
        worker = self._worker_pool.worker_of(device.id)
        if device.kind != "cpu" and (worker is None or not worker.is_connected):
            return {"state": "degraded", "message": "its worker is starting"}
        return {"state": "ok", "level": self._scheduler_state.ledger.usage.level(device.id)}

    def _broken_handlers(self) -> list[str]:
        return sorted(spec.name for spec in self._handler_registry.specs.values() if spec.state == "broken")

    def build_banner(self, url: str) -> dict[str, Any]:
        """The figures that `runner serve` shows when it is ready."""
        return {
            "url": url,
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
            "store": self._access.describe(),
            "notes": self._device_registry.notes + ([RELOAD_NOTE] if self._settings.reload else []),
            "exposure": self._settings.exposure,
        }
