"""Effect: raises exceeded grants or kills executors; evicts idle ones under external memory pressure."""

from __future__ import annotations

import logging
from typing import Any

from gpu.memory.enforcement import EnforcementBackend
from gpu.planning import overuse
from gpu.planning.overuse import OveruseTracker
from gpu.scheduling.capacity import DeviceCapacity
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.formats.units import format_bytes
from runner.jobs.job import EXCEEDED_LIMIT
from runner.protocol.worker import OverGrant

log = logging.getLogger(__name__)


class GrantEnforcer:
    """Compares what executors use with their grants: all after each reading, one when its worker reports it.

    An executor over its grant gets a larger one if the device has the bytes and the grant is not a ceiling;
    otherwise it is killed, never its neighbours. Which of both is decided by `gpu.planning.overuse`.
    """

    def __init__(
        self, *, scheduler_state: SchedulerState, dispatcher: Dispatcher, backend: EnforcementBackend
    ) -> None:
        self._scheduler_state = scheduler_state
        self._ledger = scheduler_state.ledger
        self._dispatcher = dispatcher
        self._backend = backend
        #: Consecutive readings in which each executor was over its grant.
        self._overuse = OveruseTracker()

    def on_over_grant(self, message: OverGrant) -> None:
        """Handle the report of a worker, with exact figures, that an executor is over its grant. A report
        that crossed with a raised grant is answered by the grant."""
        executor = self._dispatcher.executors.get(message.executor)
        if executor is None:
            return
        self._ledger.usage.record_total(executor.number, message.used_bytes)
        used = self._ledger.usage.observed_bytes(executor.number) or 0
        if used > executor.grant_bytes:
            self._raise_or_kill(executor)
        else:
            # The grant was raised meanwhile, and the message may not have arrived yet.
            self._dispatcher.grants.set_grant(executor, executor.grant_bytes)

    def check_all(self) -> None:
        """After a reading, check all executors against their grants and evict idle ones where memory is
        short."""
        self._overuse.retain(self._dispatcher.executors)
        for executor in self._dispatcher.executors.all():
            if self._is_over(executor):
                self._raise_or_kill(executor)
        for slot in self._scheduler_state.residency.slots.values():
            if self._ledger.free_bytes(slot.device.id) < 0:
                self._evict_idle(DeviceCapacity(self._ledger, slot))

    def _is_over(self, executor: ExecutorHandle) -> bool:
        """Whether readings have shown the executor over its grant for long enough to act."""
        level = self._ledger.usage.level(executor.devices[0])
        if level == "exact":
            # Workers report these executors, and read their memory more often than the coordinator does.
            return False
        used = self._ledger.usage.observed_bytes(executor.number)
        return self._overuse.record_sweep(executor.number, used, executor.grant_bytes, level)

    def _raise_or_kill(self, executor: ExecutorHandle) -> None:
        """Raise the grant of an executor to what it uses, or kill the executor; neither without a
        watchdog."""
        if not self._backend.kills_over_grant:
            return
        self._overuse.reset(executor.number)
        used, granted = self._ledger.usage.observed_bytes(executor.number) or 0, executor.grant_bytes
        if (
            overuse.resolve_overuse(self._ledger, executor.number, is_ceiling=executor.is_grant_fixed)
            == "raise"
        ):
            log.info(
                "executor %d (%s) uses %s, more than its grant of %s; raising the grant",
                *(
                    executor.number,
                    executor.spec.name,
                    format_bytes(used),
                    format_bytes(granted),
                ),
            )
            self._dispatcher.grants.set_grant(executor, used)
            return
        mib = 1024 * 1024
        why = "which is its ceiling" if executor.is_grant_fixed else "and the device has no more"
        message = f"it used {used // mib} MiB, over its grant of {granted // mib} MiB, {why}"
        log.warning("killing executor %d (%s): %s", executor.number, executor.spec.name, message)
        self._dispatcher.control.kill(
            executor, "memory_exceeded", message, self._circumstances(executor, used)
        )

    def _circumstances(self, executor: ExecutorHandle, used: int) -> dict[str, Any]:
        """The detail of the error: what was used, the limit, and who holds the rest of each device, in
        bytes."""
        device_figures = [self._ledger.figures(device_id) for device_id in executor.devices]
        return {
            EXCEEDED_LIMIT: "grant",
            "used_bytes": used,
            "limit_bytes": executor.grant_bytes,
            "devices": [
                {
                    "device": each.device,
                    "total_bytes": each.total_bytes,
                    "foreign_bytes": each.foreign_bytes,
                    "short_bytes": each.short_bytes,
                    "level": each.level,
                }
                for each in device_figures
            ],
            "neighbours": [
                {"executor": other, "charged_bytes": charge}
                for other, charge in self._ledger.neighbour_charges(executor.number).items()
            ],
        }

    def _evict_idle(self, capacity: DeviceCapacity) -> None:
        """Evict idle executors until the bytes that other programs took are covered."""
        idle = [(one, self._ledger.charge_bytes(one.executor)) for one in capacity.slot.idle.values()]
        for executor in overuse.choose_evictions(-capacity.free_soon, idle):
            log.info(
                "evicting executor %d: other programs use memory of %s that was granted",
                executor,
                capacity.slot.device.id,
            )
            self._dispatcher.control.unload(executor)
