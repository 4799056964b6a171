"""Pure: the product's own plan over its own view, in virtual time."""

from __future__ import annotations

import math
from collections.abc import Iterable

from benchmarks.simulation.engine import StartedJob
from benchmarks.simulation.job import SimulatedJob
from gpu.devices.device import Device
from gpu.planning.planner import EvictAction, LoadAction, StartAction, plan
from gpu.scheduling.scheduler_state import SchedulerState


class RunnerPolicy:
    """A coordinator in miniature: it tells the view what happens and carries out what the plan says.

    Executors that are told to go are gone at once, as with the other policies, and like theirs stay while
    nobody needs their room. What they were seen to use is their grant."""

    def __init__(self, devices: Iterable[Device], keep_alive_s: float = math.inf) -> None:
        self.state = SchedulerState(devices)
        self._keep_alive_s = keep_alive_s
        self._waiting: dict[int, SimulatedJob] = {}
        self._last_executor = 0
        # True while another plan would say again that nothing is to be done. Most of a long line's
        # arrivals join a class with a job that can't start: they change nothing for the plan.
        self._is_settled = True

    def advance(self, now: float) -> None:
        """Unload what idled for too long."""
        for executor in self.state.idle_expiry.pop_due(now):
            self._evict(executor, now)
            self._is_settled = False

    def submit(self, job: SimulatedJob) -> None:
        """A job waits."""
        if job.job_class not in self.state.backlog.by_class:
            self._is_settled = False
        self._waiting[job.number] = job
        self.state.add_waiting(job.job_class, job.number, since=job.submit_s)

    def on_job_ended(self, executor: int, job: SimulatedJob, now: float) -> None:
        """An executor's job ended."""
        if self.state.executors[executor].state == "loading":
            # Said late: a plan that hands out one job at a time makes no difference between the two.
            self.state.on_loaded(executor, None, now)
            self.state.estimator.record_load(job.job_class.key, None, job.load_s)
        self.state.record_run(job.job_class, None, job.run_s)
        self.state.on_attempt_ended(executor, job.job_class, job.number, now)
        self._is_settled = False

    def start_jobs(self, now: float) -> list[StartedJob]:
        """Plan, and once more each time that room was made: who was told to go is gone."""
        started: list[StartedJob] = []
        while self.state.backlog.by_class and not self._is_settled:
            actions = plan(self.state, now).actions
            self._is_settled = not actions
            has_evicted = False
            for action in actions:
                match action:
                    case StartAction(executor, _, ns):
                        devices = self.state.executors[executor].devices
                        self.state.start(executor, action.job_class, ns, now, action.outlook)
                        started += [
                            StartedJob(self._waiting.pop(number), executor, devices, False) for number in ns
                        ]
                    case LoadAction():
                        started.append(self.load(action, now))
                    case EvictAction(executor):
                        self._evict(executor, now)
                        has_evicted = True
            if not has_evicted:
                break
        return started

    def load(self, action: LoadAction, now: float = 0.0) -> StartedJob:
        """Carry out that a new executor starts with a waiting job."""
        self._last_executor += 1
        self.state.load(
            self._last_executor,
            action.job_class,
            action.job_number,
            action.device_ids,
            action.grant_bytes,
            action.exclusive,
            keep_alive_s=self._keep_alive_s,
            now=now,
            outlook=action.outlook,
        )
        return StartedJob(self._waiting.pop(action.job_number), self._last_executor, action.device_ids, True)

    def _evict(self, executor: int, now: float) -> None:
        self.state.evict(executor)
        self.state.on_executor_gone(executor, now)
