"""Pure: the devices and the executors resident on them, indexed in every way that a plan needs."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

from gpu.devices.device import Device
from gpu.job_class import JobClass, Key
from gpu.scheduling.limits import RunningCounts
from gpu.scheduling.resident_executor import DeviceSlot, ResidentExecutor


class Residency:
    """Which executors are resident on which devices, and their states. The ledger keeps their bytes."""

    def __init__(self, changed: set[str], running: RunningCounts) -> None:
        """Start without devices.

        The id of each device on which something changes is added to `changed`, and executors that load or
        run are counted in `running`.
        """
        self._changed = changed
        self._running = running
        self.slots: dict[str, DeviceSlot] = {}
        self.executors: dict[int, ResidentExecutor] = {}
        #: Executors that take work, and those of them that idle, the longest idle first.
        self.by_key: dict[Key, dict[int, ResidentExecutor]] = {}
        self.idle_by_key: dict[Key, dict[int, ResidentExecutor]] = {}
        #: Executors that load for no job: the first job that arrives may have them.
        self.prewarmed: dict[Key, dict[int, ResidentExecutor]] = {}
        #: Keys of which one executor each stays loaded.
        self.keep_loaded: set[Key] = set()
        self._gpu_pool: list[DeviceSlot] = []
        self._cpu_pool: list[DeviceSlot] = []

    def add_device(self, device: Device, *, is_open: bool) -> None:
        """Add a device without executors."""
        slot = self.slots[device.id] = DeviceSlot(device, len(self.slots))
        slot.is_open = is_open
        self._changed.add(device.id)
        (self._cpu_pool if device.kind == "cpu" else self._gpu_pool).append(slot)

    def set_open(self, device_id: str, is_open: bool, closed_reason: str) -> None:
        """Set whether a device takes new work, and if not, why."""
        slot = self.slots[device_id]
        slot.is_open, slot.closed_reason = is_open, "" if is_open else closed_reason
        self._changed.add(device_id)

    def set_max_executors(self, device_id: str, count: int) -> None:
        """Set how many executors may load or run on a device at once."""
        self.slots[device_id].max_executors = count
        self._changed.add(device_id)

    def is_on_gpu(self, job_class: JobClass) -> bool:
        """Return whether the class runs on GPUs: it asks for one and there are any; else on the cpu."""
        return job_class.gpus > 0 and bool(self._gpu_pool)

    def device_pool(self, job_class: JobClass) -> list[DeviceSlot]:
        """Return the devices that may run the class: GPUs where there are any, else the cpu."""
        pool = self._gpu_pool if self.is_on_gpu(job_class) else self._cpu_pool
        return (
            [slot for slot in pool if slot.device.id in job_class.allowed_devices]
            if job_class.allowed_devices
            else pool
        )

    def candidate_devices(self, job_class: JobClass) -> list[DeviceSlot]:
        """Return the devices of its pool on which the class should start.

        Devices that it avoids are left out while enough others take work; otherwise only those of them that
        passed no check since their last fault.
        """
        pool = self.device_pool(job_class)
        if not job_class.avoided_devices:
            return pool
        others = [slot for slot in pool if slot.device.id not in job_class.avoided_devices]
        if sum(slot.is_open for slot in others) >= self.device_count(job_class):
            return others
        return [slot for slot in pool if slot.is_proven or slot.device.id not in job_class.avoided_devices]

    def is_on_candidate_devices(self, job_class: JobClass, resident: ResidentExecutor) -> bool:
        """Return whether an executor is resident where the class should start."""
        candidates = self.candidate_devices(job_class)
        return all(slot in candidates for slot in self._changed_slots(resident))

    def device_count(self, job_class: JobClass) -> int:
        """Return how many devices one executor of the class takes. On the cpu it is always one."""
        return job_class.gpus if job_class.gpus > 1 and self._gpu_pool else 1

    def misfit(self, job_class: JobClass) -> dict[str, Any] | None:
        """Return None where empty devices could run the class; else the figures that show why not."""
        pool, need_bytes, device_count = (
            self.device_pool(job_class),
            job_class.need_bytes or 0,
            self.device_count(job_class),
        )
        if (
            sum(need_bytes <= slot.device.cap_bytes for slot in pool) if need_bytes else len(pool)
        ) >= device_count:
            return None
        return {
            "needed_bytes": need_bytes,
            "gpus": job_class.gpus,
            "devices": [
                {
                    "device": slot.device.id,
                    "total_bytes": slot.device.total_bytes,
                    "grantable_bytes": slot.device.cap_bytes,
                }
                for slot in pool
            ],
        }

    def takes_pin(self, device_ids: Iterable[str]) -> bool:
        """Return whether an executor on these devices may be pinned: others keep a place on each of them."""
        return all(self.slots[device_id].takes_pin for device_id in device_ids)

    def add(self, resident: ResidentExecutor, *, prewarmed: bool = False) -> None:
        """Add an executor that loads; `prewarmed`: it loads for no job."""
        executor = resident.executor
        self.executors[executor] = resident
        if prewarmed:
            self.prewarmed.setdefault(resident.key, {})[executor] = resident
        self.by_key.setdefault(resident.key, {})[executor] = resident
        self._set_busy(resident, True)
        for slot in self._changed_slots(resident):
            slot.residents[executor] = resident
            if resident.is_pinned:
                slot.pinned[executor] = resident

    def claim_early(self, resident: ResidentExecutor) -> bool:
        """Stop listing an executor as prewarmed: a job got it, or it loads no longer.

        False where it was not prewarmed.
        """
        if resident.executor not in self.prewarmed.get(resident.key, ()):
            return False
        _remove_from_index(self.prewarmed, resident)
        return True

    def is_kept_loaded(self, resident: ResidentExecutor, leaving: Container[int]) -> bool:
        """Return whether it stays loaded however long it idles, unless its capacity is needed.

        It does where it is the last executor of a key in `keep_loaded`, apart from those in `leaving`.
        """
        if resident.key not in self.keep_loaded:
            return False
        return all(each == resident.executor or each in leaving for each in self.by_key[resident.key])

    def set_running(self, resident: ResidentExecutor) -> None:
        """Put an idle executor to work."""
        self._remove_idle(resident)
        resident.state = "running"
        self._set_busy(resident, True)

    def set_idle(self, resident: ResidentExecutor, now: float) -> None:
        """Mark an executor as idle; one that was evicted stays leaving."""
        self._set_busy(resident, False)
        self.claim_early(resident)
        if resident.state == "leaving":
            return
        resident.state = "idle"
        resident.idle_since = now
        self.idle_by_key.setdefault(resident.key, {})[resident.executor] = resident
        for slot in self._changed_slots(resident):
            slot.idle[resident.executor] = resident

    def set_leaving(self, resident: ResidentExecutor, *, finishes_first: bool = False) -> None:
        """Mark an executor as leaving: it takes no more work.

        `finishes_first` lets it end what it runs.
        """
        if resident.state == "leaving":
            return
        resident.finishes_first = finishes_first
        self.claim_early(resident)
        if resident.state == "idle":
            self._remove_idle(resident)
        _remove_from_index(self.by_key, resident)
        resident.state = "leaving"
        for slot in self._changed_slots(resident):
            slot.leaving[resident.executor] = resident

    def remove(self, resident: ResidentExecutor) -> None:
        """Remove an executor whose processes are gone."""
        self.set_leaving(resident)
        if resident.is_busy:
            self._set_busy(resident, False)
        del self.executors[resident.executor]
        for slot in self._changed_slots(resident):
            del slot.residents[resident.executor]
            del slot.leaving[resident.executor]
            slot.pinned.pop(resident.executor, None)

    def make_exclusive(self, resident: ResidentExecutor) -> None:
        """Let no other executor start beside it until it has nothing left to do."""
        for slot in self._changed_slots(resident):
            slot.exclusive_executor = resident.executor

    def end_exclusive(self, resident: ResidentExecutor) -> None:
        """Let others start beside it again."""
        resident.exclusive = False
        for slot in self._changed_slots(resident):
            if slot.exclusive_executor == resident.executor:
                slot.exclusive_executor = None

    def evictable_on(self, device_ids: Iterable[str]) -> list[int]:
        """Return the idle executors on any of these devices that may be evicted."""
        found = {
            executor: None
            for device_id in device_ids
            for executor, resident in self.slots[device_id].idle.items()
            if not resident.is_pinned
        }
        return list(found)

    def _set_busy(self, resident: ResidentExecutor, busy: bool) -> None:
        """Count an executor as one that loads or runs, or no longer does."""
        delta = 1 if busy else -1
        resident.is_busy = busy
        self._running.add(resident.key[0], executors=delta)
        for slot in self._changed_slots(resident):
            slot.busy_count += delta
            if busy and resident.exclusive:
                slot.exclusive_executor = resident.executor
            elif slot.exclusive_executor == resident.executor:
                slot.exclusive_executor = None

    def _remove_idle(self, resident: ResidentExecutor) -> None:
        _remove_from_index(self.idle_by_key, resident)
        for slot in self._changed_slots(resident):
            del slot.idle[resident.executor]

    def _changed_slots(self, resident: ResidentExecutor) -> list[DeviceSlot]:
        """Return the devices of an executor, and mark them as changed."""
        self._changed.update(resident.devices)
        return [self.slots[device_id] for device_id in resident.devices]


def _remove_from_index(index: dict[Key, dict[int, ResidentExecutor]], resident: ResidentExecutor) -> None:
    """Remove an executor that is in the index, and its key with the last one."""
    of_key = index[resident.key]
    del of_key[resident.executor]
    if not of_key:
        del index[resident.key]
