"""Pure: the policies by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from benchmarks.simulation.engine import Policy
from benchmarks.simulation.job import SimulatedJob
from benchmarks.simulation.ours import RunnerPolicy
from benchmarks.simulation.packer import PackingPolicy
from gpu.devices.device import Device


class PolicyFactory(Protocol):
    """Makes a policy for some jobs on some devices."""

    def __call__(
        self, jobs: Sequence[SimulatedJob], devices: Sequence[Device], keep_alive_s: float = math.inf
    ) -> Policy:
        """`keep_alive_s` is how long our own keeps an idle executor that nobody needs to go."""
        ...


def ours(jobs: Sequence[SimulatedJob], devices: Sequence[Device], keep_alive_s: float = math.inf) -> Policy:
    """The product's plan."""
    return RunnerPolicy(devices, keep_alive_s)


def fifo(jobs: Sequence[SimulatedJob], devices: Sequence[Device], keep_alive_s: float = math.inf) -> Policy:
    """Nobody starts before an older one."""
    return PackingPolicy(devices, is_strict=True)


def skip(jobs: Sequence[SimulatedJob], devices: Sequence[Device], keep_alive_s: float = math.inf) -> Policy:
    """Whatever fits starts, in order of arrival."""
    return PackingPolicy(devices, is_strict=False)


def slots(jobs: Sequence[SimulatedJob], devices: Sequence[Device], keep_alive_s: float = math.inf) -> Policy:
    """Each device runs as many as it would of the largest, in order of arrival."""
    return PackingPolicy(devices, is_strict=True, slot_bytes=max(job.need_bytes for job in jobs))


POLICIES: Mapping[str, PolicyFactory] = {
    "ours": ours,
    "fifo": fifo,
    "skip": skip,
    "slots": slots,
}
