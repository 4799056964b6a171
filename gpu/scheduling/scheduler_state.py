"""Pure: everything that a plan reads, updated by events: waiting jobs, loaded executors, free capacity.

The coordinator calls these methods as events occur. Nothing here is ever rebuilt, and the cost of a method
does not depend on how many jobs wait. Executors and jobs are numbers, devices their ids.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from gpu.devices.device import Device
from gpu.estimates.batch_sizing import BatchSizing
from gpu.estimates.estimator import Estimator
from gpu.job_class import JobClass
from gpu.memory.ledger import Ledger
from gpu.scheduling.backlog import Backlog
from gpu.scheduling.capacity_snapshot import CapacityTable
from gpu.scheduling.idle_expiry import IdleExpiry
from gpu.scheduling.limits import ConcurrencyLimits
from gpu.scheduling.memory_needs import MemoryNeeds
from gpu.scheduling.outlook import UNKNOWN_OUTLOOK, Outlook
from gpu.scheduling.overtaking import OvertakeCounter
from gpu.scheduling.residency import Residency
from gpu.scheduling.resident_executor import ResidentExecutor
from gpu.scheduling.tenant_shares import TenantShares
from gpu.scheduling.time_estimates import TimeEstimates


class SchedulerState:
    """The state that `plan(state, now)` reads.

    The coordinator carries out the plan's actions in order, by calling `start`, `load` and `evict` before it
    applies any other event.
    """

    def __init__(
        self,
        devices: Iterable[Device] = (),
        *,
        estimator: Estimator | None = None,
        bypass_limit: int = 8,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """Start with these devices, open for work, and nothing else.

        `estimator` keeps what earlier servers learned; `bypass_limit` is how many times a waiting job may be
        overtaken; `weights` are the shares of tenants, 1 for one that is not listed.
        """
        self.ledger = Ledger()
        self.estimator = Estimator() if estimator is None else estimator
        self.overtakes = OvertakeCounter(bypass_limit)
        self.batch_sizing = BatchSizing()
        self.limits = ConcurrencyLimits(self.batch_sizing)
        self.residency = Residency(self.ledger.changed, self.limits.running)
        self.capacity_table = CapacityTable(self.ledger, self.residency, self.ledger.changed)
        #: The same dict as the residency's.
        self.executors = self.residency.executors
        self.backlog = Backlog(self.overtakes)
        self.memory_needs = MemoryNeeds(self.estimator, self.residency, self.ledger, self.backlog.by_class)
        wanted, backlogs = self.backlog.waiting_classes_by_key, self.backlog.by_class
        self.idle_expiry = IdleExpiry(self.executors, wanted, self.residency.is_kept_loaded)
        self.time_estimates = time_estimates = TimeEstimates(
            self.estimator, self.residency, self.batch_sizing, wanted
        )
        expected = (time_estimates.run_mean_s, time_estimates.load_s, self.batch_sizing.jobs_per_run)
        self.tenant_shares = TenantShares(self.residency, backlogs, expected, weights)
        for device in devices:
            self.add_device(device)

    # Devices.

    def add_device(self, device: Device, *, is_open: bool = True) -> None:
        """Add a device. Raises ValueError where its id is known."""
        self.ledger.add_device(device)
        self.residency.add_device(device, is_open=is_open)

    def set_device_open(self, device_id: str, is_open: bool, closed_for: str = "") -> None:
        """Set whether a device takes new work (its worker is up and it is not drained), and if not, why."""
        self.residency.set_open(device_id, is_open, closed_for)
        if not is_open:
            self.overtakes.release_device(device_id)

    # Waiting jobs.

    def add_waiting(
        self, job_class: JobClass, job_number: int, *, first: bool = False, since: float = 0.0
    ) -> None:
        """Add a job that is ready to start; `first` puts it before the others of its class.

        `since` is when it began to wait, in seconds of the plan's clock.
        """
        if self.backlog.add(job_class, job_number, first=first, since=since):
            self.tenant_shares.on_waiting(job_class)

    def remove_waiting(self, job_class: JobClass, job_number: int) -> bool:
        """Remove a job that no longer waits; False where it did not wait."""
        if not self.backlog.contains(job_class, job_number):
            return False
        self._remove_waiting(job_class, (job_number,))
        return True

    # Actions of a plan.

    def start(
        self,
        executor: int,
        job_class: JobClass,
        job_numbers: Sequence[int],
        now: float = 0.0,
        outlook: Outlook = UNKNOWN_OUTLOOK,
    ) -> None:
        """Assign waiting jobs to a warm executor.

        Raises:
            ValueError: it takes no work, or its bytes were granted to others: the plan is out of date.
        """
        resident = self.executors[executor]
        if resident.state == "idle":
            if not self.ledger.mark_running(executor):
                raise ValueError(f"executor {executor} can't start: its bytes are granted to others")
            self.residency.set_running(resident)
            if job_class.alone_on_device:
                self.residency.make_exclusive(resident)
        elif resident.state != "running" and not self.residency.claim_early(resident):
            raise ValueError(f"executor {executor} is {resident.state} and takes no work")
        self._remove_waiting(job_class, job_numbers)
        self.backlog.record_start(job_class, job_numbers)
        self._assign(resident, job_class, job_numbers)
        self.tenant_shares.record_start(job_class, job_numbers, now, is_cold=False)
        self._set_to_work(resident, len(job_numbers), now, outlook)

    def load(
        self,
        executor: int,
        job_class: JobClass,
        job_number: int,
        device_ids: Sequence[str],
        grant_bytes: int,
        exclusive: bool = False,
        *,
        keep_alive_s: float = 300.0,
        max_jobs: int | None = None,
        now: float = 0.0,
        outlook: Outlook = UNKNOWN_OUTLOOK,
        extra_job_numbers: Sequence[int] = (),
    ) -> None:
        """Add a new executor with one waiting job and its companions, or with none for a prewarm.

        An executor that should be pinned (`keep_alive_s` below 0) where no more may be is kept until its
        capacity is needed.

        Raises:
            ValueError: its bytes are not free: the plan is out of date.
        """
        if not self.ledger.reserve(device_ids, executor, grant_bytes):
            raise ValueError(f"executor {executor} can't load: {grant_bytes} bytes not free on {device_ids}")
        if keep_alive_s < 0 and not self.residency.takes_pin(device_ids):
            keep_alive_s = math.inf
        resident = ResidentExecutor(
            executor, job_class.key, tuple(device_ids), grant_bytes, keep_alive_s, max_jobs, exclusive
        )
        self.residency.add(resident, prewarmed=job_class.is_prewarm)
        if grant_bytes and any(self.ledger.usage.level(each) == "totals" for each in device_ids):
            resident.loads_alone = not (job_class.alone_on_device or exclusive)
        if job_class.alone_on_device or resident.loads_alone:
            self.residency.make_exclusive(resident)
        job_numbers = (job_number, *extra_job_numbers)
        self._remove_waiting(job_class, job_numbers)
        if not job_class.is_prewarm:
            self.backlog.record_start(job_class, job_numbers)
            self._assign(resident, job_class, job_numbers)
        self.tenant_shares.record_start(job_class, job_numbers, now, is_cold=True)
        self._set_to_work(resident, len(resident.assigned), now, outlook)

    def evict(self, executor: int, *, finishes_first: bool = False) -> None:
        """Mark an executor as evicted: it gets no more work. `finishes_first` lets it end what it runs."""
        self.residency.set_leaving(self.executors[executor], finishes_first=finishes_first)

    # Events of executors.

    def on_loaded(self, executor: int, resident_bytes: int | None, now: float) -> None:
        """Record that it has loaded; `resident_bytes` is its use then, None where it was not measured."""
        resident = self.executors[executor]
        if resident_bytes is not None:
            self.ledger.usage.record_total(executor, resident_bytes)
        if resident.state != "loading":
            return
        resident.state = "running"
        self.ledger.mark_running(executor)
        if resident.loads_alone:
            self.residency.end_exclusive(resident)
        if not resident.assigned:
            self._set_idle(resident, now)

    def mark_long_running(self, executor: int, job_number: int) -> None:
        """Note that its running attempt is not a short one: until its end nothing is staged behind it."""
        self.executors[executor].long_job_number = job_number

    def on_attempt_ended(
        self, executor: int, job_class: JobClass, job_number: int, now: float, *, has_run: bool = True
    ) -> bool:
        """Record that an attempt ended; without another one its executor idles.

        False where the executor had no such job. `has_run=False` where it returned the attempt unstarted:
        that does not wear it out.
        """
        resident = self.executors.get(executor)
        if resident is None or resident.assigned.pop(job_number, None) is None:
            return False
        self.limits.running.add(resident.key[0], jobs=-1)
        if resident.long_job_number == job_number:
            resident.long_job_number = None
        resident.jobs_done += has_run
        self.tenant_shares.record_end(job_class, job_number, executor, now, has_run=has_run)
        if not resident.assigned and resident.is_busy and resident.state != "loading":
            self._set_idle(resident, now)
        return True

    def on_executor_gone(self, executor: int, now: float | None) -> list[tuple[int, JobClass]]:
        """Remove an executor whose process tree was reaped; return its jobs that had not ended.

        Its bytes drain. With `now=None` it was written off, not reaped, and keeps them until the ledger
        drains it.
        """
        resident = self.executors[executor]
        self.residency.remove(resident)
        self.limits.running.add(resident.key[0], jobs=-len(resident.assigned))
        self.tenant_shares.on_executor_gone(executor, resident.assigned)
        if now is not None:
            self.ledger.draining.start(executor, now)
        return list(resident.assigned.items())

    def record_run(self, job_class: JobClass, peak_bytes: int | None, run_s: float | None) -> None:
        """Record a successful job.

        An executor that was granted everything keeps only what it needs; then others may start beside it.
        """
        if not self.estimator.record_run(job_class, peak_bytes, run_s):
            return
        need_bytes = self.estimator.need_bytes(job_class)
        for key, residents in self.residency.by_key.items():
            if (key[0], key[2]) == (job_class.handler, job_class.model):
                for resident in residents.values():
                    if resident.exclusive and need_bytes is not None:
                        self.residency.end_exclusive(resident)
                        self.ledger.lower_grant(resident.executor, need_bytes)

    # Index updates.

    def _remove_waiting(self, job_class: JobClass, job_numbers: Sequence[int]) -> None:
        if not self.backlog.remove(job_class, job_numbers):
            return
        self.tenant_shares.on_not_waiting(job_class)
        if job_class.key in self.backlog.waiting_classes_by_key:
            return
        for resident in self.residency.idle_by_key.get(job_class.key, {}).values():
            # Its keep-alive time may have passed while a job waited for it.
            self.idle_expiry.schedule(resident)

    def _assign(self, resident: ResidentExecutor, job_class: JobClass, job_numbers: Sequence[int]) -> None:
        resident.assigned.update(dict.fromkeys(job_numbers, job_class))
        self.limits.running.add(resident.key[0], jobs=len(job_numbers))

    def _set_idle(self, resident: ResidentExecutor, now: float) -> None:
        """Mark an executor as idle: it has nothing left to do."""
        self.residency.set_idle(resident, now)
        if resident.state == "idle":
            self.ledger.mark_idle(resident.executor)
            self.idle_expiry.schedule(resident)

    def _set_to_work(self, resident: ResidentExecutor, count: int, now: float, outlook: Outlook) -> None:
        if len(resident.assigned) == count:
            resident.busy_since = now
        resident.expected_end = outlook.expected_end
        self.time_estimates.request_rates.record_starts(resident.key, count, now)
        for overtaken in outlook.overtaken:
            self.overtakes.record(overtaken.job_number, overtaken.count, overtaken.device_ids)
