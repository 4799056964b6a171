"""Effect: measures what one plan costs on a large fleet, and how that grows."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.simulation.job import GIB, JobClassCache, SimulatedJob
from benchmarks.simulation.ours import RunnerPolicy
from gpu.devices.device import sim
from gpu.job_class import JobClass
from gpu.planning.planner import LoadAction, plan

DEVICES = 1_000
WAITING = 10_000
EXECUTORS = 2_000
DEVICE_BYTES = 80 * GIB
#: Executors of each handler take one of these.
NEEDS_GIB = (10, 20, 40)
TARGET_P99_MS = 20.0
ROUNDS = 200
#: After so much of the processor's time a case ends before its last round.
CASE_S = 3.0
ROUNDS_MIN = 3


@dataclass(frozen=True, slots=True)
class Case:
    """What happened between two plans."""

    classes: int
    #: Jobs that ended, and jobs that came of classes of which nobody waited.
    ended: int
    submitted: int


CASES = (
    Case(10, 0, 0),
    Case(10, 0, 1),
    *(Case(classes, ended, 0) for classes in (1, 10, 100, 1_000) for ended in (1, 8, 64)),
)


def measure(console: Console, rounds: int = ROUNDS) -> dict[str, Any]:
    """Time `plan` in every case; the processor's time of this thread, so that neighbours count less."""
    table = Table(title=f"One plan: {DEVICES:,} devices, {WAITING:,} jobs wait, {EXECUTORS:,} executors run")
    for heading in ("classes that wait", "jobs ended", "new classes", "plans", "p50 ms", "p99 ms", "actions"):
        table.add_column(heading, justify="right")
    rows: list[dict[str, Any]] = []
    for case in CASES:
        times, actions = _time_plans(case, rounds)
        p50, p99 = times[len(times) // 2], times[-(-len(times) * 99 // 100) - 1]
        rows.append(
            {
                "classes": case.classes,
                "ended": case.ended,
                "came": case.submitted,
                "plans": len(times),
                "p50_ms": p50,
                "p99_ms": p99,
                "actions": actions,
                "target_p99_ms": TARGET_P99_MS,
            }
        )
        table.add_row(
            str(case.classes),
            str(case.ended),
            str(case.submitted),
            str(len(times)),
            f"{p50:.2f}",
            f"{p99:.2f}",
            f"{actions:.1f}",
        )
    console.print(table)
    return {"decisions": rows}


class BusyCluster:
    """Two executors a device, all at work, and a line that finds no room."""

    def __init__(self, classes: int) -> None:
        self.rng = random.Random(classes)
        self.policy = RunnerPolicy([sim(place, DEVICE_BYTES) for place in range(DEVICES)])
        self.classes = JobClassCache()
        self.waiting_classes = [self._class(f"h{place}", place) for place in range(classes)]
        self.running: dict[int, SimulatedJob] = {}
        self.last_number = 0
        for executor in range(1, EXECUTORS + 1):
            self._run(executor)
        for place in range(WAITING):
            self.submit(self.waiting_classes[place % classes])
        self.apply_plan()

    def _class(self, handler: str, place: int) -> JobClass:
        return self.classes.get(handler, NEEDS_GIB[place % len(NEEDS_GIB)] * GIB)

    def _run(self, executor: int) -> None:
        """One more executor is at work; what runs leaves nothing free. A plan for that many starts is no part
        of the measurement."""
        job_class = self.classes.get(f"r{executor % 100}", DEVICE_BYTES // 2)
        self.last_number += 1
        device_id = f"sim{executor % DEVICES}"
        self.policy.submit(SimulatedJob(self.last_number, 0.0, 1.0, 0.0, job_class))
        started = self.policy.load(
            LoadAction(job_class, self.last_number, (device_id,), DEVICE_BYTES // 2, exclusive=False)
        )
        self.running[started.executor] = started.job

    def submit(self, job_class: JobClass) -> None:
        self.last_number += 1
        self.policy.submit(SimulatedJob(self.last_number, 0.0, 1.0, 0.0, job_class))

    def apply_plan(self) -> None:
        """Carry the plan out. For each that starts another one comes, so that the line stays long."""
        for started in self.policy.start_jobs(0.0):
            self.running[started.executor] = started.job
            self.submit(started.job.job_class)

    def apply_case(self, case: Case) -> None:
        """Let happen what the case says, and nothing else."""
        for executor in self.rng.sample(sorted(self.running), case.ended):
            self.policy.on_job_ended(executor, self.running.pop(executor), 0.0)
        for _ in range(case.submitted):
            self.submit(self._class(f"new{self.last_number}", self.last_number))


def _time_plans(case: Case, rounds: int) -> tuple[list[float], float]:
    """Sorted milliseconds of a plan each round, and how much it had to do on average."""
    fleet = BusyCluster(case.classes)
    times: list[float] = []
    actions = 0
    until = time.thread_time() + CASE_S
    while len(times) < rounds and (len(times) < ROUNDS_MIN or time.thread_time() < until):
        fleet.apply_case(case)
        began = time.thread_time()
        made = plan(fleet.policy.state, 0.0)
        times.append((time.thread_time() - began) * 1e3)
        actions += len(made.actions)
        fleet.apply_plan()
    return sorted(times), actions / len(times)
