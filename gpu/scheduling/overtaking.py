"""Pure: the number of times that each waiting job was overtaken, and a bound on it.

A job that cannot start does not block others that can, until a fixed number of later or lower ones has taken
capacity that it waits for; then devices are kept for it. Only the first job of each class is counted.
"""

from __future__ import annotations

from collections.abc import Iterable


class OvertakeCounter:
    """The counts of waiting jobs, and the devices kept for those that have reached the limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.counts: dict[int, int] = {}
        self.kept_devices: dict[int, tuple[str, ...]] = {}

    def remaining(self, job_number: int) -> int:
        """Return how many times the job may still be overtaken; 0 or less: not again."""
        return self.limit - self.counts.get(job_number, 0)

    def record(self, job_number: int, count: int, device_ids: tuple[str, ...]) -> None:
        """Record that the job was overtaken; at the limit `device_ids` are kept for it until it starts."""
        self.counts[job_number] = self.counts.get(job_number, 0) + count
        if device_ids and self.counts[job_number] >= self.limit:
            self.kept_devices.setdefault(job_number, device_ids)

    def exhaust(self, job_number: int) -> None:
        """Let no more jobs overtake this one: it is next among its tenant's."""
        self.counts[job_number] = max(self.limit, self.counts.get(job_number, 0))

    def forget(self, job_numbers: Iterable[int]) -> None:
        """Forget jobs that no longer wait."""
        for job_number in job_numbers:
            self.counts.pop(job_number, None)
            self.kept_devices.pop(job_number, None)

    def release_device(self, device_id: str) -> None:
        """Stop keeping a device that takes no work: jobs for which it was kept need another one."""
        for job_number in [
            job_number for job_number, device_ids in self.kept_devices.items() if device_id in device_ids
        ]:
            del self.kept_devices[job_number]
