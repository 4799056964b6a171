"""Pure: who was overtaken how often, so that nobody is for ever.

A job that can't start does not hold up others that can, until so many later or lower ones took room
that it waits for; then devices are kept for it. Counted is the job at the head of its class.
"""

from __future__ import annotations

from collections.abc import Iterable


class OvertakeCounter:
    """Counts of waiting jobs, and the devices kept for those whose patience is at its end."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.counts: dict[int, int] = {}
        self.kept_devices: dict[int, tuple[str, ...]] = {}

    def remaining(self, job_number: int) -> int:
        """How many may still overtake the job."""
        return self.limit - self.counts.get(job_number, 0)

    def record(self, job_number: int, count: int, device_ids: tuple[str, ...]) -> None:
        """The job was overtaken. Once that was too often, these devices (where any are named) are kept for
        it until it starts."""
        self.counts[job_number] = self.counts.get(job_number, 0) + count
        if device_ids and self.counts[job_number] >= self.limit:
            self.kept_devices.setdefault(job_number, device_ids)

    def exhaust(self, job_number: int) -> None:
        """The job was overtaken as often as it may be."""
        self.counts[job_number] = max(self.limit, self.counts.get(job_number, 0))

    def forget(self, job_numbers: Iterable[int]) -> None:
        """The jobs no longer wait."""
        for job_number in job_numbers:
            self.counts.pop(job_number, None)
            self.kept_devices.pop(job_number, None)

    def release_device(self, device_id: str) -> None:
        """The device takes no work: jobs for which it was kept need another one."""
        for job_number in [
            job_number for job_number, device_ids in self.kept_devices.items() if device_id in device_ids
        ]:
            del self.kept_devices[job_number]
