"""Effect: quarantines unhealthy GPUs, runs checks on them and returns them to service."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from gpu.devices import xid_codes
from gpu.devices.device import Device
from gpu.devices.health import HealthState, HealthStatus
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.devices.check_runner import DeviceCheckRunner
from runner.coordinator.devices.device_registry import DeviceRegistry
from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.jobs.attempt_end import AttemptEnd
from runner.coordinator.runtime.background_tasks import BackgroundTasks
from runner.coordinator.runtime.clock import Clock
from runner.coordinator.runtime.plan_trigger import PlanTrigger
from runner.formats.timestamps import format_rfc3339
from runner.formats.units import format_bytes
from runner.protocol.worker import DeviceReadings

log = logging.getLogger(__name__)

#: The cause under which the device registry records the faults that this monitor sets.
FAULT_CAUSE = "health"


class HealthMonitor:
    """Quarantines unhealthy GPUs, runs health checks on them and returns them to service.

    Each GPU has a `HealthState`, which decides. This class feeds it with readings, Xid errors and failed
    attempts, and applies its state after each event and once a second.
    """

    def __init__(
        self,
        *,
        scheduler_state: SchedulerState,
        device_registry: DeviceRegistry,
        dispatcher: Dispatcher,
        plan_trigger: PlanTrigger,
        check_runner: DeviceCheckRunner,
        clock: Clock,
    ) -> None:
        self._scheduler_state = scheduler_state
        self._device_registry = device_registry
        self._dispatcher = dispatcher
        self._plan_trigger = plan_trigger
        self._check_runner = check_runner
        self._clock = clock
        self._started_at = clock.now()
        #: GPU -> its health; without an entry, the GPU had no event yet.
        self._health: dict[str, HealthState] = {}
        #: Device -> the state that was last applied, and whether the device needed a reset.
        self._applied: dict[str, tuple[HealthStatus, bool]] = {}
        self._checks = BackgroundTasks()

    # Events.

    def on_readings(self, message: DeviceReadings) -> None:
        """Record a reading of all devices: their faults, their Xid errors and overdue memory."""
        for device in self._gpus():
            health, now = self._health_of(device.id), self._clock.now()
            if device.kind == "nvidia":
                health.record_reading(now, message.faults.get(device.id))
                self._check_overdue_memory(device.id, health, now)
        for device_id, code in message.xids:
            if device_id in self._device_registry.devices:
                self._on_xid(device_id, code)
        self.evaluate()

    def find_lost_device(self, device_ids: Sequence[str]) -> str | None:
        """Return the id of the first of these devices that is lost; None if none is."""
        gpus = self._gpus(device_ids)
        return next((each.id for each in gpus if self._health_of(each.id).state == "lost"), None)

    def on_attempt_failed(self, end: AttemptEnd, device_ids: Sequence[str], handler: str) -> None:
        """Record a fault of the devices of a failed attempt if they may be to blame."""
        if not end.may_blame_device:
            return
        for device in self._gpus(device_ids):
            message = f"a job of {handler} lost its context: {end.message[:200]}"
            self._health_of(device.id).record_fault(
                self._clock.now(), "context", end.job_id, message, program=handler
            )
        self.evaluate()

    def on_stuck(self, executor: int, device_ids: Sequence[str]) -> set[str]:
        """Record that an executor hangs in a driver and survived SIGKILL; return the devices that close
        because of it."""
        closed_ids = self._device_registry.mark_stuck(executor, device_ids)
        for device in self._gpus(device_ids):
            message = f"executor {executor} survived SIGKILL"
            self._health_of(device.id).record_fault(self._clock.now(), "driver", str(executor), message)
        self.evaluate()
        return closed_ids

    def resume_device(self, device_id: str) -> None:
        """Return the device to service at the operator's request."""
        if self._device_registry.devices[device_id].kind != "cpu":
            self._health_of(device_id).resume(self._clock.now())
            self.evaluate()

    # Actions.

    def evaluate(self) -> None:
        """Apply state changes and start a health check on every device that is due one."""
        for device in self._gpus():
            health = self._health_of(device.id)
            health.expire(self._clock.now())
            self._apply(device, health)
            if health.needs_check(self._clock.now()):
                health.is_checking = True
                self._checks.start(self._check_device(device, health))

    def build_document(self, device_id: str) -> dict[str, Any]:
        """Build the document of a device's condition: `state`, `since` and `message`."""
        fault = self._device_registry.get_fault(device_id)
        health = self._health.get(device_id)
        if health is None or (health.takes_work and fault is not None):
            if fault is None:
                return {"state": "ok", "since": format_rfc3339(self._started_at), "message": ""}
            # The health is unknown: readings are missing, or the device has a fault of another cause.
            return {"state": "unknown", "since": format_rfc3339(fault[1]), "message": fault[0]}
        return {"state": health.state, "since": format_rfc3339(health.since), "message": health.reason}

    async def _check_device(self, device: Device, health: HealthState) -> None:
        """Run a health check and record its result."""
        try:
            failure = await self._check_runner.run_check(device)
        except Exception as error:
            # The task's boundary: otherwise the device would count as being checked for ever.
            log.exception("the health check of device %s failed to run", device.id)
            failure = f"{type(error).__name__}: {error}"
        health.record_check(self._clock.now(), failure)
        log.info("health check of device %s: %s", device.id, failure or "passed")
        self.evaluate()

    def _apply(self, device: Device, health: HealthState) -> None:
        """Apply the state of a GPU: open or close it, and kill or retire its executors when it has
        changed."""
        slot = self._scheduler_state.residency.slots[device.id]
        if slot.is_proven != health.is_proven:
            slot.is_proven = health.is_proven
            self._plan_trigger.wake()
        description = f"{health.state}: {health.reason}" + (
            "; it needs a reset" if health.needs_reset else ""
        )
        self._device_registry.set_fault(device.id, FAULT_CAUSE, None if health.takes_work else description)
        before, current = self._applied.get(device.id, ("ok", False)), (health.state, health.needs_reset)
        if before == current:
            return
        self._applied[device.id] = current
        if health.takes_work:
            self._device_registry.record_event(device.id, health.state, health.reason or "healthy")
        level = logging.INFO if health.state == "ok" else logging.WARNING
        log.log(level, "device %s is %s", device.id, description.removesuffix(": "))
        if health.state == "lost" or health.needs_reset:  # guard: lost-device-ends-jobs
            self._kill_all(device.id, "device_lost", f"{device.id} is {description}")
        elif health.state == "quarantined":
            for executor in self._dispatcher.executors.on_device(device.id):
                self._dispatcher.control.retire(executor)
        self._plan_trigger.wake()

    def _on_xid(self, device_id: str, code: int) -> None:
        """Handle an Xid error, which the GPU reports to the driver. `gpu.devices.xid_codes` says what each
        code asks for."""
        action, message, now = xid_codes.lookup(code).action, xid_codes.describe(code), self._clock.now()
        health = self._health_of(device_id)
        if action == "ignore":
            log.info("device %s reports %s", device_id, message)
            return
        log.warning("device %s reports %s", device_id, message)
        self._device_registry.record_event(device_id, "xid", message)
        match action:
            case "lost":
                health.mark_lost(now, message)
            case "reset":
                health.quarantine(now, message, needs_reset=True)
            case "drain":
                health.quarantine(now, message)
            case "restart":
                health.record_fault(now, "xid", f"{code} at {now}", message)
                why = f"{device_id} reports {message}: the results of running jobs are not trusted"
                self._kill_all(device_id, "interrupted", why)  # guard: untrusted-results

    def _check_overdue_memory(self, device_id: str, health: HealthState, now: float) -> None:
        """Hold a GPU out of service while ended executors keep memory for too long. This is known only where
        memory is attributed to processes."""
        figures = self._scheduler_state.ledger.figures(device_id)
        if figures.level == "processes":
            overdue = figures.suspect_bytes
            health.hold(now, f"ended executors still hold {format_bytes(overdue)}" if overdue else None)

    def _kill_all(self, device_id: str, code: str, message: str) -> None:
        """Kill the executors of the device; their jobs are requeued and keep their retries."""
        for executor in self._dispatcher.executors.on_device(device_id):
            self._dispatcher.control.kill(executor, code, message, {"device": device_id})

    def _gpus(self, device_ids: Sequence[str] | None = None) -> list[Device]:
        devices = self._device_registry.devices
        chosen = devices if device_ids is None else device_ids
        return [devices[each] for each in chosen if devices[each].kind != "cpu"]

    def _health_of(self, device_id: str) -> HealthState:
        health = self._health.get(device_id)
        if health is None:
            health = self._health[device_id] = HealthState(self._started_at)
        return health
