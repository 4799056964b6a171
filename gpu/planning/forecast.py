"""Pure: in which order waiting jobs should start and when, from learned durations.

A simulation of list scheduling (Graham, "Bounds for certain multiprocessing anomalies", 1966): jobs are taken
in the order of the plan, and each starts on the device that has the capacity for it first. Durations are the
medians of ended runs. A timeout is not an estimate: where nothing was learned, the start is unknown.

The simulation leaves out backfilling and the warm starts that a plan makes out of order, so a job may start
earlier or later than forecast.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter
from heapq import heapify, heappop, heappush, nsmallest
from typing import NamedTuple

from gpu.job_class import JobClass, Key
from gpu.planning.candidate import Candidate
from gpu.planning.plan_builder import PlanBuilder
from gpu.scheduling.capacity import DeviceCapacity
from gpu.scheduling.resident_executor import ResidentExecutor
from gpu.scheduling.scheduler_state import SchedulerState

#: The most jobs whose start is simulated: those behind them are placed by counting.
SIMULATED_MAX = 64


class JobForecast(NamedTuple):
    """When a waiting job should start."""

    #: 1 + the number of jobs that should start before it on the devices of its pool.
    position: int
    #: Seconds to its start; None where that is unknown.
    eta_s: float | None


class Forecast:
    """The expected starts of the first waiting jobs at one moment."""

    def __init__(self) -> None:
        """Start without jobs."""
        self.by_number: dict[int, JobForecast] = {}
        #: By whether it is the GPU pool: the simulated job of the pool with the last position.
        self.last_by_pool: dict[bool, JobForecast] = {}

    def add(self, is_gpu: bool, job_number: int, forecast: JobForecast) -> None:
        """Add a job of a pool; positions in a pool may repeat."""
        self.by_number[job_number] = forecast
        last = self.last_by_pool.get(is_gpu)
        if last is None or forecast.position >= last.position:
            self.last_by_pool[is_gpu] = forecast

    def extrapolate(self, is_gpu: bool, position: int) -> JobForecast:
        """Return the forecast of a job behind the simulated ones of its pool, which should start at the same
        rate as they do."""
        last = self.last_by_pool.get(is_gpu)
        if last is None:
            return JobForecast(position, None)
        position = max(position, last.position + 1)
        return JobForecast(position, last.eta_s / last.position * position if last.eta_s else None)


def forecast(state: SchedulerState, now: float) -> Forecast:
    """Forecast the starts of the first waiting jobs, from the time `now` of the clock of the plan.

    Apart from refreshing caches this changes nothing. Jobs of paused queues are left out. The cost grows with
    the number of waiting classes, and with the number of devices times at most SIMULATED_MAX jobs.
    """
    state.capacity_table.refresh()
    return _Simulation(state, now).run()


class _End(NamedTuple):
    """An expected end of a run, and what it frees on a device."""

    at: float
    nbytes: int
    places: int
    #: What the executor has loaded; if it is pinned, its bytes are free for jobs with this key only.
    key: Key
    is_pinned: bool

    def bytes_for(self, key: Key) -> int:
        """Return the bytes that a job with the key may use afterwards."""
        return self.nbytes if not self.is_pinned or key == self.key else 0


class _Start(NamedTuple):
    """An option to start a job on a device; the tuple sorts by preference."""

    at: float
    is_cold: bool
    order: int


class _Timeline:
    """The expected ends on a device, and its capacity after the latest start that was simulated there."""

    def __init__(self, capacity: DeviceCapacity, ends: list[_End], now: float) -> None:
        self.slot = capacity.slot
        #: How many executors of each key idle here.
        self._idle = Counter(resident.key for resident in capacity.slot.idle.values())
        self._pinned_keys = {resident.key for resident in capacity.slot.pinned.values()}
        self._free_bytes = capacity.free_after_eviction
        self._places = capacity.places if capacity.exclusive_executor is None else 0
        self._ends = sorted(ends)
        self._now = now

    def find_start(self, candidate: Candidate) -> _Start | None:
        """Return the earliest start of the candidate's next job here; None where it does not fit."""
        key, need_bytes = candidate.job_class.key, self.need_bytes(candidate)
        is_pinned = key in self._pinned_keys and self.slot.is_open
        if not is_pinned and not candidate.fits_when_empty(self.slot):
            return None
        wanted_places = self.slot.max_executors if candidate.job_class.alone_on_device else 1
        at, free_bytes, places, idle = self._now, self._free_bytes, self._places, self._idle[key]
        for end in self._ends:
            if places >= wanted_places and free_bytes >= need_bytes:
                break
            at, places = end.at, places + end.places
            free_bytes += end.bytes_for(key)
            idle += end.key == key
        if places < wanted_places or free_bytes < need_bytes:
            return None
        return _Start(at, idle == 0, self.slot.order)

    def need_bytes(self, candidate: Candidate) -> int:
        """Return the bytes that the candidate needs here."""
        return candidate.need_for_capacity(self.slot.device.cap_bytes)

    def start(self, candidate: Candidate, at: float, ends_at: float) -> None:
        """Start the candidate's next job here, at a time at which it fits."""
        key = candidate.job_class.key
        while self._ends and self._ends[0].at <= at:
            end = self._ends.pop(0)
            self._free_bytes += end.bytes_for(key)
            self._places += end.places
            self._idle[end.key] += 1
        nbytes, places = self.need_bytes(candidate), 1
        if candidate.need_bytes is None or candidate.job_class.alone_on_device:
            places = self._places
        self._free_bytes -= nbytes
        self._places -= places
        self._now = max(self._now, at)
        self._idle[key] -= self._idle[key] > 0
        insort(self._ends, _End(ends_at, nbytes, places, key, False))


