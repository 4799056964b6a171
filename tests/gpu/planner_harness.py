"""A coordinator in miniature for tests of the plan: it carries plans out and lets executors behave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpu.devices.device import Device, sim
from gpu.job_class import JobClass
from gpu.planning.planner import EvictAction, LoadAction, Plan, StartAction, plan
from gpu.scheduling.scheduler_state import SchedulerState

G = 1 << 30


def make_class(
    handler: str = "a",
    need: int | None = 6 * G,
    *,
    gpus: int = 1,
    priority: int = 50,
    queue: str = "default",
    version: str = "1",
) -> JobClass:
    return JobClass(queue, handler, version, "", priority, need, gpus)


class PlannerHarness:
    def __init__(
        self, *devices: Device, bypass_limit: int = 8, weights: Mapping[str, float] | None = None
    ) -> None:
        self.state = SchedulerState(devices or (sim(0, 24 * G),), bypass_limit=bypass_limit, weights=weights)
        self.now = 0.0
        self.classes: dict[int, JobClass] = {}
        self.keep_alive_s: dict[str, float] = {}
        self.max_jobs: int | None = None
        self.started: list[int] = []
        self.executors = 0

    def submit(self, job_class: JobClass, count: int = 1) -> list[int]:
        job_numbers = list(range(len(self.classes) + 1, len(self.classes) + 1 + count))
        for job_number in job_numbers:
            self.classes[job_number] = job_class
            self.state.add_waiting(job_class, job_number, since=self.now)
        return job_numbers

    def plan_and_apply(self) -> Plan:
        made = plan(self.state, self.now)
        self.apply(made)
        return made

    def apply(self, made: Plan) -> None:
        for action in made.actions:
            match action:
                case StartAction(executor, cls, ns) if cls.is_prewarm:
                    # It is there already.
                    self.state.remove_waiting(cls, ns[0])
                    self.started += ns
                case StartAction(executor, cls, ns):
                    self.state.start(executor, cls, ns, self.now, action.outlook)
                    self.started += ns
                case LoadAction():
                    self.executors += 1
                    self.state.load(
                        self.executors,
                        action.job_class,
                        action.job_number,
                        action.device_ids,
                        action.grant_bytes,
                        action.exclusive,
                        keep_alive_s=self.keep_alive_s.get(action.job_class.handler, 300.0),
                        max_jobs=self.max_jobs,
                        now=self.now,
                        outlook=action.outlook,
                        extra_job_numbers=action.extra_job_numbers,
                    )
                    self.started += (action.job_number, *action.extra_job_numbers)
                case EvictAction(executor):
                    self.state.evict(executor)

    def record_peaks(self, handler: str, peak: int, count: int = 1) -> None:
        """So many of its jobs, whose need nobody declared, took so much."""
        for _ in range(count):
            self.state.record_run(make_class(handler, None), peak, None)

    def finish(self, executor: int) -> None:
        """End what the executor was handed, after loading where it loads."""
        resident = self.state.executors[executor]
        if resident.state == "loading":
            self.state.on_loaded(executor, None, self.now)
        for job_number, job_class in list(resident.assigned.items()):
            assert self.state.on_attempt_ended(executor, job_class, job_number, self.now)

    def give_back(self, executor: int, job_class: JobClass, job_numbers: Sequence[int]) -> None:
        """What the executor was handed and has not started waits again, before the others."""
        for job_number in reversed(job_numbers):
            if self.state.on_attempt_ended(executor, job_class, job_number, self.now, has_run=False):
                self.state.add_waiting(job_class, job_number, first=True)

    def add_idle(self, job_class: JobClass, used: int | None = None) -> int:
        """An idle executor of the class, loaded now; it was seen to use so much."""
        self.submit(job_class)
        self.plan_and_apply()
        executor = self.executors
        self.finish(executor)
        if used is not None:
            self.state.ledger.usage.record_total(executor, used)
        self.now += 1
        return executor

    def add_running(self, job_class: JobClass) -> int:
        """An executor of the class with a job that runs."""
        self.submit(job_class)
        self.plan_and_apply()
        self.state.on_loaded(self.executors, None, self.now)
        self.now += 1
        return self.executors

    def remove_leaving(self) -> None:
        """Those who were told to go are gone."""
        for executor, resident in list(self.state.executors.items()):
            if resident.state == "leaving":
                self.state.on_executor_gone(executor, self.now)


def describe_actions(made: Plan) -> list[str]:
    """The actions in short words."""
    texts: list[str] = []
    for action in made.actions:
        match action:
            case StartAction(executor, _, ns):
                texts.append(f"start {executor}: {','.join(map(str, ns))}")
            case LoadAction(cls, n, ids, grant, exclusive, _, mates):
                size = f"{grant / G:g}G{' alone' if exclusive else ''}"
                jobs = ",".join(map(str, (n, *mates)))
                texts.append(f"load {cls.handler} {jobs} on {'+'.join(ids)} {size}")
            case EvictAction(executor):
                texts.append(f"evict {executor}")
    return texts
