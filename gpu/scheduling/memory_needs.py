"""Pure: how many bytes an executor of a class needs on a device, and where that could be free."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from gpu.estimates.estimator import Estimator
from gpu.job_class import JobClass
from gpu.memory.ledger import Ledger
from gpu.scheduling.residency import Residency
from gpu.scheduling.resident_executor import DeviceSlot, ResidentExecutor

#: Of a device's bytes one part in so many must be free for a job whose need is unknown.
UNKNOWN_NEED_DIVISOR = 4


class MemoryNeeds:
    """What was declared or learned of the needs of classes, held against the devices that may run them."""

    def __init__(
        self, estimator: Estimator, floor: Residency, ledger: Ledger, waiting_classes: Container[JobClass]
    ) -> None:
        self._estimator = estimator
        self._residency = floor
        self._ledger = ledger
        #: The classes of which a job waits.
        self._waiting_classes = waiting_classes

    def need_bytes(self, cls: JobClass) -> int | None:
        """What an executor of the class must be granted: declared or learned, else None. More than the
        largest device has was learned on another one, and counts as unknown. To what was declared a process
        on the cpu is held."""
        known = self._estimator.need_bytes(cls)
        if known is None or known == cls.need_bytes:
            return known
        if cls.need_bytes is not None and not self._residency.is_on_gpu(cls):
            return cls.need_bytes
        largest = max((slot.device.cap_bytes for slot in self._residency.device_pool(cls)), default=0)
        known = self._estimator.need_bytes(cls, largest)
        return known if known is not None and known <= largest else None

    def need_for_capacity(self, cls: JobClass, cap_bytes: int) -> int:
        """The bytes that must be free to load the class on a device of that size: unknown, a quarter."""
        need = self.need_bytes(cls)
        if need is None:
            return max(1, cap_bytes // UNKNOWN_NEED_DIVISOR)
        return need if need == cls.need_bytes else self._estimator.need_bytes(cls, cap_bytes) or need

    def need_for_device(self, cls: JobClass, slot: DeviceSlot) -> int:
        """The same for a device."""
        return self.need_for_capacity(cls, slot.device.cap_bytes)

    def is_granted_enough(self, resident: ResidentExecutor, cls: JobClass) -> bool:
        """Whether an executor of the class's key was granted enough for it, where it may run."""
        if (cls.avoided_devices or cls.allowed_devices) and not self._residency.is_on_candidate_devices(
            cls, resident
        ):
            return False
        need = self.need_bytes(cls)
        if need is None:
            return resident.exclusive
        if need == cls.need_bytes:
            return resident.grant_bytes >= need
        needs = [self.need_for_device(cls, self._residency.slots[each]) for each in resident.devices]
        return resident.grant_bytes >= min(max(needs), self._estimator.minimum_bytes(cls))

    def fits_when_empty(self, cls: JobClass, slot: DeviceSlot) -> bool:
        """Whether the class could start there if all that runs there ended: neither too large for the
        device nor for what pinned executors and other programs leave of it."""
        if not slot.is_open or len(slot.pinned) >= slot.max_residents:
            return False
        need = self.need_for_device(cls, slot)
        if need == 0:
            return True
        unavailable_bytes = self._ledger.usage.foreign_bytes(slot.device.id)
        for executor in slot.pinned:
            unavailable_bytes += self._ledger.charge_bytes(executor)
        return need <= slot.device.cap_bytes - unavailable_bytes

    def misfit(self, cls: JobClass) -> dict[str, Any] | None:
        """None where empty devices could run the class; else the figures that say why not."""
        # A class of which a job waits was admitted: devices come, and do not go.
        return None if cls in self._waiting_classes else self._residency.misfit(cls)
