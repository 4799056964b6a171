"""Pure: what is usual: pack by bytes, in strict order of arrival or with whatever fits, or in fixed slots."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace

from benchmarks.simulation.engine import StartedJob
from benchmarks.simulation.job import SimulatedJob
from gpu.devices.device import Device
from gpu.job_class import JobClass

#: Executors that may take each other's jobs: of one handler over as many devices.
_Kind = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Executor:
    number: int
    kind: _Kind
    #: Device to the bytes that it holds there, idle or not.
    nbytes: dict[str, int]


class PackingPolicy:
    """Reuses idle executors of the same handler, else loads one where the least is left over, for which
    the least recently used idle ones go."""

    def __init__(self, devices: Iterable[Device], *, is_strict: bool, slot_bytes: int = 0) -> None:
        """`is_strict`: nobody starts before an older one of equal or higher priority. `slot_bytes`: every
        job takes at least so much of a device, or all of a smaller one."""
        self.devices = {device.id: device for device in devices}
        self.free = {device.id: device.cap_bytes for device in self.devices.values()}
        self.busy = dict.fromkeys(self.devices, 0)
        self._is_strict = is_strict
        self._slot_bytes = slot_bytes
        self._backlogs: dict[JobClass, deque[SimulatedJob]] = {}
        self._executors: dict[int, _Executor] = {}
        # The one that idles longest first.
        self._idle: dict[_Kind, dict[int, _Executor]] = {}
        self._idle_on: dict[str, dict[int, _Executor]] = {each: {} for each in self.devices}
        self._last_executor = 0
        self._is_settled = True

    def advance(self, now: float) -> None:
        """Idle executors stay until others need their bytes."""

    def submit(self, job: SimulatedJob) -> None:
        """A job waits. Behind another of its class that can't start it changes nothing."""
        backlog = self._backlogs.get(job.job_class)
        if backlog is None:
            backlog = self._backlogs[job.job_class] = deque()
            self._is_settled = False
        backlog.append(job)

    def on_job_ended(self, executor: int, job: SimulatedJob, now: float) -> None:
        """An executor's job ended."""
        idle = self._executors[executor]
        self._idle.setdefault(idle.kind, {})[executor] = idle
        for each in idle.nbytes:
            self.busy[each] -= 1
            self._idle_on[each][executor] = idle
        self._is_settled = False

    def start_jobs(self, now: float) -> list[StartedJob]:
        """Start by priority, then in order of arrival; of a class whose first one finds no room no other
        would, since as a turn goes on there is only less."""
        started_jobs: list[StartedJob] = []
        if self._is_settled:
            return started_jobs
        self._is_settled = True
        heap = [
            (-job_class.priority, backlog[0].number, backlog) for job_class, backlog in self._backlogs.items()
        ]
        heapify(heap)
        while heap:
            priority, _, backlog = heap[0]
            started = self._start(backlog[0])
            if started is None:
                if self._is_strict:
                    break
                heappop(heap)
                continue
            started_jobs.append(started)
            job = backlog.popleft()
            if backlog:
                heapreplace(heap, (priority, backlog[0].number, backlog))
            else:
                heappop(heap)
                del self._backlogs[job.job_class]
        return started_jobs

    def _start(self, job: SimulatedJob) -> StartedJob | None:
        executor = self._find_warm(job)
        is_cold = executor is None
        if executor is None:
            executor = self._load(job)
            if executor is None:
                return None
        else:
            self._remove_idle(executor)
        for each in executor.nbytes:
            self.busy[each] += 1
        return StartedJob(job, executor.number, tuple(executor.nbytes), is_cold)

    def _find_warm(self, job: SimulatedJob) -> _Executor | None:
        for executor in reversed(self._idle.get((job.job_class.handler, job.job_class.gpus), {}).values()):
            if all(
                nbytes >= job.need_bytes and self._has_place(each) for each, nbytes in executor.nbytes.items()
            ):
                return executor
        return None

    def _load(self, job: SimulatedJob) -> _Executor | None:
        options: list[tuple[int, int, int, str, int]] = []
        for place, (each, free) in enumerate(self.free.items()):
            need = self._need_on(job, each)
            idle = sum(executor.nbytes[each] for executor in self._idle_on[each].values())
            if self._has_place(each) and need <= free + idle:
                options.append((max(0, need - free), free - need, place, each, need))
        if len(options) < job.job_class.gpus:
            return None
        chosen = {each: need for *_, each, need in sorted(options)[: job.job_class.gpus]}
        for each, need in chosen.items():
            while self.free[each] < need:
                self._evict(next(iter(self._idle_on[each].values())))
            self.free[each] -= need
        self._last_executor += 1
        executor = _Executor(self._last_executor, (job.job_class.handler, job.job_class.gpus), chosen)
        self._executors[executor.number] = executor
        return executor

    def _need_on(self, job: SimulatedJob, device_id: str) -> int:
        return max(job.need_bytes, min(self._slot_bytes, self.devices[device_id].cap_bytes))

    def _has_place(self, device_id: str) -> bool:
        return self.busy[device_id] < self.devices[device_id].max_executors

    def _evict(self, executor: _Executor) -> None:
        self._remove_idle(executor)
        del self._executors[executor.number]
        for each, nbytes in executor.nbytes.items():
            self.free[each] += nbytes

    def _remove_idle(self, executor: _Executor) -> None:
        del self._idle[executor.kind][executor.number]
        for each in executor.nbytes:
            del self._idle_on[each][executor.number]
