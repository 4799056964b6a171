"""Pure: how many bytes an executor of a class needs on a device, and where they could become free."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from gpu.estimates.estimator import Estimator
from gpu.job_class import JobClass
from gpu.memory.ledger import Ledger
from gpu.scheduling.residency import Residency
from gpu.scheduling.resident_executor import DeviceSlot, ResidentExecutor

#: A job whose need is unknown starts where the bytes of a device divided by this are free.
UNKNOWN_NEED_DIVISOR = 4


class MemoryNeeds:
    """The declared or learned needs of classes, compared with the devices that may run them."""

    def __init__(
        self, estimator: Estimator, residency: Residency, ledger: Ledger, waiting_classes: Container[JobClass]
    ) -> None:
        self._estimator = estimator
        self._residency = residency
        self._ledger = ledger
        #: The classes that have a waiting job.
        self._waiting_classes = waiting_classes

    def need_bytes(self, job_class: JobClass) -> int | None:
        """Return what an executor of the class must be granted: declared or learned, else None.

        A need above the largest device's memory was learned on another device, and counts as unknown. On the
        cpu the declared need is a cap on the process, and stays in force.
        """
        known = self._estimator.need_bytes(job_class)
        if known is None or known == job_class.need_bytes:
            return known
        if job_class.need_bytes is not None and not self._residency.is_on_gpu(job_class):
            return job_class.need_bytes
        largest = max((slot.device.cap_bytes for slot in self._residency.device_pool(job_class)), default=0)
        known = self._estimator.need_bytes(job_class, largest)
        return known if known is not None and known <= largest else None

    def need_for_capacity(self, job_class: JobClass, cap_bytes: int) -> int:
        """Return the bytes that must be free to load the class on a device of that size.

        For an unknown need that is a quarter of the device.
        """
        need = self.need_bytes(job_class)
        if need is None:
            return max(1, cap_bytes // UNKNOWN_NEED_DIVISOR)
        return (
            need if need == job_class.need_bytes else self._estimator.need_bytes(job_class, cap_bytes) or need
        )

    def need_for_device(self, job_class: JobClass, slot: DeviceSlot) -> int:
        """Return the bytes that must be free to load the class on a device."""
        return self.need_for_capacity(job_class, slot.device.cap_bytes)

    def is_granted_enough(self, resident: ResidentExecutor, job_class: JobClass) -> bool:
        """Return whether an executor of the class's key has a large enough grant, and may run the class."""
        if (
            job_class.avoided_devices or job_class.allowed_devices
        ) and not self._residency.is_on_candidate_devices(job_class, resident):
            return False
        need = self.need_bytes(job_class)
        if need is None:
            return resident.exclusive
        if need == job_class.need_bytes:
            return resident.grant_bytes >= need
        needs = [self.need_for_device(job_class, self._residency.slots[each]) for each in resident.devices]
        return resident.grant_bytes >= min(max(needs), self._estimator.minimum_bytes(job_class))

    def fits_when_empty(self, job_class: JobClass, slot: DeviceSlot) -> bool:
        """Return whether the class could start on a device if everything that runs there ended.

        False where it is too large for the device, or for what pinned executors and other programs leave of
        it.
        """
        if not slot.is_open:
            return False
        need = self.need_for_device(job_class, slot)
        if need == 0:
            return True
        unavailable_bytes = self._ledger.usage.foreign_bytes(slot.device.id)
        for executor in slot.pinned:
            unavailable_bytes += self._ledger.charge_bytes(executor)
        return need <= slot.device.cap_bytes - unavailable_bytes

    def misfit(self, job_class: JobClass) -> dict[str, Any] | None:
        """Return None where empty devices could run the class; else the figures that show why not."""
        # A class with a waiting job was admitted: devices are added, and never removed.
        return None if job_class in self._waiting_classes else self._residency.misfit(job_class)
