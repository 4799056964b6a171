"""Pure: a job of a simulation, and whether devices could ever run it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpu.devices.device import Device
from gpu.job_class import JobClass

GIB = 1 << 30
#: What the product gives a job that names none.
PRIORITY = 50


class InvalidJob(ValueError):
    """A job that can't be simulated: which one, and why."""


@dataclass(frozen=True, slots=True)
class SimulatedJob:
    """Something to run. Numbers follow the order of submission, from 1."""

    number: int
    submit_s: float
    run_s: float
    #: What its executor takes to load before, where none is warm.
    load_s: float
    job_class: JobClass

    @property
    def need_bytes(self) -> int:
        """On each of its devices."""
        return self.job_class.need_bytes or 0


class JobClassCache:
    """Equal classes are one object, so that a million jobs share a few."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, int, int, int, float], JobClass] = {}

    def get(
        self,
        handler: str,
        need_bytes: int,
        gpus: int = 1,
        priority: int = PRIORITY,
        tenant: str = "",
        limit_s: float = math.inf,
    ) -> JobClass:
        """The class of such jobs."""
        fields = (tenant, handler, priority, need_bytes, gpus, limit_s)
        job_class = self._known.get(fields)
        if job_class is None:
            # What a handler takes is part of its definition: over more devices it is another version of it,
            # and no executor of the one runs jobs of the other.
            version = str(gpus)
            job_class = JobClass(
                "default", handler, version, "", priority, need_bytes, gpus, tenant=tenant, limit_s=limit_s
            )
            self._known[fields] = job_class
        return job_class


def check_fit(jobs: Iterable[SimulatedJob], devices: Sequence[Device]) -> None:
    """See that the devices, all empty, could run each of the jobs.

    Raises:
        BadJob: they could not.
    """
    fits: dict[JobClass, int] = {}
    for job in jobs:
        if job.job_class not in fits:
            fits[job.job_class] = sum(device.cap_bytes >= job.need_bytes for device in devices)
        if fits[job.job_class] < job.job_class.gpus:
            raise InvalidJob(
                f"job {job.number} (handler {job.job_class.handler!r}) asks for {job.need_bytes / GIB:g} GiB "
                f"on each of {job.job_class.gpus} devices at once; {fits[job.job_class]} of {len(devices)} "
                "devices have that much: give it less or --devices more"
            )
