"""Pure: the policies by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from benchmarks.simulation.engine import Policy
from benchmarks.simulation.job import Job
from benchmarks.simulation.ours import Ours
from benchmarks.simulation.packer import Packer
from gpu.device import Device


def ours(jobs: Sequence[Job], devices: Sequence[Device]) -> Policy:
    """The product's plan."""
    return Ours(devices)


def fifo(jobs: Sequence[Job], devices: Sequence[Device]) -> Policy:
    """Nobody starts before an older one."""
    return Packer(devices, is_strict=True)


def skip(jobs: Sequence[Job], devices: Sequence[Device]) -> Policy:
    """Whatever fits starts, in order of arrival."""
    return Packer(devices, is_strict=False)


def slots(jobs: Sequence[Job], devices: Sequence[Device]) -> Policy:
    """Each device runs as many as it would of the largest, in order of arrival."""
    return Packer(devices, is_strict=True, slot_bytes=max(job.need_bytes for job in jobs))


POLICIES: Mapping[str, Callable[[Sequence[Job], Sequence[Device]], Policy]] = {
    "ours": ours,
    "fifo": fifo,
    "skip": skip,
    "slots": slots,
}