class _Simulation:
    """One simulation; used once."""

    def __init__(self, state: SchedulerState, now: float) -> None:
        self._state = state
        self._now = now
        self._builder = PlanBuilder(state, now)
        self._timelines: dict[str, _Timeline] = {}
        #: Jobs by whether it is the GPU pool, and the jobs of each handler that wait for its limit.
        self._started_count: Counter[bool] = Counter()
        self._limited_count: Counter[str] = Counter()
        #: Expected ends of the runs of each handler with a limit, as a heap.
        self._ends_by_handler: dict[str, list[float]] = {}
        #: The run of each class that takes more jobs: its start, and how many more.
        self._open_runs: dict[JobClass, tuple[float, int]] = {}
        #: Classes whose next jobs start at an unknown time, as an earlier job of the class does.
        self._unknown: set[JobClass] = set()
        self._forecast = Forecast()

    def run(self) -> Forecast:
        """Place jobs in the order of their rank until enough are placed."""
        state = self._state
        waiting = [each for each in state.backlog.by_class if not each.is_prewarm]
        top_priority = max((job_class.priority for job_class in waiting), default=0)
        candidates = [
            Candidate(state, job_class, self._now, top_priority, self._builder.plan_shares)
            for job_class in waiting
            if job_class.queue not in state.backlog.paused
        ]
        heap = [(candidate.rank, candidate) for candidate in candidates]
        heapify(heap)
        while heap and len(self._forecast.by_number) < SIMULATED_MAX:
            _, candidate = heappop(heap)
            if not candidate.update_rank():
                self._place(candidate)
            if candidate.waiting_count:
                heappush(heap, (candidate.rank, candidate))
        return self._forecast

    def _place(self, candidate: Candidate) -> None:
        """Forecast the candidate's next job and move on to the one after it."""
        job_class, handler = candidate.job_class, candidate.job_class.handler
        is_limited = self._builder.concurrency.is_at_limit(job_class)
        position = 1 + self._started_count[candidate.is_gpu] + self._limited_count[handler]
        if is_limited:
            self._limited_count[handler] += 1
        else:
            self._started_count[candidate.is_gpu] += 1
        starts_at, seats = self._open_runs.get(job_class, (math.inf, 0))
        if job_class in self._unknown:
            starts_at = math.inf
        elif seats:
            self._open_runs[job_class] = starts_at, seats - 1
        else:
            starts_at = self._start(candidate, is_limited=is_limited)
            self._open_runs[job_class] = starts_at, candidate.jobs_per_run - 1
            if math.isinf(starts_at):
                self._unknown.add(job_class)
        eta_s = None if math.isinf(starts_at) else starts_at - self._now
        self._forecast.add(candidate.is_gpu, candidate.job_number, JobForecast(position, eta_s))
        self._builder.concurrency.add_jobs(handler, 1)
        self._builder.plan_shares.charge(job_class, 1, is_cold=False)
        candidate.advance(1)

    def _start(self, candidate: Candidate, *, is_limited: bool) -> float:
        """Start a run of the candidate's on the devices that have the capacity first; return its start."""
        job_class, handler = candidate.job_class, candidate.job_class.handler
        options = [
            (start, timeline)
            for slot in self._state.residency.candidate_devices(job_class)
            if (start := (timeline := self._timeline(slot.device.id)).find_start(candidate)) is not None
        ]
        chosen = nsmallest(candidate.device_count, options, key=lambda option: option[0])
        if len(chosen) < candidate.device_count:
            return math.inf
        starts_at = chosen[-1][0].at
        fits_at = starts_at
        if is_limited:
            limit_ends = self._limit_ends(handler)
            starts_at = max(fits_at, heappop(limit_ends) if limit_ends else math.inf)
        if math.isinf(starts_at):
            return starts_at
        run_s = self._state.estimator.median_run_s(job_class)
        is_cold = any(start.is_cold for start, _ in chosen)
        load_s = (self._state.time_estimates.load_s(job_class.key) or 0.0) if is_cold else 0.0
        ends_at = math.inf if run_s is None else starts_at + load_s + run_s
        # At its limit a handler's next run takes the capacity that its last one frees.
        for _, timeline in chosen if starts_at == fits_at else ():
            timeline.start(candidate, starts_at, ends_at)
        self._builder.concurrency.add_executor(handler)
        if handler in self._state.limits.limit_by_handler:
            heappush(self._limit_ends(handler), ends_at)
        return starts_at

    def _limit_ends(self, handler: str) -> list[float]:
        """Return the expected ends of the handler's runs, as a heap."""
        ends = self._ends_by_handler.get(handler)
        if ends is None:
            ends = self._ends_by_handler[handler] = [
                self._expected_end(resident)
                for resident in self._state.executors.values()
                if resident.is_busy and resident.key[0] == handler
            ]
            heapify(ends)
        return ends

    def _timeline(self, device_id: str) -> _Timeline:
        timeline = self._timelines.get(device_id)
        if timeline is None:
            capacity = self._builder.overlay.capacity(self._state.residency.slots[device_id])
            timeline = self._timelines[device_id] = _Timeline(capacity, self._ends(capacity), self._now)
        return timeline

    def _ends(self, capacity: DeviceCapacity) -> list[_End]:
        """Return the expected ends of what runs on a device."""
        ends: list[_End] = []
        for executor, resident in capacity.slot.residents.items():
            if resident.is_busy:
                # Nothing starts beside an exclusive executor: its end opens all places.
                is_exclusive = capacity.exclusive_executor == executor
                places = capacity.places + 1 if is_exclusive else 1
                nbytes = self._state.ledger.charge_bytes(executor)
                end = self._expected_end(resident)
                ends.append(_End(end, nbytes, places, resident.key, resident.is_pinned))
        return ends

    def _expected_end(self, resident: ResidentExecutor) -> float:
        """Return when an executor should have ended its jobs; inf where that is unknown."""
        runs = [self._state.estimator.median_run_s(job_class) for job_class in resident.assigned.values()]
        known = [run_s for run_s in runs if run_s is not None]
        is_load_unknown = (
            resident.state == "loading" and self._state.time_estimates.load_s(resident.key) is None
        )
        if len(known) < len(runs) or is_load_unknown:
            return math.inf
        longest_s = max(known, default=0.0)
        return self._now + self._state.time_estimates.remaining_s(resident, self._now, longest_s)
