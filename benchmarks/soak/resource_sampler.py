"""Effect: what the processes of the server hold while it runs: memory, descriptors, threads."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field

import psutil

from benchmarks.soak.run_context import RunContext
from benchmarks.soak.server import ServerProcess
from benchmarks.soak.slope import Slope

EVERY_S = 5.0
#: A process has reached its level after this.
WARM_S = 45.0
LONG_LIVED = ("coordinator", "front", "writer", "probe", "worker")
#: This number of descriptors more than in the beginning is still the same level: one of a kept connection,
#: one of a file that is being read.
SPARE = 2
#: The pools of threads that read files grow with use, up to this.
SPARE_THREADS = 8
#: A process that saw DRIFT_JOBS jobs in the calm part may have grown by DRIFT_BYTES for each.
DRIFT_JOBS = 5_000
DRIFT_BYTES = 1024


@dataclass(slots=True)
class RoleUsage:
    """The figures of all processes of one role."""

    per_job: Slope = field(default_factory=Slope)
    per_hour: Slope = field(default_factory=Slope)
    #: Resident bytes of the last samples, and the most.
    rss_last: int = 0
    rss_most: int = 0
    descriptors_most: int = 0
    threads_most: int = 0


@dataclass(frozen=True, slots=True)
class IdleLevel:
    """The most that a process of a role holds while nothing is to be done."""

    descriptors: int
    threads: int


class ResourceSampler:
    """Samples every few seconds."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self.roles: dict[str, RoleUsage] = {}
        self.calm: dict[str, RoleUsage] = {}
        self.cpu_s = 0.0
        self.driver = RoleUsage()
        self.disk_most = 0
        self._processes: dict[int, psutil.Process] = {}
        self._cpu: dict[int, float] = {}
        #: Executors' markers that outlive their executor, since when.
        self._orphaned: dict[str, float] = {}

    async def run(self) -> None:
        """Until the run is over."""
        while await self._context.pause(EVERY_S):
            self.sample()

    def sample(self) -> None:
        """Look at all processes once."""
        members = self._context.server.members()
        for member in members:
            self._sample_process(member)
        for pid in set(self._processes) - {member.pid for member in members}:
            del self._processes[pid]
            self._cpu.pop(pid, None)
        self._check_orphans(members)
        self.disk_most = max(self.disk_most, self._context.server.disk_bytes())
        accepted, now = self._context.ledger.counts["accepted"], time.monotonic()
        if now - self._context.started_mono > WARM_S:
            _add(self.driver, os.getpid(), psutil.Process(), accepted, now)

    def measure_levels(self) -> dict[str, IdleLevel]:
        """What every role holds now, at most."""
        found: dict[str, IdleLevel] = {}
        for member in self._context.server.members():
            if member.role in LONG_LIVED:
                try:
                    process = psutil.Process(member.pid)
                    level = IdleLevel(process.num_fds(), process.num_threads())
                except psutil.NoSuchProcess:
                    continue
                old = found.get(member.role, level)
                found[member.role] = IdleLevel(
                    max(old.descriptors, level.descriptors), max(old.threads, level.threads)
                )
        return found

    async def measure_idle_levels(self, within_s: float) -> dict[str, IdleLevel]:
        """The levels once no executor lives any more."""
        until = time.monotonic() + within_s
        while self._context.server.pids_of_role("executor") and time.monotonic() < until:
            await asyncio.sleep(0.3)
        self._context.http.close()
        await asyncio.sleep(1.0)
        return self.measure_levels()

    def compare_levels(self, first: dict[str, IdleLevel], last: dict[str, IdleLevel]) -> None:
        """Nothing is held at the end that was not held in the beginning."""
        for role, before in first.items():
            after = last.get(role)
            if after is None:
                self._context.report_violation(f"I6: there is no {role} at the end")
            elif (
                after.descriptors > before.descriptors + SPARE
                or after.threads > before.threads + SPARE_THREADS
            ):
                self._context.report_violation(
                    f"I6: a {role} held {before} when idle in the beginning, {after} at the end"
                )

    def check_drift(self) -> None:
        """In the calm part, where processes live long enough to tell, no job leaves memory behind."""
        for name in LONG_LIVED:
            role = self.calm.get(name, RoleUsage())
            slope = role.per_job.value
            if slope is not None and role.per_job.width >= DRIFT_JOBS and slope > DRIFT_BYTES:
                self._context.report_violation(f"I6: the memory of a {name} grew by {slope:,.0f} bytes a job")

    def _sample_process(self, member: ServerProcess) -> None:
        now, context = time.monotonic(), self._context
        try:
            process = self._processes.get(member.pid) or psutil.Process(member.pid)
            self._processes[member.pid] = process
            times = process.cpu_times()
            spent = times.user + times.system
            self.cpu_s += spent - self._cpu.get(member.pid, 0.0)
            self._cpu[member.pid] = spent
            if time.time() - process.create_time() < WARM_S and member.role in LONG_LIVED:
                return
            accepted = context.ledger.counts["accepted"]
            _add(self.roles.setdefault(member.role, RoleUsage()), member.pid, process, accepted, now)
            if context.is_calm:
                _add(self.calm.setdefault(member.role, RoleUsage()), member.pid, process, accepted, now)
        except psutil.NoSuchProcess:
            self._processes.pop(member.pid, None)

    def _check_orphans(self, members: list[ServerProcess]) -> None:
        """What an executor started is gone soon after it."""
        alive = {member.marker for member in members if member.role == "executor"}
        orphaned = {m.marker for m in members if m.role == "child" and m.marker and m.marker not in alive}
        now = time.monotonic()
        self._orphaned = {marker: self._orphaned.get(marker, now) for marker in orphaned}
        for marker, since in self._orphaned.items():
            if now - since > 2 * EVERY_S - 1.0:
                self._context.report_violation(
                    f"I6: children of the executor {marker} live {now - since:.0f} s after it"
                )
                self._orphaned[marker] = now + 3600.0


def _add(role: RoleUsage, pid: int, process: psutil.Process, accepted: int, now: float) -> None:
    rss = int(process.memory_info().rss)
    role.per_job.add(pid, accepted, rss)
    role.per_hour.add(pid, now / 3600.0, rss)
    role.rss_last = rss
    role.rss_most = max(role.rss_most, rss)
    role.descriptors_most = max(role.descriptors_most, process.num_fds())
    role.threads_most = max(role.threads_most, process.num_threads())
